from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.records import Verdict, to_builtins

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.storage.saving import Verification


def test_records_are_frozen_and_compared_by_value(verification: Verification) -> None:
    with pytest.raises(AttributeError):
        verification.seed = 1  # type: ignore[misc]
    assert msgspec.structs.replace(verification) == verification
    assert msgspec.structs.replace(verification, seed=1) != verification


@settings(max_examples=40)  # a record holds hundreds of values
@given(st.data())
def test_builtins_are_strict_json(
    draw_verification: Callable[[st.DataObject], Verification], data: st.DataObject
) -> None:
    json.dumps(to_builtins(draw_verification(data)), allow_nan=False)


def test_numbers_that_json_lacks_are_spelt(verification: Verification) -> None:
    intrinsic = to_builtins(verification)["culprits"][0]["intrinsic"]
    assert intrinsic["nrmse"] == "inf"
    assert intrinsic["pearson"] == "nan"
    assert intrinsic["mse"] == "inf"
    assert intrinsic["cosine"] == 1.0


def test_the_deciding_cell_is_the_first_that_diverged(verification: Verification) -> None:
    assert verification.deciding_cell.name == "cpu/float64"
    assert verification.layers == verification.cells[0].layers


def test_the_deciding_cell_of_a_match_is_the_first_numerics_cell(verification: Verification) -> None:
    cells = tuple(msgspec.structs.replace(cell, verdict=Verdict.MATCH) for cell in verification.cells)
    match = msgspec.structs.replace(verification, verdict=Verdict.MATCH, cells=cells)
    assert match.deciding_cell.name == "cpu/float32"


def test_the_frame_is_reached_from_the_record(verification: Verification) -> None:
    assert len(verification.to_frame()) == 6


def loaded_by(imports: str, among: set[str]) -> str:
    program = f"import sys, {imports}; print(*sorted({among} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_records_are_read_without_the_libraries_that_make_or_show_them() -> None:
    rooms = "verifier.records.schema, verifier.storage.saving, verifier.storage.frames, verifier.errors"
    assert loaded_by(rooms, {"torch", "pandas", "rich", "jinja2", "numba"}) == ""


def test_models_are_compared_without_the_libraries_that_not_every_comparison_needs() -> None:
    rooms = "verifier.models.specs, verifier.inputs, verifier.environment, verifier.verification"
    assert loaded_by(rooms, {"torchvision", "pandas", "rich", "jinja2", "numba", "scipy"}) == ""
