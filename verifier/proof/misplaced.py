"""Pairs inside a region at fault that were guessed wrong, so that one fault shows at several sites.

A pair that stands among operators that differ was guessed by its place. Where a fault is in the same region nothing
behind it agrees, and numbers cannot take the pair back as they do elsewhere. What they can tell: that one of its two
tensors turns up elsewhere, and whether fewer sites are wrong without the pair.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from verifier.align import Pair
from verifier.graph.operators import MOVES, SELECTS
from verifier.judge import differs
from verifier.proof.digests import digests, twins
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.align import Alignment
    from verifier.bench.bench import Bench
    from verifier.graph import Site
    from verifier.judge import Judged
    from verifier.records import PairResult


class Repair(NamedTuple):
    """Pairs to take back, those to put in their place, and how many culprits fewer there must be then.

    `composed` says that the new pairs are of one operator with what the other model makes in several.
    """

    wrong: list[Pair]
    right: list[Pair]
    saves: int
    composed: bool = False

    def of(self, alignment: Alignment, reason: str) -> Alignment:
        """The alignment with these pairs; sites left alone are unmatched for `reason`."""
        found = alignment.repaired(self.wrong, self.right, reason)
        return replace(found, rebuilt=True) if self.composed else found


def misplaced(bench: Bench, judged: Judged) -> Iterator[Repair]:
    """What may be wrong about the pairs around several culprits; whether it is, another look must show.

    Args:
        bench: The two models and their pairs, on a few samples in float64.
        judged: What they were found to be off by there, free and forced, and where that is wrong.
    """
    wrong = [judged.rows[k] for k in judged.wrong_at]
    chained = [
        (row, reader)
        for row in wrong
        for reader in wrong
        if row.index in reader.above and _otherwise(reader) and row.kind == reader.kind == "site"
    ]
    if not chained:
        return
    yield from _turned_up(bench, [row for row in judged.rows if _guessed(row) and differs(row)])
    for row, reader in chained:
        yield from _merged(bench.alignment, row, reader)
    loose = {
        _pair(bench.alignment, row): 1
        if _stands_in(row, reader) or _cannot_be_one(bench.alignment, row)
        else 2
        for row, reader in chained
        if _guessed(row) and not _weighs(bench.alignment, _pair(bench.alignment, row))
    }
    if len(loose) > 1:
        yield Repair([*loose], [], sum(loose.values()))
    for pair, saves in loose.items():
        yield Repair([pair], [], saves)


def _stands_in(row: PairResult, reader: PairResult) -> bool:
    """Whether nothing speaks of two sites but the operators around them, which are then one region."""
    return Status.CULPRIT not in (row.status, reader.status)


def _cannot_be_one(alignment: Alignment, row: PairResult) -> bool:
    """Whether two sites give tensors of other sizes, or compute nothing, so that no fault can be their own."""
    b, c = _sites(alignment, _pair(alignment, row))
    return math.prod(b.shape) != math.prod(c.shape) or {b.op, c.op} <= MOVES | SELECTS


def _otherwise(row: PairResult) -> bool:
    """Whether operators around a row differ."""
    return row.apart or row.rewired or row.candidate_op is not None


def _guessed(row: PairResult) -> bool:
    return row.kind == "site" and row.baseline is not None and row.candidate is not None and _otherwise(row)


def _pair(alignment: Alignment, row: PairResult) -> Pair:
    b = alignment.baseline.by_name[row.baseline or ""].index
    return Pair(b, alignment.partner[b])


def _sites(alignment: Alignment, pair: Pair) -> tuple[Site, Site]:
    return alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate]


def _weighs(alignment: Alignment, pair: Pair) -> bool:
    return all(site.tensors for site in _sites(alignment, pair))


def _turned_up(bench: Bench, rows: Sequence[PairResult]) -> Iterator[Repair]:
    """Pairs one of whose tensors is that of another site."""
    pairs = [_pair(bench.alignment, row) for row in rows]
    sides = [
        digests(
            bench,
            side,
            {each.site for each in bench.alignment.unmatched if each.side == side}
            | {pair[k] for pair in pairs},
        )
        for k, side in enumerate(("baseline", "candidate"))
    ]
    right = [
        Pair(b, c)
        for b, c in twins(sides[0], sides[1]).items()
        if Pair(b, c) not in pairs and any(b == pair.baseline or c == pair.candidate for pair in pairs)
    ]
    wrong = [pair for pair in pairs if any(pair[k] == each[k] for each in right for k in (0, 1))]
    if right:
        yield Repair(wrong, right, 1)


def _merged(alignment: Alignment, row: PairResult, reader: PairResult) -> Iterator[Repair]:
    """An operator with other weights whose partner goes on to what it gives in one: folded norms, merged branches."""
    pair, below = _pair(alignment, row), _pair(alignment, reader)
    if not _weighs(alignment, pair) or bool(reader.between_baseline) == bool(reader.between_candidate):
        return
    longer = 0 if reader.between_baseline else 1
    graphs = alignment.baseline, alignment.candidate
    if pair[1 - longer] not in graphs[1 - longer].sites[below[1 - longer]].inputs:
        return
    open_sites = {each.site for each in alignment.unmatched if each.side == ("baseline", "candidate")[longer]}
    shape = graphs[1 - longer].sites[pair[1 - longer]].shape
    for end in dict.fromkeys(graphs[longer].sites[below[longer]].inputs):
        if end in open_sites and graphs[longer].sites[end].shape == shape:
            made = (end, pair.candidate) if longer == 0 else (pair.baseline, end)
            yield Repair([pair], [Pair(*made)], 1, composed=True)
