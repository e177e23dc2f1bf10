"""Pairs of sites of which one side has fewer channels: those that are cut out may count for nothing."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from verifier.align import Pair
from verifier.judge.excess import limit, within
from verifier.proof.readers import readers_of
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from verifier.align import Alignment
    from verifier.bench.bench import Bench
    from verifier.graph import Site
    from verifier.records import PairResult


def cut_out(bench: Bench, rows: Sequence[PairResult]) -> list[Pair]:
    """Pairs of other numbers of channels that lead to the same from what both are given, beside a fault elsewhere.

    Where nothing else is at fault, `wrong_guesses` finds them.

    Args:
        bench: The two models and their pairs, on a few samples in float64.
        rows: What the pairs were measured to be off by there, free and forced.
    """
    alignment = bench.alignment
    readers = readers_of(rows)
    found: dict[int, Pair] = {}
    for row in reversed(rows):
        if row.kind != "site" or row.status is Status.UNMATCHED or not resized(alignment, row, rows):
            continue
        below = readers.get(row.index, [])
        if below and all(each.index in found or _agrees_alone(each) for each in below):
            found[row.index] = _pair(alignment, row)
    for row in rows:  # what comes in is of one size
        if row.index in found and any(rows[a].candidate_shape and a not in found for a in row.above):
            del found[row.index]
    return list(found.values())


def resized(alignment: Alignment, row: PairResult, rows: Sequence[PairResult]) -> bool:
    """Whether the two sites of a row do the same with another number of elements, and leave nothing behind.

    What is written in their calls may differ in the numbers of channels alone: an operator or a setting that differs
    is looked at where the sites are a pair. So is what a tensor of another shape holds after the run.
    """
    if not fewer_channels(row) or row.candidate_op is not None or _leaves_behind(alignment):
        return False
    if any(row.index in each.above and not _of_the_same(alignment, each) for each in rows):
        return False
    b, c = (
        graph.sites[index]
        for graph, index in zip((alignment.baseline, alignment.candidate), _pair(alignment, row), strict=True)
    )
    ratios = _ratios(b, c)
    names = {*b.attributes, *c.attributes}
    return all(_alike(b.attributes.get(name), c.attributes.get(name), ratios) for name in names)


def _of_the_same(alignment: Alignment, row: PairResult) -> bool:
    """Whether the sites without a partner above a row do the same on both sides."""
    b, c = (
        [graph.by_name[name].op for name in names]
        for graph, names in (
            (alignment.baseline, row.between_baseline),
            (alignment.candidate, row.between_candidate),
        )
    )
    return b == c


def fewer_channels(row: PairResult) -> bool:
    """Whether the two sites of a row give tensors of one rank with other numbers of elements."""
    other = row.candidate_shape
    return other is not None and len(other) == len(row.shape) and math.prod(other) != math.prod(row.shape)


def _pair(alignment: Alignment, row: PairResult) -> Pair:
    b = alignment.baseline.by_name[row.baseline or ""].index
    return Pair(b, alignment.partner[b])


def _leaves_behind(alignment: Alignment) -> bool:
    """Whether a model writes what has no partner, and so is not compared after the run."""
    used = {name for assembly in alignment.parameters.values() for name in assembly.names}
    return not (
        alignment.baseline.writes_state <= used
        and alignment.candidate.writes_state <= alignment.parameters.keys()
    )


def _ratios(baseline: Site, candidate: Site) -> set[Fraction]:
    """How many times as many channels the baseline has, by the shapes of the two tensors and of their parameters."""
    uses = {use.role: use.shape for use in baseline.tensors}
    shapes = [(baseline.shape, candidate.shape)]
    shapes += [(uses[use.role], use.shape) for use in candidate.tensors if use.role in uses]
    return {
        Fraction(b, c)
        for one, other in shapes
        if len(one) == len(other)
        for b, c in zip(one, other, strict=True)
        if c
    }


def _alike(one: Any, other: Any, ratios: Collection[Fraction]) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return all(_alike(b, c, ratios) for b, c in zip(one, other, strict=True))
    if one == other:
        return True
    whole = type(one) is int and type(other) is int
    return whole and other != 0 and Fraction(one, other) in ratios


def _agrees_alone(row: PairResult) -> bool:
    return row.intrinsic is not None and within(row.intrinsic, limit(row, intrinsic=True))
