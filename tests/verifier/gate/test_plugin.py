"""The pytest plugin, in pytest processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from verifier import Certificate

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


CERTIFIED = """
import copy
import os
import pytest, torch
from torch import nn

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8, eps=float(os.environ.get("EPS", "1e-5"))), nn.Linear(8, 3))
X = torch.randn(5, 4)


@pytest.mark.parametrize("number", range(4))
def test_kept(parity, number):
    parity(copy.deepcopy(MODEL).eval(), "kept/net.safetensors", X)


def test_its_own_inputs(parity):
    parity(copy.deepcopy(MODEL).eval(), "kept/net.safetensors")
"""


def run(
    place: Path, *arguments: str, tests: str = TESTS, **variables: str
) -> subprocess.CompletedProcess[str]:
    (place / "test_models.py").write_text(tests)
    (place / "pytest.ini").write_text("[pytest]\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200", "CI": ""}
    env |= variables
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
    done = run(tmp_path, "-n", "2", "--parity-report", "kept", "-k", "right or wrong")
    assert "2 failed, 1 passed" in done.stdout
    assert len([*tmp_path.glob("kept/*/result.json")]) == 3
    assert not (tmp_path / "temporary" / "parity").exists()


def certified(place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(place, *arguments, tests=CERTIFIED, **variables)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the certificate that all tests share has been recorded."""
    place = tmp_path_factory.mktemp("certified")
    done = certified(place, "--parity-update")
    assert "5 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("kept/net.safetensors: ") == 1  # recorded by the first, matched by the others
    assert "3 sites in cpu/float32, cpu/float64" in done.stdout
    assert "what changed" not in done.stdout
    return place


def test_a_missing_certificate_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    done = certified(tmp_path, "-k", "own_inputs")
    assert done.returncode == 1
    assert "pytest --parity-update test_models.py::test_its_own_inputs" in done.stdout
    assert "python -m verifier record SPEC" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_candidate_that_does_not_match_is_told_with_the_command_that_accepts_it(kept: Path) -> None:
    file = kept / "kept" / "net.safetensors"
    before = file.read_bytes()
    wrong = certified(kept, "-k", "own_inputs", EPS="1e-3")
    assert wrong.returncode == 1
    assert file.read_bytes() == before
    said = wrong.stdout.partition(" test_its_own_inputs ")[2].partition("\n")[2]
    lines = said[: said.index("report.html")].splitlines()
    assert lines[0].startswith("diverged: ")
    assert len(lines) <= 8
    assert "\n1, layer_norm: eps 0.001, baseline 1e-05\n" in said
    assert "pytest --parity-update test_models.py::test_its_own_inputs" in said


def test_what_is_recorded_anew_is_told_with_what_changed(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept / "kept", tmp_path / "kept")
    before = Certificate.load(tmp_path / "kept" / "net.safetensors").digest
    done = certified(tmp_path, "--parity-update", "-k", "own_inputs", EPS="1e-4")
    told = done.stdout.partition("parity: certificates recorded")[2].splitlines()[1:3]
    assert told[0].startswith("kept/net.safetensors: ")
    assert told[0].endswith(f"in the place of {before[:12]}")
    assert told[1].startswith(
        "  what changed: diverged; 2 of 3 sites give other numbers, first 1, relative error "
    )
    assert told[1].endswith("; settings: 1 (eps 0.0001, before 1e-05)")


@pytest.mark.thorough
def test_what_matches_stays_and_a_change_that_was_meant_takes_its_place(kept: Path) -> None:
    file = kept / "kept" / "net.safetensors"
    before = file.stat().st_mtime_ns, Certificate.load(file).digest
    assert "5 passed" in certified(kept, "--parity-update").stdout
    assert file.stat().st_mtime_ns == before[0]
    done = certified(kept, "--parity-update", "-k", "own_inputs", EPS="1e-4")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert Certificate.load(file).content.parent == before[1]
    assert "5 passed" in certified(kept, EPS="1e-4").stdout


@pytest.mark.thorough
def test_workers_that_record_one_certificate_leave_it_whole(tmp_path: Path) -> None:
    done = certified(tmp_path, "-n", "2", "--parity-update", "-k", "test_kept")
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert "kept/net.safetensors: " in done.stdout.partition("parity: certificates recorded")[2]
    (file,) = (tmp_path / "kept").iterdir()
    assert Certificate.load(file).content.model.type == "Sequential"


def test_nothing_is_recorded_in_ci(tmp_path: Path) -> None:
    refused = certified(tmp_path, "--parity-update", CI="true")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "refused in CI" in refused.stderr
    assert not (tmp_path / "kept").exists()


@pytest.mark.thorough
def test_in_ci_it_is_recorded_where_that_is_said(tmp_path: Path) -> None:
    done = certified(tmp_path, "--parity-update-in-ci", "-k", "test_kept", CI="true")
    assert "4 passed" in done.stdout, done.stdout + done.stderr
