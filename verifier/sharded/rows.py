"""Rows of a cell, judged, and coverage, of a candidate that several processes hold between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from verifier.graph.operators import MOVES
from verifier.judge import judge_rows
from verifier.lockstep import meet
from verifier.records import Coverage, PairResult, UnmatchedSite
from verifier.sharded.aligning import wide
from verifier.sharded.placing import farthest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.judge import Judged
    from verifier.sharded.aligning import Aligned
    from verifier.sharded.comparing import Bench, Found
    from verifier.sharded.faults import Faults
    from verifier.sharded.watching import Key, Pass


def judged(bench: Bench, faults: Faults, outputs: Sequence[Found]) -> tuple[Judged, tuple[int, ...]]:
    """The rows, judged, and those of the outputs."""
    rows: list[PairResult] = []
    index: dict[Key, int] = {}
    for each in faults.free:
        index[each.key] = len(rows)
        rows.append(_row(bench, each, faults, index))
    ends = []
    for position, each in enumerate(outputs):
        ends.append(len(rows))
        maker = bench.baseline.makers[position]
        above = () if maker is None or maker not in index else (index[maker],)
        rows.append(
            msgspec.structs.replace(
                _plain(len(rows), each, above),
                op="output",
                candidate="output",
                position=position,
                intrinsic=None if each.wrong and above else each.error,
            )
        )
    return judge_rows(rows), tuple(ends)


def _plain(index: int, each: Found, above: tuple[int, ...]) -> PairResult:
    name = each.key.name
    return PairResult(
        index=index,
        baseline=name,
        candidate=name,
        op=each.event.op,
        shape=tuple(wide(each.event.value).shape),
        candidate_shape=each.shape if each.error is None else None,
        total=each.error,
        intrinsic=each.error,
        budget=each.budget,
        above=above,
        placement=each.text,
    )


def _row(bench: Bench, each: Found, faults: Faults, index: Mapping[Key, int]) -> PairResult:
    key = each.key
    above = tuple(sorted({k for k in _above(bench.baseline, key, index) if k != index[key]}))
    row = _plain(index[key], each, above)
    blame, forced = faults.blamed.get(key), faults.forced.get(key)
    if blame is None:
        behind = faults.further and forced is not None and forced.wrong
        return msgspec.structs.replace(row, intrinsic=None if forced is None or behind else forced.error)
    said = (blame.cause.summary,)
    if each.wrong:
        first = forced if forced is not None and forced.wrong else each
        return msgspec.structs.replace(row, cause=blame.cause, differences=said, intrinsic=first.error)
    # What it is read as: copies, in order. Of what is drawn no number tells; a shape stands for none.
    whole, pieces = wide(each.event.value), bench.free_pieces.get(key)
    error = None
    if pieces is not None and all(piece.shape == whole.shape for piece in pieces):
        error = meet([whole], [farthest(whole, pieces)])[0].error
    if error is None or error.within(each.budget.total):
        return msgspec.structs.replace(
            row, cause=blame.cause, differences=said, total=None, intrinsic=None, candidate_shape=row.shape
        )
    return msgspec.structs.replace(row, cause=blame.cause, differences=said, total=error, intrinsic=error)


def _above(baseline: Pass, key: Key, index: Mapping[Key, int]) -> set[int]:
    """The rows that a site reads from, through sites without a row."""
    found: set[int] = set()
    stack, seen = list(baseline.events[key].above), set()
    while stack:
        here = stack.pop()
        if here in seen:
            continue
        seen.add(here)
        if here in index:
            found.add(index[here])
        elif here in baseline.events:
            stack.extend(baseline.events[here].above)
    return found


def coverage(
    baseline: Pass,
    aligned: Aligned,
    faults: Faults,
    outputs: tuple[int, int],
    own: int,
    open_: Sequence[str],
) -> Coverage:
    """How much of both was compared. A call without a partner counts if what its module gives was compared.

    Args:
        baseline: The whole's pass.
        aligned: What was paired.
        faults: What was compared.
        outputs: How many tensors the two return.
        own: How many sites the candidate's ranks have between them.
        open_: What of the baseline's outputs could not be told, by name.
    """
    compared = {each.key for each in faults.free}
    inside = {key.scope for key in compared if not key.op}
    lost = [key for key in baseline.events if key not in compared]

    def around(scope: str) -> str | None:
        parts = scope.split(".")
        names = (".".join(parts[:k]) for k in range(len(parts), 0, -1))
        return next((name for name in names if name in inside), None)

    unmatched = [
        UnmatchedSite(
            side="baseline",
            name=key.name,
            op=baseline.events[key].op,
            reason="computed otherwise" if key in faults.unpaired else "no rank has it",
            compared_at=around(key.scope),
        )
        for key in lost
    ]
    lone: dict[str, UnmatchedSite] = {}
    for _, key, op in aligned.lone:
        where = around(key.scope)
        lone.setdefault(
            key.name,
            UnmatchedSite(
                side="candidate", name=key.name, op=op, reason="the whole has it not", compared_at=where
            ),
        )
    computing = [key for key, event in baseline.events.items() if event.op not in MOVES]
    reached = sum(key in compared or around(key.scope) is not None for key in computing)
    strays = sum(each.compared_at is None and each.op not in MOVES for each in lone.values())
    total = own or 1
    using = [key for key, event in baseline.events.items() if event.uses]
    return Coverage(
        compared=len(compared),
        baseline_sites=len(baseline.events),
        candidate_sites=max(own, len(compared)),
        baseline_share=reached / len(computing) if computing else 1.0,
        candidate_share=1.0 - min(strays, total) / total,
        parameterised=len(using),
        parameterised_compared=sum(key in compared for key in using),
        outputs=outputs,
        unmatched=(*unmatched, *lone.values()),
        hidden=tuple(open_),
    )


def numbers(found: Pass) -> list[Tensor]:
    """What a pass returned, in float64."""
    return [wide(each) for each in found.outputs]
