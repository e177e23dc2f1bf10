"""The pytest plugin, in pytest processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

TESTS = """
import copy
import pytest, torch
from torch import nn

torch.manual_seed(0)
BASELINE = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)).eval()
X = torch.randn(5, 4)


def wrong():
    candidate = copy.deepcopy(BASELINE)
    candidate[1].eps = 1e-3
    return candidate


def test_right(parity):
    assert parity(copy.deepcopy(BASELINE), BASELINE, X).verdict == "match"


@pytest.mark.parametrize("name", ["a/b", "a b"])
def test_wrong(parity, name):
    parity(wrong(), BASELINE, X)


def test_other_weights(parity):
    candidate = copy.deepcopy(BASELINE)
    with torch.no_grad():
        candidate[3].weight *= 1.5
    parity(candidate, BASELINE, X)


def test_drawn_apart(parity):
    candidate = copy.deepcopy(BASELINE)
    candidate[0].reset_parameters()
    candidate[3].reset_parameters()
    parity(candidate, BASELINE, X)


def test_what_it_does_not_take(parity):
    parity(BASELINE, BASELINE, torch.randn(5, 7))


def test_twice():
    from verifier import assert_parity

    for _ in range(2):
        with pytest.raises(AssertionError):
            assert_parity(wrong(), BASELINE, X)
"""


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (place / "test_models.py").write_text(TESTS)
    (place / "pytest.ini").write_text("[pytest]\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "pytest", "-q", "--basetemp", str(place / "temporary"), *arguments]
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    place = tmp_path_factory.mktemp("failing")
    return place, run(place)


def test_failures_are_told_in_a_few_lines(failed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = failed
    assert done.returncode == 1, done.stdout + done.stderr
    assert "5 failed, 2 passed" in done.stdout
    assert 'weights="transfer" compares the programs alone' in done.stdout
    assert "does not take inputs of shape (5, 7)" in done.stdout
    assert len(done.stdout.splitlines()) < 70
    for name in ("test_wrong[a/b]", "test_wrong[a b]", "test_other_weights"):
        said = done.stdout.partition(f" {name} ")[2].partition("\n")[2]
        lines = said[: said.index("report.html") + len("report.html")].splitlines()
        assert len(lines) <= 8
        assert lines[0].startswith("diverged: ")
        assert "fix: " in said
    assert "eps" in done.stdout
    assert "Traceback" not in done.stdout


def test_only_failures_leave_a_report_that_nobody_asked_for(
    failed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    place, done = failed
    found = sorted(path.parent.name for path in place.glob("temporary/parity/*/report.html"))
    assert len(found) == 6
    assert [name.rpartition("-")[0] for name in found if "other" in name] == [
        "test_models.py-test_other_weights"
    ]
    assert sum("test_twice" in name for name in found) == 2
    assert all(str(path) in done.stdout for path in place.glob("temporary/parity/*wrong*/report.html"))


def test_workers_keep_all_reports_where_they_are_wanted(tmp_path: Path) -> None:
    done = run(tmp_path, "-n", "2", "--parity-report", "kept")
    assert "5 failed, 2 passed" in done.stdout
    assert len([*tmp_path.glob("kept/*/result.json")]) == 7
    assert not (tmp_path / "temporary" / "parity").exists()
