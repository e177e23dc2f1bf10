"""Policies from files: what is no tolerance is refused by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from verifier import UsageError
from verifier.judge import Policy

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCES = [
    name
    for name, value in ((n, getattr(Policy(), n)) for n in Policy.__struct_fields__)
    if type(value) is float
]


def refusal(tmp_path: Path, content: str | bytes) -> str:
    file = tmp_path / "mine.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as raised:
        Policy.load(str(file))
    assert "mine.toml" in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("value", ["nan", "-nan", "-1.0", "inf", "-inf", "-1e-30"])
@pytest.mark.parametrize("name", TOLERANCES)
def test_what_is_no_tolerance_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    assert f"{name} is" in refusal(tmp_path, f"{name} = {value}")


@pytest.mark.parametrize("value", ['"0.5"', "true", "[1.0]", "1979-05-27", "{ a = 1 }"])
def test_what_is_no_number_is_refused_by_name(tmp_path: Path, value: str) -> None:
    assert "`factor`" in refusal(tmp_path, f"factor = {value}")


@pytest.mark.parametrize("name", ["minimum_coverage", "pearson_probabilities", "top1_agreement"])
def test_a_share_beyond_one_is_refused_by_name(tmp_path: Path, name: str) -> None:
    assert f"{name} is 1.5" in refusal(tmp_path, f"{name} = 1.5")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("factr = 2.0", "factr"),
        ("name = 3", "`name`"),
        ("criteria_decide = 1", "`criteria_decide`"),
        ("factor is 2", "line 1"),
        (b"\xff\xfe", "no TOML"),
        ("factor = " + "[" * 50_000, "nested"),
        ("factor = " + "9" * 5_000, "digits"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, content: str | bytes, says: str) -> None:
    assert says in refusal(tmp_path, content)


def test_a_policy_may_be_as_strict_as_it_likes(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("".join(f"{name} = 0\n" for name in TOLERANCES), encoding="utf-8")

    policy = Policy.load(str(file))

    assert {getattr(policy, name) for name in TOLERANCES} == {0}
    assert policy.name == "mine.toml"


def test_a_policy_made_in_python_is_held_to_the_same() -> None:
    with pytest.raises(ValueError, match="semantics is nan"):
        Policy(semantics=float("nan"))
