"""What differs beside the culprits, where a recording stands in the baseline's place and nothing could be tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import sentences
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.records import Result

TITLE = "What differs besides"
_SOME, _NAME = 4, 60  # sites that are named; characters of a name


def lines(verification: Result) -> tuple[str, ...]:
    """Sites that are written otherwise, tensors of other values, sites without a partner: a sentence each."""
    cell = sentences.deciding_cell(verification)
    if verification.certificate is None or verification.verdict is not Verdict.DIVERGED or cell is None:
        return ()
    blamed = {name for row in cell.culprits for name in (row.baseline, row.candidate) if name}
    told = " ".join(each for row in cell.culprits for each in row.differences).split()
    tensors = [
        each.candidate
        for each in verification.static
        if each.kind == "tensor" and not each.harmless and each.candidate and each.candidate not in told
    ]
    written = [
        f"{sentences.site(row, _NAME)} ({'; '.join(row.differences)})"
        for row in cell.layers
        if row.kind == "site" and row.differences and not blamed.intersection((row.baseline, row.candidate))
    ]
    return tuple(_told(verification, blamed, written, tensors))


def _told(
    verification: Result, blamed: set[str], written: Sequence[str], tensors: Sequence[str]
) -> Iterator[str]:
    if written:
        yield f"settings that differ elsewhere: {_some(written)}"
    if tensors:
        yield f"tensors that hold other values elsewhere: {_some(tensors)}"
    for side in ("baseline", "candidate"):
        alone = [
            f"{each.name} ({each.op})"
            for each in verification.coverage.unmatched
            if each.side == side and each.name not in blamed
        ]
        if alone:
            yield f"{side} sites without a partner: {_some(alone)}"


def _some(told: Sequence[str]) -> str:
    more = [f"and {len(told) - _SOME:,} more"] if len(told) > _SOME else []
    return ", ".join([*told[:_SOME], *more])
