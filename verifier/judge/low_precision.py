"""What a narrow dtype does to a candidate that is the same program: causes and notes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace as replace_struct

from verifier.judge.excess import excess
from verifier.records import Cause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.cells import Cell
    from verifier.records import PairResult

_VANISHING = 0.01  # a few numbers vanish anywhere in float16; this share of a tensor is worth a word


def range_notes(cell: Cell, rows: Sequence[PairResult]) -> tuple[str, ...]:
    """Where numbers first leave the range of the cell's dtype, and how many vanish in it."""
    told = [(row, row.precision) for row in rows if row.precision is not None]
    notes = []
    for kind, what in (
        ("overflowed", "overflows"),
        ("invalid", "gives NaN"),
        ("underflowed", "underflows to zero"),
    ):
        least = _VANISHING if kind == "underflowed" else 0
        found = [
            (row, getattr(each, kind), each.elements)
            for row, each in told
            if max(getattr(each, kind)) > least * each.elements
        ]
        if found:
            row, (baseline, candidate), elements = found[0]
            sites = f", and at {len(found) - 1} later sites" if len(found) > 1 else ""
            notes.append(
                f"{cell.dtype} {what} first at {row.baseline}: {baseline} of the baseline's {elements} numbers, "
                f"{candidate} of the candidate's{sites}"
            )
    return tuple(notes)


def with_precision(row: PairResult, cell: Cell, *, proved: bool) -> PairResult:
    """The row with its cause, if what is wrong with it is how far its arithmetic is from exact."""
    found = excess(row, intrinsic=True)
    if found is None or (row.cause is not None and row.cause.confirmed and not proved):
        return row
    overflows = math.isinf(found.candidate) and math.isfinite(found.baseline)
    subject = "it is the same program, but" if proved else "its arithmetic is worse:"
    if overflows:
        what = f"{subject} in {cell.dtype} it leaves the range of numbers where the baseline does not"
    elif found.kind == "systematic":
        what = (
            f"{subject} in {cell.dtype} whole channels are off by a gain or an offset, "
            f"{found.candidate / cell.unit_roundoff:.2f} unit roundoffs in every sample"
        )
    else:
        times = f"{found.candidate / found.baseline:.1f} times " if found.baseline else "larger than "
        what = f"{subject} in {cell.dtype} its rounding error is {times}the baseline's"
    evidence = (
        f"{found.kind} distance from float64 on the same {cell.dtype} numbers: {found.candidate:.2e}, "
        f"the baseline's {found.baseline:.2e}, allowed {found.limit:.2e}"
    )
    cause = Cause(
        code="precision-overflow" if overflows else "precision-lost",
        summary=what,
        confirmed=proved,
        evidence=(evidence, *(["in float64 the two agree"] if proved else [])),
        remedy="compute it in float32 and round once, as the baseline does",
    )
    return replace_struct(row, cause=cause)
