"""Every figure of every site in a form that is small on the page: column by column, equal ones told once."""

from __future__ import annotations

import json
import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports import sentences, signs, wording
from reports.tree import tree
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from verifier.records import Accuracy, CellResult, Comparison, PairResult, Result

Value = float | int | str | bool | None

_NEAR = 0.1  # 1 - r below which it says r to more digits than r itself

# A row that only carries an error says nothing in words that its figures do not say.
_TOLD_BY_FIGURES = {Status.OK, Status.CARRIES, Status.AMPLIFIES}


@dataclass(frozen=True, slots=True)
class Column:
    """One thing that is known of a site in a cell: where it is shown, under which name, and where it is read.

    `record` is the row's field that holds it (empty: the row itself), `field` the one in there, or a function of it.
    `part` chooses the baseline's (0) or the candidate's (1) of two numbers.
    """

    key: str
    group: str
    label: str
    record: str
    field: str | Callable[[Any], Value]
    part: int | None = None

    def column(self, records: Sequence[Any]) -> list[Value]:
        """The values of all rows, from their records; None where there is none."""
        read = operator.attrgetter(self.field) if isinstance(self.field, str) else self.field
        found: list[Any] = [None if each is None else read(each) for each in records]
        return found if self.part is None else [None if each is None else each[self.part] for each in found]


def _at(comparison: Comparison) -> Value:
    index = comparison.max_abs_index
    return None if index is None else ", ".join(map(str, index))


def _interval(comparison: Comparison) -> Value:
    if comparison.interval is None:
        return None
    return " to ".join(f"{end:.2e}" for end in comparison.interval.nrmse)


def _judged_by(kind: str) -> Callable[[PairResult], Value]:
    def read(row: PairResult) -> Value:
        comparison = getattr(row, kind)
        return sentences.error(comparison, sentences.metric_of(row)) if comparison else None

    return read


def _nonfinite(side: str) -> Callable[[PairResult], Value]:
    def read(row: PairResult) -> Value:
        shown = row.total or row.intrinsic
        return None if shown is None else int(getattr(shown, f"nonfinite_{side}"))

    return read


def _correlation(comparison: Comparison) -> Value:
    """Pearson's r where it is not near 1; there the page takes it from 1 - r, which has more of its digits."""
    return None if comparison.one_minus_pearson < _NEAR else comparison.pearson


def _times(found: Accuracy) -> Value:
    """How many times as far from float64 the candidate is as the baseline: of this step alone, else in all."""
    for c, b in (
        (found.candidate_intrinsic, found.baseline_intrinsic),
        (found.candidate_total, found.baseline_total),
    ):
        if c is not None and b is not None:
            if b > 0:
                return c / b
            return 1.0 if c == b else math.inf
    return None


def _reason(row: PairResult) -> Value:
    return "" if row.status in _TOLD_BY_FIGURES else row.reason


def _precision(field: str, label: str) -> tuple[Column, Column]:
    return (
        Column(f"{field}_b", _RANGE, f"{label}, baseline", "precision", field, 0),
        Column(f"{field}_c", _RANGE, f"{label}, candidate", "precision", field, 1),
    )


def _oracle(kind: str, words: str) -> tuple[Column, Column, Column]:
    return (
        Column(f"oracle_{kind}_b", _ORACLE, f"{words}, baseline", "accuracy", f"baseline_{kind}"),
        Column(f"oracle_{kind}_c", _ORACLE, f"{words}, candidate", "accuracy", f"candidate_{kind}"),
        Column(f"oracle_{kind}", _ORACLE, f"{words}, allowed", "budget", f"oracle_{kind}"),
    )


_TOTAL, _INTRINSIC, _ORACLE = "Total error", "Intrinsic error", "Distance from float64"
_RANGE, _JUDGED = "Range and precision", "Judgement"

FIGURES: tuple[Column, ...] = (
    Column("total", _TOTAL, "relative error", "", _judged_by("total")),
    Column("interval", _TOTAL, "95 % interval, where estimated", "total", _interval),
    Column("allowed_total", _TOTAL, "allowed", "budget", "total"),
    Column("mse", _TOTAL, "mean squared error", "total", "mse"),
    Column("r", _TOTAL, "Pearson's r", "total", _correlation),
    Column("pearson", _TOTAL, "1 - r", "total", "one_minus_pearson"),
    Column("max_abs", _TOTAL, "largest absolute difference", "total", "max_abs"),
    Column("max_abs_at", _TOTAL, "at", "total", _at),
    Column("max_rel", _TOTAL, "largest relative difference", "total", "max_rel"),
    Column("intrinsic", _INTRINSIC, "relative error", "", _judged_by("intrinsic")),
    Column("allowed_intrinsic", _INTRINSIC, "allowed", "budget", "intrinsic"),
    Column("intrinsic_mse", _INTRINSIC, "mean squared error", "intrinsic", "mse"),
    Column("intrinsic_r", _INTRINSIC, "Pearson's r", "intrinsic", _correlation),
    Column("intrinsic_pearson", _INTRINSIC, "1 - r", "intrinsic", "one_minus_pearson"),
    Column("intrinsic_max_abs", _INTRINSIC, "largest absolute difference", "intrinsic", "max_abs"),
    Column("intrinsic_at", _INTRINSIC, "at", "intrinsic", _at),
    Column("times", _ORACLE, "candidate's over the baseline's", "accuracy", _times),
    *_oracle("total", "in all"),
    *_oracle("intrinsic", "this step alone"),
    *_oracle("systematic", "systematic"),
    Column("ulp_max", _RANGE, "largest distance in ULP", "precision", "ulp_max"),
    Column("ulp_mean", _RANGE, "mean distance in ULP", "precision", "ulp_mean"),
    Column("bit_exact", _RANGE, "equal bit for bit", "precision", "bit_exact"),
    *_precision("overflowed", "overflow"),
    *_precision("underflowed", "underflow to 0"),
    *_precision("subnormal", "subnormal"),
    *_precision("invalid", "NaN where float64 has a number"),
    Column("nonfinite_b", _RANGE, "not finite, baseline", "", _nonfinite("baseline")),
    Column("nonfinite_c", _RANGE, "not finite, candidate", "", _nonfinite("candidate")),
    Column("rule", _JUDGED, "rule", "budget", "rule"),
    Column("reason", _JUDGED, "reason", "", _reason),
    Column("layout", _JUDGED, "layout", "", "layout"),
)


