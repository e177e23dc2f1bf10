"""Forty commits, one of which is wrong and one of which does not import: `history` and `bisect` name the same."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tests.sweeps import swept
from verifier.cli import commands

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended

NET = """
import torch
from torch import nn
from scale import SCALE

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)) * SCALE)

def build():
    return Net()
"""
INPUTS = "import torch\n\ndef x():\n    return torch.randn(4, 8)\n"
COMMITS, BAD, BROKEN = 40, 23, 20  # the broken one is the first that is tried between the ends
RUN: tuple[str, ...] = (
    "run",
    "--baseline",
    "trusted.py:build",
    "--candidate",
    "net.py:build",
    "--input",
    "inputs.py:x",
)
RUN += ("--dtype", "float64")


def git(place: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A. Author", "-c", "user.email=author@example.org")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=place, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(place: Path, number: int, *, scale: float = 0.5, broken: bool = False) -> str:
    (place / "net.py").write_text(f"{NET}\n# version {number}\n", encoding="utf-8")
    (place / "scale.py").write_text(f"SCALE = {scale}\n{'import gone' if broken else ''}\n", encoding="utf-8")
    git(place, "add", "net.py", "scale.py", "inputs.py")
    git(place, "commit", "--quiet", "--message", f"Change {number}")
    return git(place, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The repository and its commits; the trusted model lies in it, but git ignores it."""
    place = tmp_path_factory.mktemp("repository")
    git(place, "init", "--quiet", "--initial-branch", "main")
    (place / "inputs.py").write_text(INPUTS, encoding="utf-8")
    trusted = NET.replace("from scale import SCALE", "SCALE = 0.5")
    (place / "trusted.py").write_text(trusted, encoding="utf-8")
    with (place / ".git" / "info" / "exclude").open("a", encoding="utf-8") as ignored:
        ignored.write("trusted.py\n")
    made = [
        commit(place, number, scale=0.5 if number < BAD else 0.51, broken=number == BROKEN)
        for number in range(1, COMMITS + 1)
    ]
    return place, made


@pytest.fixture
def inside(repository: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, and the repository's own history as the place of it."""
    monkeypatch.chdir(repository[0])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("VERIFIER_HISTORY")
    return repository[0]


def state(place: Path) -> tuple[str, ...]:
    """All that must not change: where the checkout is, what is in it, worktrees and bisections."""
    asked = ("status --porcelain --branch", "worktree list", "for-each-ref", "stash list")
    temporary = sorted(path.name for path in (place / "tmp").iterdir()) if (place / "tmp").exists() else []
    return (*(git(place, *each.split()) for each in asked), *temporary)


def verify(*arguments: str) -> int:
    """In this process: importing torch forty times would take minutes."""
    sys.modules.pop("scale", None)  # as it was at another commit
    return CliRunner().invoke(commands.app, list(arguments)).exit_code


def test_the_history_names_the_first_bad_commit(
    inside: Path, repository: tuple[Path, list[str]], tmp_path: Path
) -> None:
    made = repository[1]
    codes = []
    for each in made:
        git(inside, "checkout", "--quiet", each)
        codes.append(verify(*RUN, "--out", str(tmp_path / "out")))
    git(inside, "checkout", "--quiet", "main")
    expected = [0 if number < BAD else 1 for number in range(1, COMMITS + 1)]
    expected[BROKEN - 1] = 2  # its file does not import
    assert codes == expected

    told = CliRunner().invoke(commands.app, ["history", "--out", str(tmp_path)])
    assert told.exit_code == 0
    [line] = [line.strip() for line in told.stdout.splitlines() if "before, now" in line]
    assert f", {made[BAD - 1][:8]}, " in line
    assert (
        "match before, now diverged; mul, mul, in cpu/float64: intrinsic relative error exact, now 0.02"
        in line
    )
    assert "other is 0.51, the baseline's 0.5" in line
    page = (tmp_path / "history.html").read_text(encoding="utf-8")
    assert f"{made[BAD - 1][:8]}, " in page
    assert "<polyline" in page

    table = CliRunner().invoke(commands.app, ["history", "--site", "mul", "--last", "3"]).stdout
    assert table.count("  0.02   0.02       1e-12    culprit") == 3
    export = CliRunner().invoke(
        commands.app, ["history", "export", str(tmp_path / "all.csv"), "--site", "mul"]
    )
    assert export.exit_code == 0
    assert len((tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()) == COMMITS
    # Recorded once more, out of order: it is the order of commits that counts.
    git(inside, "checkout", "--quiet", made[4])
    assert verify(*RUN, "--out", str(tmp_path / "out")) == 0
    git(inside, "checkout", "--quiet", "main")
    again = CliRunner().invoke(commands.app, ["history"]).stdout
    assert [line.strip() for line in again.splitlines() if "before, now" in line] == [line]


@pytest.mark.parametrize(("good", "bad"), swept([(1, COMMITS), (17, BAD)], [(17, BAD)]))
def test_bisect_finds_the_first_bad_commit_with_site_and_cause(
    inside: Path,
    repository: tuple[Path, list[str]],
    command: Callable[..., Ended],
    tmp_path: Path,
    good: int,
    bad: int,
) -> None:
    made = repository[1]
    (inside / "scale.py").write_text("SCALE = 'being edited'\n", encoding="utf-8")
    (inside / "tmp").mkdir(exist_ok=True)
    before = state(inside)
    try:
        files = (
            "--out",
            str(tmp_path / "bad"),
            f"--junit={tmp_path / 'bad.xml'}",
            "--sarif",
            str(tmp_path / "bad.sarif"),
        )
        ended = command(inside, "bisect", made[good - 1], made[bad - 1], "--", *RUN, *files)
        assert state(inside) == before
    finally:
        git(inside, "checkout", "--quiet", "scale.py")

    assert ended.code == 0, ended.err
    assert f"first bad commit: {made[BAD - 1][:12]} Change {BAD}\n" in ended.out
    assert f"{made[BROKEN - 1][:12]} Change {BROKEN}: skipped: " in ended.out
    assert "No module named 'gone'" in ended.out
    assert "mul, mul: other is 0.51, the baseline's 0.5 (confirmed, mul-other)" in ended.out
    assert "A. Author" in ended.out
    assert "<failure" in (tmp_path / "bad.xml").read_text(encoding="utf-8")
    [found] = json.loads((tmp_path / "bad.sarif").read_text(encoding="utf-8"))["runs"][0]["results"]
    assert found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "net.py"
    assert found["ruleId"] == "mul-other"
    with sqlite3.connect(inside / ".git" / "verifier" / "history.sqlite") as connection:
        names = connection.execute("SELECT DISTINCT baseline, candidate, inputs FROM runs").fetchall()
    connection.close()
    assert names == [("trusted.py:build", "net.py:build", "tensors from inputs.py:x, 4 x 8")]
    assert json.loads((tmp_path / "bad" / "result.json").read_text(encoding="utf-8"))["verdict"] == "diverged"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_request_to_end_leave_no_worktree(
    inside: Path,
    repository: tuple[Path, list[str]],
    start: Callable[..., subprocess.Popen[str]],
    number: signal.Signals,
) -> None:
    (inside / "tmp").mkdir(exist_ok=True)
    before = state(inside)
    process = start("bisect", repository[1][0], "main", "--", *RUN, at=inside)
    until = time.monotonic() + 60
    while not any((inside / "tmp").glob("verifier-bisect-*/git")):  # what the first step says goes there
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "verifier: interrupted; the worktree is removed, and the checkout is as it was.\n"
    assert state(inside) == before


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("nothing", "main", "'nothing' is no commit of this repository"),
        ("main", "no-branch", "'no-branch' is no commit of this repository"),
        ("main", "main", "main and main are the same commit"),
        ("main", "main~3", "it comes after it: give the good one first"),
    ],
)
def test_ends_that_are_none_are_refused(
    inside: Path, command: Callable[..., Ended], good: str, bad: str, said: str
) -> None:
    assert said in command(inside, "bisect", good, bad, "--", *RUN).refusal(2)


