"""What must hold between the fields of a result, whatever was measured: what contradicts itself is damaged."""

from __future__ import annotations

import base64
import binascii
import math
from typing import TYPE_CHECKING, Any

import msgspec

from verifier.records.base import Record, Status, Verdict
from verifier.records.cell_results import CellResult
from verifier.records.pairs import Exhibit, Histogram, PairResult, Plane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.records import Criterion, Result

# Numbers that may be below zero; all others are counts, sizes, distances, shares and times.
_SIGNED = frozenset(
    {"pearson", "cosine", "sqnr_db", "low", "high", "value", "limit", "kl_mean", "kl_max"}
) | {
    "pearson_probabilities",
    "one_minus_pearson",
    "saves",
    "seed",
    "sqnr_total_db",
}
_NUMBERS = frozenset(
    {"total", "intrinsic", "limit", "allowed", "baseline_share", "candidate_share"}
)  # no NaN
_FINITE = frozenset({"seconds", "low", "high"})
_SHARES = frozenset({"baseline_share", "candidate_share", "top1_agreement", "top5_agreement", "share"})
_CORRELATIONS = frozenset({"pearson", "cosine", "pearson_probabilities"})
_ROUNDING = 1e-6  # by which a figure that was derived may be beyond its range

_HOLDS = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
}
_ROLES = ("semantics", "numerics")


def contradictions(verification: Result) -> Iterator[str]:
    """Each field that cannot be as it is, named by its path, with what is wrong about it."""
    yield from _numbers(verification, "")
    if not verification.cells:
        yield "cells is empty: nothing was compared"
        return
    for k, cell in enumerate(verification.cells):
        yield from _of_cell(cell, f"cells[{k}]")
    for k, criterion in enumerate(verification.criteria):
        yield from _of_criterion(criterion, f"criteria[{k}]")
    yield from _of_coverage(verification)
    yield from _of_whole(verification)


def _of_whole(verification: Result) -> Iterator[str]:
    """The verdict and who is blamed, against the cells they come from."""
    if verification.verdict is Verdict.SKIPPED:
        yield "verdict is skipped, which only a cell can be"
    names = [cell.name for cell in verification.cells]
    if len(set(names)) < len(names):
        yield "cells has two of one name"
    firsts = [_place(cell.first_divergence) for cell in verification.cells if cell.first_divergence]
    first = verification.first_divergence
    if first is not None and _place(first) not in firsts:
        yield f"first_divergence is {_called(first)}, which is the first divergence of no cell"
    blamed = {_place(row) for cell in verification.cells for row in cell.culprits}
    for k, row in enumerate(verification.culprits):
        if _place(row) not in blamed:
            yield f"culprits[{k}] is {_called(row)}, which is a culprit of no cell"
    apart = next((cell for cell in verification.cells if cell.verdict is Verdict.DIVERGED), None)
    if verification.verdict is Verdict.MATCH and apart is not None and not _excused(verification.criteria):
        yield f"verdict is match, but {apart.name} diverged and no criteria stand against that"
    yield from _of_accepted(verification)


def _of_accepted(verification: Result) -> Iterator[str]:
    """What a policy accepts, against the cells and the verdict that rest on it."""
    accepting = {each.cell for each in verification.accepted}
    resting = [cell for cell in verification.cells if cell.verdict is Verdict.ACCEPTED]
    for cell in resting:
        if cell.name not in accepting:
            yield f"verdict of {cell.name} is accepted, but accepted has nothing of that cell"
        if cell.culprits:
            yield f"verdict of {cell.name} is accepted, but {_called(cell.culprits[0])} is blamed"
    if verification.accepted and verification.verdict is Verdict.MATCH:
        yield f"verdict is match, but what is in accepted (of {verification.accepted[0].cell}) is none"
    if verification.verdict is Verdict.ACCEPTED:
        if not verification.accepted:
            yield "verdict is accepted, but accepted is empty"
        apart = next((cell for cell in verification.cells if cell.verdict is Verdict.DIVERGED), None)
        if apart is not None and not _excused(verification.criteria):
            yield f"verdict is accepted, but {apart.name} diverged"


def _excused(criteria: tuple[Criterion, ...]) -> bool:
    """Whether criteria of one source were all passed, so that a policy could rest a match on them."""
    sources = {each.source for each in criteria}
    return any(all(each.passed for each in criteria if each.source == source) for source in sources)


def _of_cell(cell: CellResult, path: str) -> Iterator[str]:
    if cell.role not in _ROLES:
        yield f"{path}.role is {cell.role!r}; it is one of {', '.join(_ROLES)}"
    device, slash, _ = cell.name.partition("/")
    if not (device and slash):
        yield f"{path}.name is {cell.name!r}, which is no DEVICE/DTYPE"
    yield from _of_rows(cell.layers, f"{path}.layers")
    yield from _of_blame(cell, path)
    for k, exhibit in enumerate(cell.exhibits):
        yield from _of_exhibit(exhibit, len(cell.layers), f"{path}.exhibits[{k}]")


