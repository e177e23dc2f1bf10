"""Rows of a cell, judged, and coverage, of a candidate that several processes hold between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from verifier.graph.operators import MOVES
from verifier.judge import judge_rows
from verifier.records import Coverage, PairResult, UnmatchedSite
from verifier.sharded.aligning import wide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.judge import Judged
    from verifier.sharded.aligning import Aligned
    from verifier.sharded.comparing import Bench, Found
    from verifier.sharded.faults import Faults
    from verifier.sharded.watching import Key, Pass


def judged(bench: Bench, faults: Faults) -> tuple[Judged, tuple[int, ...]]:
    """The rows, judged, and those of the outputs."""
    index = {each.key: k for k, each in enumerate(faults.free)}
    rows = [_row(bench, each, faults, index) for each in faults.free]
    ends = tuple(index[each.key] for each in faults.free if each.key.returned)
    return judge_rows(rows), ends


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
        position=each.key.call if each.key.returned else None,
    )


def _row(bench: Bench, each: Found, faults: Faults, index: Mapping[Key, int]) -> PairResult:
    key = each.key
    above = tuple(sorted(_above(bench.baseline, each.event.above, index) - {index[key]}))
    row = _plain(index[key], each, above)
    blame, forced = faults.blamed.get(key), faults.forced.get(key)
    if blame is None:
        if forced is None:
            return msgspec.structs.replace(row, intrinsic=None)
        behind = faults.behind(forced) if forced.wrong else None
        if behind is not None and behind in index:
            return msgspec.structs.replace(row, intrinsic=None, follows=index[behind])
        if faults.further and forced.wrong:
            last = max((index[k] for k in faults.blamed if k in index), default=None)
            return msgspec.structs.replace(row, intrinsic=None, follows=last)
        return msgspec.structs.replace(row, intrinsic=forced.error)
    said = (blame.cause.summary,)
    if each.wrong and not (each.key.returned and each.oddness):
        first = forced if forced is not None and forced.wrong else each
        return msgspec.structs.replace(row, cause=blame.cause, differences=said, intrinsic=first.error)
    if blame.read is None or blame.read.within(each.budget.total):
        # Of what is drawn no number tells: a shape stands for none.
        return msgspec.structs.replace(
            row, cause=blame.cause, differences=said, total=None, intrinsic=None, candidate_shape=row.shape
        )
    return msgspec.structs.replace(
        row, cause=blame.cause, differences=said, total=blame.read, intrinsic=blame.read
    )


def _above(baseline: Pass, above: Sequence[Key], index: Mapping[Key, int]) -> set[int]:
    """The rows that a site reads from, through sites without a row."""
    found: set[int] = set()
    stack, seen = list(above), set()
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
    compared = {each.key for each in faults.free if not each.key.returned}
    inside = {key.scope for key in compared if not key.op}
    lost = [key for key in baseline.events if key not in compared]

    def around(scope: str) -> str | None:
        parts = scope.split(".")
        names = (".".join(parts[:k]) for k in range(len(parts), -1, -1))
        found = next((name for name in names if name in inside), None)
        return "what the model returns" if found == "" else found

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
