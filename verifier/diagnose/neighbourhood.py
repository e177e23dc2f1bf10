"""A pair with what stands between it and the pairs above, on both sides, as calls that can be made again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from verifier.graph.operators import COMMUTATIVE
from verifier.metrics import collect, compare, measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.graph import Graph, KeptCall, Site
    from verifier.result import Comparison

Values = dict[int, Tensor]
"""Tensors by the site (or -1 - k, the k-th input) they come from."""


@dataclass(frozen=True)
class Side:
    """One side of a neighbourhood: the site itself (None: an output of the model) and those between.

    `reads` are the tensors that reach the pair and `sources` the sites they come from.
    """

    graph: Graph
    site: Site | None
    call: KeptCall | None
    between: tuple[tuple[Site, KeptCall], ...]
    reads: tuple[Tensor, ...]
    sources: tuple[int | None, ...]

    def values(self) -> Values:
        """Everything that is read here and was not made here."""
        found = {
            source: tensor
            for source, tensor in zip(self.sources, self.reads, strict=True)
            if source is not None
        }
        for site, call in self.between:
            found.update(
                (source, tensor)
                for source, tensor in zip(site.operands, call.operands, strict=False)
                if source is not None
            )
        made = {site.index for site, _ in self.between}
        return {source: tensor for source, tensor in found.items() if source not in made}

    def replay(self, values: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
        """What would reach the pair if `values` came in from above.

        Raises:
            Exception: Whatever a call raises on other tensors than it was made with.
        """
        known = dict(values)
        done: set[int] = set()
        for site, call in self.between:
            number = self.graph.call_of[site.index]
            if number in done:
                continue
            done.add(number)
            given = call.operands
            operands = [
                known.get(source, tensor) if source is not None else tensor
                for source, tensor in zip(site.operands, given, strict=True)
            ]
            made, _ = call.with_operands(operands).run()
            first = self.graph.calls[number].first
            known.update(enumerate(made, first))
        return tuple(
            known.get(source, tensor) if source is not None else tensor
            for source, tensor in zip(self.sources, self.reads, strict=True)
        )


def carried_over(values: Values, own: Values, partner: Mapping[int, int]) -> Values:
    """`own`, with what comes from paired sites or from the inputs as it is on the other side, in `values`."""
    found = dict(own)
    for source, tensor in values.items():
        there = source if source < 0 else partner.get(source)
        if there in found:
            found[there] = tensor
    return found


def ordered_like(tensors: Sequence[Tensor], others: Sequence[Tensor], op: str) -> tuple[Tensor, ...]:
    """`tensors` in the order in which they are closest to `others`, where `op` does not mind the order."""
    if op not in COMMUTATIVE or len(tensors) != 2 or len(others) != 2:
        return tuple(tensors)
    straight, crossed = (
        sum(distance(a, b) for a, b in zip(order, others, strict=True)) for order in (tensors, tensors[::-1])
    )
    return tuple(tensors) if straight <= crossed else tuple(tensors[::-1])


def error_of(candidate: Tensor, baseline: Tensor) -> Comparison | None:
    """How far the candidate is off; None where the shapes differ."""
    if candidate.shape != baseline.shape:
        return None
    return compare(collect([measure(baseline, candidate)])[0])


def distance(candidate: Tensor, baseline: Tensor) -> float:
    """Relative error (NRMSE), infinite where the two cannot be compared."""
    error = error_of(candidate, baseline)
    if error is None or error.nonfinite_mismatched:
        return float("inf")
    if error.elements == 0 or error.max_abs == 0:
        return 0.0
    return error.nrmse if error.nrmse == error.nrmse else float("inf")