def _of_rows(rows: tuple[PairResult, ...], path: str) -> Iterator[str]:
    for k, row in enumerate(rows):
        if row.index != k:
            yield f"{path}[{k}].index is {row.index}; rows are numbered by their place"
        if row.baseline is None and row.candidate is None:
            yield f"{path}[{k}] is of neither model"
        for j, index in enumerate(row.above):
            if not 0 <= index < len(rows) or index == k:
                yield f"{path}[{k}].above[{j}] is {index}, where there is no other row"


def _of_blame(cell: CellResult, path: str) -> Iterator[str]:
    """The cell's verdict, against its rows and those that are blamed."""
    rows = cell.layers
    blamed = [(f"culprits[{k}]", row) for k, row in enumerate(cell.culprits)]
    if cell.first_divergence is not None:
        blamed.append(("first_divergence", cell.first_divergence))
    for field, row in blamed:
        if not 0 <= row.index < len(rows) or rows[row.index].baseline != row.baseline:
            yield f"{path}.{field}.index is {row.index}, where layers has no row of {_called(row)}"
    if cell.verdict is Verdict.DIVERGED and cell.first_divergence is None:
        yield f"{path}.verdict is diverged, but nothing is named as its first divergence"
    if cell.verdict is Verdict.MATCH:
        if cell.first_divergence is not None or cell.culprits:
            yield f"{path}.verdict is match, but {_called(blamed[0][1])} is blamed"
        wrong = next((r for r in rows if r.status not in (Status.OK, Status.UNMATCHED)), None)
        if wrong is not None:
            yield f"{path}.verdict is match, but layers[{wrong.index}].status is {wrong.status}"


def _of_exhibit(exhibit: Exhibit, rows: int, path: str) -> Iterator[str]:
    if not 0 <= exhibit.index < rows:
        yield f"{path}.index is {exhibit.index}, where there is no row"
    if not exhibit.channels_each:
        yield f"{path}.channels_each is 0"
    for name in ("baseline", "candidate", "difference"):
        plane: Plane | None = getattr(exhibit, name)
        if plane is None:
            continue
        try:
            held = len(base64.b64decode(plane.values, validate=True))
        except (binascii.Error, ValueError):
            held = -1
        if held != plane.rows * plane.columns:
            yield f"{path}.{name}.values does not hold {plane.rows} x {plane.columns} bytes in base64"
    histogram: Histogram | None = exhibit.histogram
    if histogram is not None and not histogram.counts:
        yield f"{path}.histogram.counts is empty"


def _of_criterion(criterion: Criterion, path: str) -> Iterator[str]:
    holds = _HOLDS.get(criterion.comparison)
    if holds is None:
        yield f"{path}.comparison is {criterion.comparison!r}; it is one of {', '.join(_HOLDS)}"
    elif holds(criterion.value, criterion.limit) != criterion.passed:
        told = f"{criterion.value:g} {criterion.comparison} {criterion.limit:g}"
        yield f"{path}.passed is {str(criterion.passed).lower()}, but it says of {told}"


def _of_coverage(verification: Result) -> Iterator[str]:
    covered = verification.coverage
    if covered.compared > min(covered.baseline_sites, covered.candidate_sites):
        yield f"coverage.compared is {covered.compared}, more than a model has sites"
    if covered.parameterised_compared > covered.parameterised:
        yield "coverage.parameterised_compared is more than coverage.parameterised"


def _numbers(value: Any, path: str) -> Iterator[str]:
    """Every number in a record, by the name of its field."""
    for field in value.__struct_fields__:
        where = f"{path}.{field}" if path else field
        yield from _in_field(value, field, getattr(value, field), where)


def _in_field(owner: Record, field: str, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, msgspec.Struct):
        yield from _numbers(value, path)
    elif isinstance(value, tuple):
        for k, item in enumerate(value):
            yield from _in_field(owner, field, item, f"{path}[{k}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        what = _wrong(owner, field, value)
        if what:
            yield f"{path} is {value:g}{what}" if isinstance(value, float) else f"{path} is {value}{what}"


def _wrong(owner: Record, field: str, value: float) -> str:
    if field not in _SIGNED and value < 0:
        return ", and cannot be negative"
    if field in _CORRELATIONS and abs(value) > 1 + _ROUNDING:
        return ", and a correlation is at most 1"
    if field in _SHARES and value > 1 + _ROUNDING:
        return ", and a share is at most 1"
    if field in _FINITE and not math.isfinite(value):
        return ", where a finite number is needed"
    needed = field in _NUMBERS and not isinstance(owner, PairResult)
    return ", where a number is needed" if needed and math.isnan(value) else ""


def _place(row: PairResult) -> tuple[int, str | None, str | None]:
    return row.index, row.baseline, row.candidate


def _called(row: PairResult) -> str:
    return row.baseline or row.candidate or "nothing"
