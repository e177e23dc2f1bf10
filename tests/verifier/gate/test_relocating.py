"""A command means in a worktree what it means in the checkout; the installed verifier runs the worktree's code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from verifier.gate.bisect_launch import Worktree
from verifier.gate.relocating import relocated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRACKED = ("net.py", "sub/own.py", "photos/a.png")


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repository"
    for name in (*TRACKED, "trusted.py", "weights.pt", "samples/b.png", "strict"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "elsewhere.py").touch()
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def moved(top: Path) -> Callable[..., list[str]]:
    return lambda *words, prefix="": relocated(words, top, prefix, TRACKED)


def test_what_git_tracks_is_the_worktrees(top: Path, moved: Callable[..., list[str]]) -> None:
    words = [
        "run",
        "--candidate",
        "net.py:build",
        "--images",
        "./photos",
        "--seed",
        "3",
        "--policy",
        "strict",
    ]
    assert moved(*words) == words
    assert moved("run", "--candidate", f"{top}/net.py:build") == ["run", "--candidate", "net.py:build"]
    assert moved("run", f"--candidate={top}/sub/own.py:f") == ["run", "--candidate=sub/own.py:f"]


def test_what_git_does_not_track_stays_where_it_is(top: Path, moved: Callable[..., list[str]]) -> None:
    assert moved("run", "--baseline", "trusted.py:build", "--weights=weights.pt") == [
        "run",
        "--baseline",
        f"{top}/trusted.py:build",
        f"--weights={top}/weights.pt",
    ]
    assert moved("run", "--baseline", "../elsewhere.py:f") == [
        "run",
        "--baseline",
        f"{top.parent}/elsewhere.py:f",
    ]


def test_words_that_are_no_paths_stay_as_they_are(moved: Callable[..., list[str]]) -> None:
    words = ["run", "--images", "samples", "--baseline", "torchvision:resnet50", "--candidate", "pkg.mod:fn"]
    words += ["--input", "later.py:inputs", "--semantics"]
    assert moved(*words) == words


def test_in_a_directory_below_paths_are_of_that(
    top: Path, moved: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(top / "sub")
    words = ["run", "--candidate", "own.py:f", "--baseline", "../net.py:build"]
    assert moved(*words, prefix="sub") == words
    assert moved("run", "--baseline", f"{top}/net.py:f", prefix="sub") == ["run", "--baseline", "../net.py:f"]
    assert moved("run", "--baseline", "../trusted.py:f", prefix="sub") == [
        "run",
        "--baseline",
        f"{top}/trusted.py:f",
    ]


def test_files_that_a_run_writes_are_written_here(top: Path, moved: Callable[..., list[str]]) -> None:
    assert moved("run", "--history", "h.sqlite", "--save-map", "-") == [
        "run",
        "--history",
        f"{top}/h.sqlite",
        "--save-map",
        "-",
    ]


def package(root: Path, name: str, value: int, *, bare: bool = False) -> None:
    (root / name).mkdir(parents=True)
    if not bare:
        (root / name / "__init__.py").write_text(f"VALUE = {value}\n", encoding="utf-8")
    (root / name / "part.py").write_text(f"VALUE = {value}\n", encoding="utf-8")


def origin(finder: Worktree, name: str, path: list[str] | None = None) -> str:
    spec = finder.find_spec(name, path)
    assert spec is not None
    assert spec.origin is not None
    return spec.origin


def test_modules_of_the_checkout_come_from_the_worktree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, tree = tmp_path / "checkout", tmp_path / "tree"
    for number, root in enumerate((checkout, tree)):
        package(root / "src", "h_installed", number)
        package(root / "src", "h_bare", number, bare=True)
    package(checkout / "src", "h_later", 0)
    package(checkout / "src", "h_built", 0)
    package(tmp_path / "site", "h_other", 0)
    monkeypatch.setattr(sys, "path", [str(checkout / "src"), str(tmp_path / "site"), *sys.path])
    finder = Worktree(str(checkout), str(tree), {"src/h_later/__init__.py", "src/h_installed/__init__.py"})

    assert origin(finder, "h_installed") == str(tree / "src" / "h_installed" / "__init__.py")
    inner = finder.find_spec("h_installed")
    assert inner is not None
    assert inner.submodule_search_locations == [str(tree / "src" / "h_installed")]
    bare = finder.find_spec("h_bare")
    assert bare is not None
    assert list(bare.submodule_search_locations or ()) == [str(tree / "src" / "h_bare")]
    assert origin(finder, "h_built") == str(
        checkout / "src" / "h_built" / "__init__.py"
    )  # git does not know it
    assert origin(finder, "h_other") == str(tmp_path / "site" / "h_other" / "__init__.py")
    assert finder.find_spec("h_nothing") is None
    assert finder.find_spec("verifier") is None  # imported before, and no other finder's affair
    with pytest.raises(ModuleNotFoundError, match="'h_later' at this commit"):
        finder.find_spec("h_later")
