"""The pair results as a table: rows for `layers.csv`, a pandas frame for analysis."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from verifier.records import Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from verifier.records import CellResult, PairResult, Result

_FIGURES = Comparison.__struct_fields__
_COUNTS = ("nonfinite_baseline", "nonfinite_candidate", "nonfinite_mismatched", "elements")

COLUMNS: tuple[str, ...] = (
    "cell",
    "index",
    "baseline",
    "candidate",
    "op",
    "shape",
    "candidate_shape",
    "status",
    *(f"total_{figure}" for figure in _FIGURES),
    *(f"intrinsic_{figure}" for figure in _FIGURES),
    "budget_metric",
    "budget_total",
    "budget_intrinsic",
    "rule",
    "reason",
    "cause",
    "cause_summary",
    "cause_confirmed",
    "sample",
    "placement",
)


def rows(verification: Result) -> Iterator[dict[str, Any]]:
    """One flat row a cell and pair, keyed by `COLUMNS`: not measured is None, a shape is `8x64x56x56`."""
    for cell in verification.cells:
        for pair in cell.layers:
            yield _row(cell, pair)


def to_csv(verification: Result) -> str:
    """The table as RFC 4180 has it: `nan` and `inf` are spelt, what was not measured is empty.

    No text in it is a formula to a spreadsheet (`inert`); whoever reads it elsewhere takes that off with `as_was`.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows({name: inert(value) for name, value in row.items()} for row in rows(verification))
    return text.getvalue()


# What spreadsheets take for the beginning of a formula, full-width signs among it; and the sign that keeps them from
# it, so that the way back is clear. OWASP, "CSV Injection".
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")


def inert(value: Any) -> Any:
    """A cell that no spreadsheet computes: text that could begin a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def as_was(cell: str) -> str:
    """The text that `inert` made a cell of: one apostrophe at its beginning is taken off."""
    return cell.removeprefix("'")


def to_frame(verification: Result) -> pd.DataFrame:
    """The table as a frame: figures are float64, NaN where not measured; counts are nullable integers."""
    import pandas as pd  # noqa: PLC0415 - takes a second to import

    frame = pd.DataFrame(list(rows(verification)), columns=list(COLUMNS))
    return frame.astype({column: _dtype(column) for column in COLUMNS if _dtype(column)})


def _row(cell: CellResult, pair: PairResult) -> dict[str, Any]:
    budget, cause = pair.budget, pair.cause
    return {
        "cell": cell.name,
        "index": pair.index,
        "baseline": pair.baseline,
        "candidate": pair.candidate,
        "op": pair.op,
        "shape": _dimensions(pair.shape),
        "candidate_shape": _dimensions(pair.candidate_shape),
        "status": str(pair.status),
        **_figures("total", pair.total),
        **_figures("intrinsic", pair.intrinsic),
        "budget_metric": budget.metric if budget else None,
        "budget_total": budget.total if budget else None,
        "budget_intrinsic": budget.intrinsic if budget else None,
        "rule": budget.rule if budget else None,
        "reason": pair.reason,
        "cause": cause.code if cause else None,
        "cause_summary": cause.summary if cause else None,
        "cause_confirmed": cause.confirmed if cause else None,
        "sample": pair.sample or None,
        "placement": pair.placement or None,
    }


def _figures(prefix: str, comparison: Comparison | None) -> dict[str, Any]:
    figures = {f"{prefix}_{figure}": getattr(comparison, figure, None) for figure in _FIGURES}
    figures[f"{prefix}_max_abs_index"] = _dimensions(comparison.max_abs_index if comparison else None)
    return figures


def _dimensions(shape: tuple[int, ...] | None) -> str | None:
    return None if shape is None else "x".join(map(str, shape))


def _dtype(column: str) -> str:
    prefix, _, figure = column.partition("_")
    if column == "index" or figure in _COUNTS:
        return "Int64"
    if column in ("budget_total", "budget_intrinsic"):
        return "float64"
    is_measured = prefix in ("total", "intrinsic") and figure != "max_abs_index"
    return "float64" if is_measured else ""
