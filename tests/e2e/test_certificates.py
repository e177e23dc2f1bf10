"""Certificates as a user meets them: one command records, another compares, and what does not fit is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended

RECORD = ("record", "nets.py:net", "--image-size", "small", "--out", "net.safetensors")
COMPARE = ("run", "--baseline", "net.safetensors", "--candidate")


@pytest.fixture
def recorded(call: Callable[..., Ended]) -> Ended:
    """The small network's certificate."""
    return call(*RECORD)


def test_a_model_is_recorded_in_one_file(recorded: Ended) -> None:
    assert (recorded.code, recorded.err) == (0, "")
    assert recorded.new == {"net.safetensors"}
    assert recorded.out.startswith("net.safetensors: nets.py:net, ")
    assert "cpu/float32, cpu/float64" in recorded.out


def test_the_unchanged_model_matches_and_a_changed_one_diverges(
    recorded: Ended, call: Callable[..., Ended]
) -> None:
    same = call(*COMPARE, "nets.py:net", "-v")
    assert same.code == 0, (same.out, same.err)
    assert same.out.startswith("match")
    assert "the baseline is a recording of nets.py:net" in same.out
    other = call(*COMPARE, "nets.py:other_eps", "--out", "other", "-v")
    assert other.code == 1
    (culprit,) = other.result("other")["culprits"]
    assert culprit["baseline"] == "bn2"
    low, high = culprit["total"]["interval"]["nrmse"]
    assert low < culprit["total"]["nrmse"] < high
    assert "95 %" in other.out
    assert other.out.startswith(
        "diverged: bn2 is the first site beyond its budget: eps 0.0001, baseline 1e-05 ("
    )
    summary = (other.directory / "other" / "summary.md").read_text(encoding="utf-8")
    assert "nets.py:other\\_eps against net.safetensors, a recording of nets.py:net from " in summary


def test_a_certificate_is_taken_the_place_of_and_named(recorded: Ended, call: Callable[..., Ended]) -> None:
    again = call("record", "--rebase", "net.safetensors", "--out", "new.safetensors")
    assert again.code == 0, again.err
    assert "in the place of" in again.out
    assert again.out.endswith("\n  what changed: nothing that is recorded has changed\n")
    found = call("run", "--baseline", "new.safetensors", "--candidate", "nets.py:net")
    assert found.code == 0
    assert len(found.result()["certificate"]["parent"]) == 64


def test_what_changed_is_told_of_a_certificate_in_anothers_place(
    recorded: Ended, call: Callable[..., Ended]
) -> None:
    again = call("record", "nets.py:other_eps", "--rebase", "net.safetensors")
    assert again.code == 0, again.err
    assert re.search(
        r"what changed: 4 of 8 sites give other numbers, first bn2, relative error \S+; "
        r"settings: bn2 \(eps 0.0001, before 1e-05\)\n$",
        again.out,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*COMPARE, "nets.py:net", "--dtype", "bfloat16"), "not cpu/bfloat16"),
        ((*COMPARE, "nets.py:net", "--weights", "as-is"), "recorded with weights calibrated"),
        ((*COMPARE, "nets.py:net", "--probe"), "--probe needs a live baseline"),
        (("run", "--baseline", "none.safetensors", "--candidate", "nets.py:net"), "cannot be read"),
        (("record", "nets.py:net"), "--out FILE.safetensors"),
        (("record", "nets.py:net", "--out", "net.bin"), "ends with .safetensors"),
        (("record", "--out", "x.safetensors"), "a model is needed"),
    ],
)
def test_what_does_not_fit_is_refused(
    recorded: Ended, call: Callable[..., Ended], arguments: tuple[str, ...], said: str
) -> None:
    assert said in call(*arguments).refusal(2)


def test_a_damaged_certificate_is_refused(recorded: Ended, place: Path, call: Callable[..., Ended]) -> None:
    file = place / "net.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "no certificate that can be used" in call(*COMPARE, "nets.py:net").refusal(2)
