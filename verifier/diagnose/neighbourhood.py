"""A pair with what stands between it and the pairs above, on both sides, as calls that can be made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.align import layouts
from verifier.graph.operators import COMMUTATIVE, MOVES, PRODUCTS
from verifier.graph.tensors import dense, tensors_in
from verifier.recognise.relation import compared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.graph import Graph, KeptCall, Site
    from verifier.records import Comparison

Lay = Callable[[Tensor, Tensor], Tensor]
"""Lays out a tensor of the baseline's as one of the candidate's is."""

Values = dict[int, Tensor]
"""Tensors by the site (or -1 - k, the k-th input) they come from."""


@dataclass(frozen=True)
class Neighbourhood:
    """One side of a neighbourhood: the site itself (None: an output of the model) and those between.

    `reads` are the tensors that reach the pair and `sources` the sites they come from. `beyond` are the partnered
    sites right above, with what stands between those and the ones above them.
    """

    graph: Graph
    site: Site | None
    call: KeptCall | None
    between: tuple[tuple[Site, KeptCall], ...]
    reads: tuple[Tensor, ...]
    sources: tuple[int | None, ...]
    beyond: tuple[tuple[Site, KeptCall], ...] = ()

    @property
    def is_affine(self) -> bool:
        """Whether it is a product with weights and a shift, as far as its operators tell."""
        reads = self.graph.reads_inputs
        sites = [site for site, _ in self.between] + ([] if self.site is None else [self.site])
        sites = [site for site in sites if reads[site.index]]  # others lay out what is learnt
        return bool(sites) and all(
            None not in site.operands
            and sum(k < 0 or reads[k] for k in site.operands if k is not None) == 1
            and (site.op.startswith(PRODUCTS) or site.op in MOVES or site.op == "batch_norm")
            and not site.attributes.get("training", False)
            for site in sites
        )

    def wider(self) -> Neighbourhood:
        """The same with what is beyond between."""
        between = {site.index: (site, call) for site, call in (*self.beyond, *self.between)}
        return replace(self, between=tuple(between[index] for index in sorted(between)), beyond=())

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
            with torch.no_grad(), call.surroundings():
                made = call.made_on(operands)
            first = self.graph.calls[number].first
            known.update(enumerate(made, first))
        return tuple(
            known.get(source, tensor) if source is not None else tensor
            for source, tensor in zip(self.sources, self.reads, strict=True)
        )


def carried_over(baseline: Values, candidate: Values, partner: Mapping[int, int], lay: Lay) -> Values:
    """The candidate's values, with what comes from paired sites or from the inputs as it is in the baseline's."""
    found = dict(candidate)
    for source, tensor in baseline.items():
        there = source if source < 0 else partner.get(source)
        if there in found:
            found[there] = lay(tensor, found[there])
    return found


def laid_as(baseline: Tensor, candidate: Tensor) -> Tensor:
    """The baseline's tensor laid out as the candidate's is, where only the layout tells them apart.

    Of several possible layouts the one in which they agree, otherwise the likeliest.
    """
    if baseline.shape == candidate.shape:
        return baseline
    likeliest = None
    for layout in layouts(baseline.shape, candidate.shape):
        laid = layout.forth(baseline, candidate.shape)
        if distance(laid, candidate) <= _ROUNDING:
            return laid
        likeliest = laid if likeliest is None else likeliest
    return baseline if likeliest is None else likeliest


def as_it_is(baseline: Tensor, _candidate: Tensor) -> Tensor:
    """The baseline's tensor: models built from the same operators have no reason to lay it out otherwise."""
    return baseline


def _apart(candidate: Tensor, baseline: Tensor, lay: Lay) -> float:
    return distance(candidate, lay(baseline, candidate))


_ROUNDING = 1e-3  # coarse enough for half precision; two layouts of one tensor differ by all it is


def shared_reads(
    baseline: KeptCall, candidate: KeptCall, op: str, lay: Lay
) -> tuple[list[Tensor], list[Tensor], KeptCall | None]:
    """What two calls of one site read: the baseline's tensors, the candidate's, and its call on the baseline's.

    An argument that is a parameter of one model and computed by the other is read as well. The call is None
    where the two take other arguments. `lay` lays the baseline's tensors out as the candidate's are.
    """
    if (
        op != "batch_norm"
        and _operand_names(baseline) != _operand_names(candidate)
        and len(baseline.operands) == len(candidate.operands)
    ):  # other operators, or other forms of one, call the same argument otherwise
        read = candidate.operands
        given = [lay(one, other) for one, other in zip(baseline.operands, read, strict=True)]
        return given, read, candidate.with_operands(given)
    shared = baseline.state & candidate.state
    names = [
        name
        for name in dict.fromkeys((*baseline.arguments, *candidate.arguments))
        if name not in shared
        and not (op == "batch_norm" and name in STATISTICS)
        and not (name in baseline.state | candidate.state and _lacks(name, baseline, candidate))
    ]
    b = {name: list(tensors_in(baseline.arguments.get(name))) for name in names}
    c = {name: list(tensors_in(candidate.arguments.get(name))) for name in names}
    names = [name for name in names if b[name] or c[name]]
    if op in COMMUTATIVE and len(names) == 2 and all(len(c[n]) == len(b[n]) == 1 for n in names):
        one, two = names
        straight = _apart(c[one][0], b[one][0], lay) + _apart(c[two][0], b[two][0], lay)
        crossed = _apart(c[one][0], b[two][0], lay) + _apart(c[two][0], b[one][0], lay)
        if crossed < straight:
            b = {one: b[two], two: b[one]}
    fits = all(len(c[name]) == len(b[name]) for name in names)
    if fits:
        b = {name: [lay(one, other) for one, other in zip(b[name], c[name], strict=True)] for name in names}
    call: KeptCall | None = candidate if fits else None
    if call is not None:
        for name in names:
            call = call.with_tensors(name, b[name])
    flat = ([tensor for name in names for tensor in side[name]] for side in (b, c))
    return *flat, call  # type: ignore[return-value] # two lists and a call


# A batch norm that works on statistics it computes itself is to be judged with them.
STATISTICS = frozenset({"running_mean", "running_var"})


def _operand_names(call: KeptCall) -> list[str]:
    return [
        name
        for name, value in call.arguments.items()
        if name not in call.state and any(True for _ in tensors_in(value))
    ]


def _lacks(name: str, one: KeptCall, other: KeptCall) -> bool:
    """Whether one of two calls has no tensor under a name: a bias that only the other has, say."""
    return not all(any(True for _ in tensors_in(call.arguments.get(name))) for call in (one, other))


def error_of(candidate: Tensor, baseline: Tensor) -> Comparison | None:
    """How far the candidate is off; None where the shapes differ."""
    candidate, baseline = dense(candidate), dense(baseline)
    if candidate.shape != baseline.shape:
        return None
    return compared(candidate, baseline)


def distance(candidate: Tensor, baseline: Tensor) -> float:
    """Relative error (NRMSE), infinite where the two cannot be compared."""
    error = error_of(candidate, baseline)
    if error is None or error.nonfinite_mismatched:
        return float("inf")
    if error.elements == 0 or error.max_abs == 0:
        return 0.0
    return error.nrmse if error.nrmse == error.nrmse else float("inf")
