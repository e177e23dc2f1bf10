"""One model has one name in a history, from wherever it was run."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from verifier.gate.naming import described, named, tops

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("outside")


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repository"
    for name in ("repository/sub/net.py", "repository/trusted.py", "repository/net.onnx", "elsewhere.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(root)
    for words in (
        ["init", "--quiet"],
        ["add", "sub"],
        ["-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "net"],
        ["worktree", "add", "--quiet", "--detach", "../tree"],
    ):
        subprocess.run(["git", *words], check=True)
    return root


def test_what_lies_in_the_repository_is_named_from_its_top(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, net in ((top, "sub/net.py"), (top / "sub", "net.py"), (top.parent / "tree", "sub/net.py")):
        monkeypatch.chdir(place)
        for spec in (net, f"{place}/{net}", f"{top}/sub/net.py"):
            assert named(f"{spec}:build", tops()) == "sub/net.py:build"
        # Not tracked: as a bisection gives it to its worktree.
        assert named(f"{top}/trusted.py:build", tops()) == "trusted.py:build"
        assert described(f"photographs from {top}/sub, by {net}:f, 2 x 3", tops()) == (
            "photographs from sub, by sub/net.py:f, 2 x 3"
        )
        assert named(f"compile:{top}/net.onnx", tops()) == "compile:net.onnx"
        assert (
            described(f"tensors from {net}:x, 4 x 8, n=2", tops()) == "tensors from sub/net.py:x, 4 x 8, n=2"
        )


def test_what_lies_outside_has_one_name_and_nobodys_home_in_it(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = named("../elsewhere.py:f", tops())
    assert name.startswith("elsewhere.py@")
    assert name.endswith(":f")
    assert "/" not in name
    monkeypatch.chdir(top.parent / "tree")
    assert named(f"{top.parent}/elsewhere.py:f", tops()) == name
    (top / "elsewhere.py").touch()
    assert named(f"{top}/elsewhere.py:f", tops()) == "elsewhere.py:f"


def test_names_that_are_no_paths_and_places_without_a_repository_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "net.py").touch()
    for spec in ("torchvision:resnet50", "pkg.mod:fn", "net.py:build", "a module given by the caller"):
        assert named(spec, tops()) == spec
    assert named(f"{tmp_path}/net.py:build", tops()) == "net.py:build"
