"""What a command imports: a budget for each, since what is imported is waited for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended

TABLES = {"pandas", "pyarrow"}
PAGES = {"jinja2", "PIL", "reports.html", "reports.view", "reports.plot"}
COMPUTING = {"torch", "numpy", "numba", "scipy"}
OTHERS = {"torchvision", "reference_models", "rich", "safetensors", "skimage", "sklearn", "triton"}
SCIPY = {"scipy.special", "scipy.stats", "scipy.sparse"}  # of which numba imports scipy.linalg to compile

FILES = """
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


def failing():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(7, 8))


def inputs():
    return torch.randn(2, 3, 8, 8)
"""
"""Two files of a user's, as one."""


@pytest.fixture
def importing(call: Callable[..., Ended], place: Path) -> Callable[..., tuple[int, set[str]]]:
    """Runs a command in a process that says what it imports: its exit code, and the modules it looked for."""
    (place / "pair.py").write_text(FILES, encoding="utf-8")

    def run(*arguments: str) -> tuple[int, set[str]]:
        ended = call(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
        return ended.code, set(re.findall(r"^import time: .*\| +(\S+)$", ended.err, re.MULTILINE))

    return run


def among(names: set[str], modules: set[str]) -> set[str]:
    """The names of which a module was imported, or one below it: the top of what is imported by name is not told."""
    return {name for name in names if any(f"{each}.".startswith(f"{name}.") for each in modules)}


def of_rooms(modules: set[str]) -> set[str]:
    """The rooms that modules belong to."""
    return {".".join(each.split(".")[:2]) for each in modules if each.startswith("verifier.")}


def pair(candidate: str = "build") -> tuple[str, ...]:
    sides = ("--baseline", "pair.py:build", "--candidate", f"pair.py:{candidate}")
    return "run", *sides, "--input", "pair.py:inputs", "--out", "OUT"


def test_help_waits_for_nothing(importing: Callable[..., tuple[int, set[str]]]) -> None:
    code, modules = importing("--help")
    assert code == 0
    assert among(COMPUTING | TABLES | PAGES | OTHERS | {"pydantic"}, modules) == set()
    rooms = {"border", "cli", "errors", "gate", "ranks", "records", "storage"}
    assert of_rooms(modules) <= {f"verifier.{each}" for each in rooms}
    assert len({each for each in modules if each.startswith(("verifier", "reports"))}) < 64


def test_what_is_wrong_with_the_options_is_said_at_once(
    importing: Callable[..., tuple[int, set[str]]],
) -> None:
    code, modules = importing(*pair(), "--localise", "sometimes")
    assert code == 2
    assert among(COMPUTING | TABLES | PAGES | OTHERS, modules) == set()


@pytest.mark.parametrize("command", ["run", "check"])
def test_two_files_of_a_users_are_compared_without_what_not_every_comparison_needs(
    command: str, importing: Callable[..., tuple[int, set[str]]], call: Callable[..., Ended], place: Path
) -> None:
    call(*pair())  # what is compiled once is kept
    if command == "check":
        (place / "policy.toml").write_text(
            '[[models]]\nname = "one"\nbaseline = "pair.py:build"\ncandidate = "pair.py:build"\n'
            'input = "pair.py:inputs"\n',
            encoding="utf-8",
        )
        code, modules = importing("check", "--policy", "policy.toml")
    else:
        code, modules = importing(*pair())
    assert code == 0
    assert among(OTHERS | TABLES | SCIPY, modules) == set()
    rooms = {"certificates", "dumps", "preprocessing", "training", "initialisation", "experiment"}
    assert of_rooms(modules) & {f"verifier.{each}" for each in rooms} == set()
    assert "verifier.diagnose.repros" not in modules
    assert among({"torch", "numba", *PAGES}, modules) == {"torch", "numba", *PAGES}


def test_no_page_is_prepared_before_there_is_a_result(
    importing: Callable[..., tuple[int, set[str]]],
) -> None:
    code, modules = importing(*pair("failing"))
    assert code == 3
    assert modules >= {"torch", "verifier.verification"}
    assert among(PAGES, modules) == set()


def test_a_page_is_made_again_without_what_computed_its_result(
    importing: Callable[..., tuple[int, set[str]]], call: Callable[..., Ended]
) -> None:
    call(*pair())
    code, modules = importing("report", "OUT")
    assert code == 0
    assert among(COMPUTING | TABLES | OTHERS, modules) == set()
    assert among(PAGES, modules) == PAGES
