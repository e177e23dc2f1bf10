from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.storage import frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.storage.saving import Verification


def test_every_cell_and_pair_has_a_row_in_order(verification: Verification) -> None:
    frame = frames.to_frame(verification)
    assert list(frame.columns) == list(frames.COLUMNS)
    assert list(zip(frame["cell"], frame["index"], strict=True)) == [
        (cell, index) for cell in ("cpu/float64", "cpu/float32") for index in range(3)
    ]


def test_a_row_holds_what_the_record_holds(verification: Verification) -> None:
    row = frames.to_frame(verification).iloc[1]
    pair = verification.cells[0].layers[1]
    assert pair.total is not None
    assert row["baseline"] == "bn1"
    assert row["candidate"] == "stem.bn"
    assert row["shape"] == "8x64x112x112"
    assert row["status"] == "culprit"
    assert row["total_nrmse"] == pair.total.nrmse
    assert row["total_max_abs_index"] == "0x17x3x5"
    assert math.isnan(row["intrinsic_pearson"])
    assert math.isinf(row["intrinsic_nrmse"])
    assert row["intrinsic_nonfinite_candidate"] == 12
    assert row["budget_intrinsic"] == 1e-12
    assert row["rule"] == "semantics/float64"
    assert row["cause"] == "eps"
    assert row["cause_confirmed"]


def test_what_was_not_measured_is_missing_in_numeric_columns(verification: Verification) -> None:
    frame = frames.to_frame(verification)
    assert frame["total_nrmse"].dtype == "float64"
    assert frame["total_nonfinite_candidate"].dtype == "Int64"
    row = frame.iloc[2]
    assert pd.isna(row["total_nrmse"])
    assert pd.isna(row["total_elements"])
    assert pd.isna(row["baseline"])
    assert row["shape"] == ""


def test_the_text_tells_not_a_number_from_not_measured(verification: Verification) -> None:
    rows = list(csv.DictReader(io.StringIO(frames.to_csv(verification))))
    assert rows[1]["intrinsic_pearson"] == "nan"
    assert rows[1]["intrinsic_nrmse"] == "inf"
    assert rows[2]["total_nrmse"] == ""
    assert rows[2]["candidate"] == "extra, or not"


@settings(max_examples=12)  # a record holds hundreds of values
@given(st.data())
def test_the_text_holds_every_number_exactly(
    draw_verification: Callable[[st.DataObject], Verification], data: st.DataObject
) -> None:
    holds_every_number(draw_verification(data))


@pytest.mark.thorough
@settings(max_examples=40)
@given(st.data())
def test_the_text_holds_every_number_of_many_records_exactly(
    draw_verification: Callable[[st.DataObject], Verification], data: st.DataObject
) -> None:
    holds_every_number(draw_verification(data))


def holds_every_number(verification: Verification) -> None:
    rows = list(csv.DictReader(io.StringIO(frames.to_csv(verification), newline="")))
    expected = list(frames.rows(verification))
    assert len(rows) == len(expected)
    for row, record in zip(rows, expected, strict=True):
        for column in frames.COLUMNS:
            value = record[column]
            if isinstance(value, float):
                assert repr(float(row[column])) == repr(value)
            else:
                assert frames.as_was(row[column]) == ("" if value is None else str(value))


FULL_WIDTH = [chr(code) for code in (0xFF1D, 0xFF0B, 0xFF0D, 0xFF20)]  # =, +, - and @


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", *FULL_WIDTH, "'", "'="])
def test_no_text_is_a_formula_to_a_spreadsheet_and_the_way_back_is_clear(
    verification: Verification, begin: str
) -> None:
    name = f"{begin}cmd|' /C calc'!A0"
    cell = verification.cells[0]
    layer = msgspec.structs.replace(cell.layers[0], baseline=name, candidate=name, op=name, reason=name)
    strange = msgspec.structs.replace(
        verification, cells=(msgspec.structs.replace(cell, name=name, layers=(layer,)),)
    )

    (row,) = csv.DictReader(io.StringIO(frames.to_csv(strange), newline=""))

    for column in ("cell", "baseline", "candidate", "op", "reason"):
        assert row[column].startswith("'")
        assert frames.as_was(row[column]) == name
    assert frames.to_frame(strange).iloc[0]["baseline"] == name


def test_numbers_below_zero_stay_numbers(verification: Verification) -> None:
    cell = verification.cells[0]
    total = msgspec.structs.replace(cell.layers[0].total, pearson=-0.5, sqnr_db=float("-inf"))  # type: ignore[type-var]
    layer = msgspec.structs.replace(cell.layers[0], total=total)
    one = msgspec.structs.replace(verification, cells=(msgspec.structs.replace(cell, layers=(layer,)),))

    (row,) = csv.DictReader(io.StringIO(frames.to_csv(one)))

    assert (row["total_pearson"], row["total_sqnr_db"]) == ("-0.5", "-inf")


def test_writing_the_text_needs_no_pandas() -> None:
    program = "import sys, verifier.storage.frames; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
