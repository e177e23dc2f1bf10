"""Terms that the processes have of one sum: left alone, summed too often, or with something added to each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from verifier.sharded.aligning import wide
from verifier.sharded.placing import by_shape, cut, sum_of
from verifier.sharded.slices import close

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from verifier.sharded.case import Blame, Case


def bias_repeated(case: Case) -> Blame | None:
    """What every rank has added, and one should have."""
    together = case.together
    if together is None and not case.full:
        return None
    alike = together is not None
    joined = sum_of(case.pieces) if together is None else together
    for name, added in _added(case):
        for more in range(1, case.ranks):
            if not close(joined - more * added, case.whole, case.slack * case.ranks):
                continue
            if not alike:
                return case.blame(
                    "shard-unreduced",
                    f"each rank goes on with its own term, to which all of {name} is added",
                    f"the sum of the terms over the ranks, with {name} once, is the baseline's tensor",
                    remedy="reduce the terms over the ranks before they are handed on",
                )
            return case.blame(
                "shard-bias-repeated",
                f"{name} is added {more + 1} times, by each of {more + 1} ranks",
                f"without {more} of them it is the baseline's tensor",
                remedy=f"add {name} on one rank, or after the reduction",
            )
    return None


def _added(case: Case) -> Iterator[tuple[str, Tensor]]:
    """What may have been added: biases of the site, and what modules inside it give."""
    for name in case.found.event.uses:
        bias = wide(case.parameters[name]) if name in case.parameters else None
        if bias is not None and bias.dim() == 1 and bool(bias.any()):
            for axis in range(case.whole.dim()):
                if case.whole.shape[axis] == len(bias):
                    size = [-1 if k == axis else 1 for k in range(case.whole.dim())]
                    yield name, bias.reshape(size)
    front = f"{case.found.key.scope}." if case.found.key.scope and not case.found.key.op else None
    for key, event in case.bench.baseline.events.items():
        if front is not None and key.scope.startswith(front) and not key.op:
            value = wide(event.value)
            if (
                value.shape == case.whole.shape
                and bool(value.any())
                and not close(value, case.whole, case.slack)
            ):
                yield key.name, value


def reduced_twice(case: Case) -> Blame | None:
    """Copies that were summed as if they were terms, or averaged."""
    together = case.together
    if together is None or not bool(case.whole.any()):
        return None
    for times in range(2, case.ranks + 1):
        for factor, what in ((times, f"{times} times"), (1 / times, f"1/{times} of")):
            if close(together, factor * case.whole, case.slack * max(factor, 1)):
                return case.blame(
                    "shard-reduced-twice",
                    f"every rank has {what} the baseline's numbers: copies were "
                    f"{'summed' if factor > 1 else 'averaged'} over {times} ranks as if they were terms",
                    remedy="reduce what is still in terms, once, by a sum",
                )
    return None


def terms_inside(case: Case) -> Blame | None:
    """What a module of the candidate's own makes inside in terms, and sums too often or not at all."""
    if case.found.key.op:
        return None
    for terms in _inside(case):
        total = sum_of(terms)
        size = float(total.square().sum())
        slack = case.slack * len(terms)
        if not size or total.shape != case.whole.shape:
            continue
        rest = case.whole - total  # what is added after the sum
        if any(close(each, total, slack) for each in terms) or not _adds(case, rest, slack):
            continue
        together = case.together
        if together is not None:
            more = float(((together - case.whole) * total).sum()) / size
            times = round(more) if math.isfinite(more) else 0
            if times >= 1 and close(together, case.whole + times * total, slack * (times + 1)):
                return case.blame(
                    "shard-reduced-twice",
                    f"what the ranks have in terms counts {times + 1} times",
                    f"summed once over the ranks it is the baseline's tensor; it is {times} times that too much",
                    remedy="sum it over the ranks once",
                )
        if len(case.pieces) == len(terms) and _own_terms(case, terms, rest):
            return case.blame(
                "shard-unreduced",
                "each rank goes on with its own term",
                "the sum of the terms over the ranks is the baseline's tensor",
                remedy="reduce it over the ranks (all_reduce, or reduce_scatter) before it is handed on",
            )
    return None


def _inside(case: Case) -> Iterator[list[Tensor]]:
    """What calls inside the site's module made on all ranks, of those that are of the whole's size."""
    count = case.ranks
    keys = case.bench.aligned.parts[case.found.key] if not case.found.key.returned else ()
    found = case.bench.crew.ask(
        "inside", [each[0].scope if each else None for each in keys] or [None] * count
    )
    for made in zip(*found, strict=False):
        values = [wide(value) for _, value in made]
        if len({key[1:] for key, _ in made}) == 1 and all(v.shape == case.whole.shape for v in values):
            yield values


def _adds(case: Case, rest: Tensor, slack: float) -> bool:
    """Whether what is left beside a sum is nothing, or a bias that the module adds."""
    if close(rest, torch.zeros_like(rest), slack):
        return True
    for name in case.found.event.uses:
        bias = wide(case.parameters[name]) if name in case.parameters else None
        fits = bias is not None and bias.dim() == 1 and rest.dim() and rest.shape[-1] == len(bias)
        if bias is not None and fits and close(rest, bias.expand_as(rest), slack):
            return True
    return False


def _own_terms(case: Case, terms: Sequence[Tensor], rest: Tensor) -> bool:
    """Whether each piece is the rank's own term, or its own part of that."""
    placed = by_shape(case.whole, case.pieces)
    if placed is None or len(case.pieces) < 2:
        return False
    parts = [cut(placed, term, len(terms))[k] for k, term in enumerate(terms)]
    added = cut(placed, rest, len(terms))
    return any(
        all(
            close(piece, part + factor * more, case.slack)
            for piece, part, more in zip(case.pieces, parts, added, strict=True)
        )
        for factor in (0, 1)
    )
