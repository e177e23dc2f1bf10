"""A pair with what stands between it and the pairs above, on both sides, as calls that can be made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from verifier.align import layouts
from verifier.graph.operators import COMMUTATIVE
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


def carried_over(values: Values, own: Values, partner: Mapping[int, int], lay: Lay) -> Values:
    """`own`, with what comes from paired sites or from the inputs as it is on the other side, in `values`."""
    found = dict(own)
    for source, tensor in values.items():
        there = source if source < 0 else partner.get(source)
        if there in found:
            found[there] = lay(tensor, found[there])
    return found


def laid_as(tensor: Tensor, other: Tensor) -> Tensor:
    """The baseline's `tensor` laid out as the candidate's `other` is, where only the layout tells them apart.

    Of several possible layouts the one in which they agree, otherwise the likeliest.
    """
    if tensor.shape == other.shape:
        return tensor
    likeliest = None
    for layout in layouts(tensor.shape, other.shape):
        laid = layout.forth(tensor, other.shape)
        if distance(laid, other) <= _ROUNDING:
            return laid
        likeliest = laid if likeliest is None else likeliest
    return tensor if likeliest is None else likeliest


def as_it_is(tensor: Tensor, _other: Tensor) -> Tensor:
    """The baseline's `tensor`: models built from the same operators have no reason to lay it out otherwise."""
    return tensor


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
        ours_flat = candidate.operands
        theirs_flat = [lay(one, other) for one, other in zip(baseline.operands, ours_flat, strict=True)]
        return theirs_flat, ours_flat, candidate.with_operands(theirs_flat)
    own = baseline.state & candidate.state
    names = [
        name
        for name in dict.fromkeys((*baseline.arguments, *candidate.arguments))
        if name not in own
        and not (op == "batch_norm" and name in STATISTICS)
        and not (name in baseline.state | candidate.state and _lacks(name, baseline, candidate))
    ]
    theirs = {name: list(tensors_in(baseline.arguments.get(name))) for name in names}
    ours = {name: list(tensors_in(candidate.arguments.get(name))) for name in names}
    names = [name for name in names if theirs[name] or ours[name]]
    if op in COMMUTATIVE and len(names) == 2 and all(len(ours[n]) == len(theirs[n]) == 1 for n in names):
        one, two = names
        straight = _apart(ours[one][0], theirs[one][0], lay) + _apart(ours[two][0], theirs[two][0], lay)
        crossed = _apart(ours[one][0], theirs[two][0], lay) + _apart(ours[two][0], theirs[one][0], lay)
        if crossed < straight:
            theirs = {one: theirs[two], two: theirs[one]}
    fits = all(len(ours[name]) == len(theirs[name]) for name in names)
    if fits:
        theirs = {
            name: [lay(one, other) for one, other in zip(theirs[name], ours[name], strict=True)]
            for name in names
        }
    call: KeptCall | None = candidate if fits else None
    if call is not None:
        for name in names:
            call = call.with_tensors(name, theirs[name])
    flat = ([tensor for name in names for tensor in side[name]] for side in (theirs, ours))
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