def data(verification: Result) -> dict[str, Any]:
    """Sites, figures and trees of all cells, for the script on the page.

    Cells whose rows are the same sites share one list of them. A column is `{"all": value}` where all rows agree,
    `{"words": [...], "at": [...]}` for repeated texts, otherwise a list; figures have three significant digits.
    """
    lists: list[dict[str, Any]] = []
    known: dict[tuple[object, ...], int] = {}
    trees: list[tuple[int, Sequence[PairResult]]] = []
    cells = []
    for cell in verification.cells:
        key = tuple(
            (row.baseline, row.candidate, row.op, row.shape, row.candidate_shape) for row in cell.layers
        )
        if key not in known:
            known[key] = len(lists)
            lists.append(_sites(cell.layers))
        own = known[key]
        trees.append((own, cell.layers))
        cells.append({"name": cell.name, "verdict": str(cell.verdict), "list": own, **_figures(cell)})
    marks = [signs.of_status(status, verification) for status in signs.BY_SEVERITY]
    shown, deciding = verification.cells, sentences.deciding_cell(verification)
    return {
        "statuses": [[mark.word, mark.sign, mark.tone] for mark in marks],
        "wrong": "accepted" if verification.verdict.passed else "wrong",
        "groups": _groups(),
        "lists": lists,
        "cells": cells,
        "first": next((k for k, cell in enumerate(shown) if cell is deciding and cell.layers), _first(shown)),
        "trees": [tree([rows for own, rows in trees if own == number]) for number in range(len(lists))],
    }


def _first(cells: Sequence[CellResult]) -> int:
    """The first cell that has anything to show."""
    return next((k for k, cell in enumerate(cells) if cell.layers), 0)


def embedded(content: object) -> str:
    """JSON that may stand in a script element: no text in it can end the element or begin another."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _groups() -> list[list[Any]]:
    groups: dict[str, list[list[str]]] = {}
    for figure in FIGURES:
        groups.setdefault(figure.group, []).append([figure.key, figure.label])
    return [[name, figures] for name, figures in groups.items()]


def _sites(rows: Sequence[PairResult]) -> dict[str, Any]:
    return {
        "count": len(rows),
        "index": _packed([row.index for row in rows]),
        "baseline": [row.baseline for row in rows],
        # 0 stands for the baseline's name, which most candidates' sites share
        "candidate": _packed([0 if row.candidate == row.baseline else row.candidate for row in rows]),
        "op": _words([row.op for row in rows]),
        "shape": _words([_shapes(row) for row in rows]),
    }


def _shapes(row: PairResult) -> str:
    own = wording.dimensions(row.shape)
    if row.candidate_shape is None or row.candidate_shape == row.shape:
        return own
    return f"{own}, candidate {wording.dimensions(row.candidate_shape)}"


def _figures(cell: CellResult) -> dict[str, Any]:
    rows = cell.layers
    records = {
        name: [getattr(row, name) for row in rows] for name in {figure.record for figure in FIGURES} if name
    }
    records[""] = list(rows)
    known = {name for name, own in records.items() if any(each is not None for each in own)}
    columns = {}
    for figure in FIGURES:
        if figure.record in known:
            values = figure.column(records[figure.record])
            if any(value is not None and value != "" for value in values):
                columns[figure.key] = _words(values) if figure.group == _JUDGED else _packed(values)
    order = {status: k for k, status in enumerate(signs.BY_SEVERITY)}
    return {"status": _packed([order[row.status] for row in rows]), "figures": columns}


def _packed(values: Sequence[Value]) -> Any:
    if values and values.count(values[0]) == len(values):
        return {"all": _shown(values[0])}
    return [_shown(value) if type(value) is float else value for value in values]


def _shown(value: Value) -> Value:
    if type(value) is not float:
        return value
    if value in {0.0, 1.0}:  # most of what there is
        return int(value)
    rounded = float(f"{value:.3g}")  # which the largest numbers do not survive
    return rounded if math.isfinite(rounded) else str(rounded)


def _words(values: Iterable[Value]) -> Any:
    values = list(values)
    if len(set(values)) <= 1:
        return _packed(values)
    words = list(dict.fromkeys(values))
    place = {word: k for k, word in enumerate(words)}
    return {"words": words, "at": [place[value] for value in values]}