def test_outside_a_repository_nothing_is_bisected(call: Callable[..., Ended], place: Path) -> None:
    outside = {"GIT_CEILING_DIRECTORIES": str(place.parent)}
    assert "needs a git repository" in call("bisect", "a", "b", "--", *RUN, env=outside).refusal(2)
    assert "write `verifier bisect GOOD BAD -- run" in call("bisect", "a", "b", "--", "models").refusal(2)
    for words in (("run", "--baseline", "a.py:f"), ("--baseline", "a.py:f"), ("run",)):
        ended = call("bisect", "a", "b", *words)
        assert ended.code == 2
        assert "the run and its options stand behind `--`" in " ".join(ended.err.split())


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("good", "bad", "code", "said"),
    [
        (1, 10, 2, "is not bad: "),
        (BAD, COMMITS, 2, "is not good: "),
        (1, BROKEN, 2, "nothing can be said of "),
    ],
)
def test_ends_that_are_not_what_they_are_said_to_be_are_refused(
    inside: Path,
    repository: tuple[Path, list[str]],
    command: Callable[..., Ended],
    good: int,
    bad: int,
    code: int,
    said: str,
) -> None:
    made = repository[1]
    before = state(inside)
    ended = command(inside, "bisect", made[good - 1], made[bad - 1], "--", *RUN)
    assert ended.code == code
    assert said in ended.err
    assert state(inside) == before


@pytest.mark.thorough
def test_commits_that_cannot_be_told_apart_are_all_named(place: Path, command: Callable[..., Ended]) -> None:
    """The bad commit behind one that does not run: either may be it."""
    root = place / "repository"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "inputs.py").write_text(INPUTS, encoding="utf-8")
    (root / "trusted.py").write_text(NET.replace("from scale import SCALE", "SCALE = 0.5"), encoding="utf-8")
    made = [
        commit(root, 1),
        commit(root, 2),
        commit(root, 3, broken=True),
        commit(root, 4, scale=0.51),
        commit(root, 5, scale=0.51),
    ]
    ended = command(root, "bisect", made[0], made[4], "--", *RUN)
    assert ended.code == 4
    assert "the first bad commit is one of 2" in ended.out
    assert f"{made[2][:12]} Change 3\n  {made[3][:12]} Change 4\n" in ended.out
    assert f"{made[4][:12]} Change 5: diverged: mul is wrong: other is 0.51, the baseline's 0.5" in ended.out
    assert "Why commits were skipped" in ended.out
    assert "give other ends" in ended.out
    ended = command(root, "bisect", made[1], made[3], "--", *RUN)
    assert ended.code == 3
    assert "no commit between the two could be run" in ended.err
    assert "No module named 'gone'" in ended.err
