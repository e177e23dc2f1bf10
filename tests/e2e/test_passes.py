"""Processes that drive their models themselves and record them, and the command that compares their files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import HERE, PATIENCE, surroundings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the programs, and what each has recorded in a process of its own."""
    place = tmp_path_factory.mktemp("engines")
    shutil.copy(HERE / "passes.py", place)
    for name in ("plain", "by_hand", "faulty", "compiled", "trained"):
        done = subprocess.run(
            [sys.executable, "passes.py", name, f"{name}.safetensors"],
            cwd=place,
            env=surroundings(place, {}),
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=True,
        )
        (place / f"{name}.txt").write_text(done.stderr, encoding="utf-8")
    return place


@pytest.fixture
def against(engines: Path, command: Callable[..., Ended]) -> Callable[[str, str], Ended]:
    """Compares what two of them have recorded."""

    def run(baseline: str, candidate: str) -> Ended:
        return command(
            engines,
            *("run", "--baseline", f"{baseline}.safetensors", "--candidate", f"{candidate}.safetensors"),
            *("--out", f"{baseline}-{candidate}", "-v"),
        )

    return run


def test_another_implementation_in_another_process_matches(against: Callable[[str, str], Ended]) -> None:
    found = against("plain", "by_hand")
    assert (found.code, found.err) == (0, ""), found.out
    assert found.out.startswith("match")
    assert "neither was run in float64" in found.out
    saved = found.result("plain-by_hand")
    assert saved["cells"][0]["name"] == "cpu/float32"
    assert any(row["total"] and row["total"]["nrmse"] > 0 for row in saved["cells"][0]["layers"])


def test_a_fault_in_it_is_found_and_its_place(against: Callable[[str, str], Ended]) -> None:
    found = against("plain", "faulty")
    assert (found.code, found.err) == (1, "")
    first = found.result("plain-faulty")["first_divergence"]
    assert first["baseline"].startswith("blocks.0.")
    assert (first["candidate"] or "").startswith("blocks.0.")


def test_the_same_program_twice_agrees_exactly(against: Callable[[str, str], Ended]) -> None:
    assert against("plain", "plain").code == 0


def test_what_was_compiled_is_compared_by_what_comes_out_and_said(
    against: Callable[[str, str], Ended], engines: Path
) -> None:
    assert "the model is compiled" in (engines / "compiled.txt").read_text(encoding="utf-8")
    found = against("plain", "compiled")
    assert found.code == 0, (found.out, found.err)
    assert "not seen of the candidate: the model is compiled" in found.out
    assert found.result("plain-compiled")["coverage"]["compared"] == 1
    other = against("compiled", "faulty")
    assert (other.code, other.err) == (1, "")
    assert "not seen of the baseline: the model is compiled" in other.out


def test_a_trainer_is_recorded_in_training_and_other_inputs_are_refused(
    against: Callable[[str, str], Ended],
) -> None:
    found = against("trained", "trained")
    assert found.code == 0, found.out
    assert "pass 1 of 2" in found.out
    assert "training mode and gradients: on and on" in against("trained", "plain").out


def test_a_file_that_is_damaged_is_refused(engines: Path, command: Callable[..., Ended]) -> None:
    (engines / "cut.safetensors").write_bytes((engines / "plain.safetensors").read_bytes()[:-9])
    found = command(
        engines, *("run", "--baseline", "plain.safetensors", "--candidate", "cut.safetensors", "--out", "cut")
    )
    assert found.refusal(2).startswith("cut.safetensors is no certificate that can be used")
