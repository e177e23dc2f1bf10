"""The float weights that a quantised model's codes stand for, found among the baseline's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from verifier.forms.quantisers import UNCUT
from verifier.graph.operators import MOVES
from verifier.graph.ranges import ranges
from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.forms.quantisers import Grid, Stored
    from verifier.graph import Graph, Site
    from verifier.graph.ranges import Range


class Float(NamedTuple):
    """A weight of the baseline as a converter may have stored it, in float64.

    Attributes:
        name: What the baseline calls it.
        weight: The weight: as it is, turned, a part of it, or with the norm behind it folded in.
        bias: What is added to the products then; None for nothing.
        ceiling: What the activation behind it cuts off above; `UNCUT` where there is none.
    """

    name: str
    weight: Tensor
    bias: Tensor | None = None
    ceiling: float = math.inf


def floats_in(graph: Graph, state: Mapping[str, Tensor]) -> Iterator[Float]:
    """What the baseline multiplies and adds; of weights also what they are with the norm behind them folded in."""
    found: list[tuple[Site, str, str | None, Site | None]] = []
    ceilings: dict[str, set[float]] = {}
    limits = ranges(graph)
    for site in graph.sites:
        weight, bias = _weights(site, state)
        if weight is None or not any(operand is not None for operand in site.operands):
            continue  # nothing is multiplied by it here
        behind = _behind(graph, site)
        norm = behind if behind is not None and behind.op == "batch_norm" else None
        ceilings.setdefault(weight, set()).add(_ceiling(graph, norm or site, limits))
        found.append((site, weight, bias, norm))
    for site, weight, bias, norm in found:
        ceiling = next(iter(ceilings[weight])) if len(ceilings[weight]) == 1 else math.inf
        plain = Float(weight, state[weight].double(), None if bias is None else state[bias].double(), ceiling)
        yield from _laid_out(plain)
        if norm is not None:
            yield from _laid_out(_folded(plain, site, norm, state))
    read = ceilings.keys()
    for name, tensor in state.items():
        if name not in read and tensor.is_floating_point() and tensor.dim():
            # A module keeps a bias beside its weight.
            beside = state.get(f"{name.removesuffix('weight')}bias") if tensor.dim() > 1 else None
            added = None if beside is None or beside.dim() != 1 else beside.double()
            yield from _laid_out(Float(name, tensor.double(), added))
    numbers = {
        float(value)
        for site in graph.comparable
        for value in site.attributes.values()
        if isinstance(value, float | int) and not isinstance(value, bool)
    }
    for number in numbers:  # that the program has written
        if math.isfinite(number):
            yield from (Float(f"{number:g}", torch.full(shape, number).double()) for shape in ((), (1,)))


def _behind(graph: Graph, site: Site) -> Site | None:
    """The only site that reads another."""
    readers = graph.consumers[site.index]
    return graph.sites[readers[0]] if len(readers) == 1 else None


def _ceiling(graph: Graph, site: Site, limits: Sequence[Range]) -> float:
    """What the activation behind a site, if there is one that sets all below 0 to 0, cuts off above."""
    ends: set[float] = set()
    for reader in (graph.sites[k] for k in graph.consumers[site.index]):
        biased = reader.op == "add" and sum(operand is not None for operand in reader.operands) == 1
        if biased or reader.op == "batch_norm" or reader.op in MOVES:
            ends.add(_ceiling(graph, reader, limits))
        elif reader.op in _CUTS and limits[reader.index].low == 0:
            ends.add(limits[reader.index].high)
        else:
            ends.add(math.inf if reader.op in _MAY_CUT else UNCUT)
    return ends.pop() if len(ends) == 1 else UNCUT


_CUTS = frozenset({"clamp", "clamp_min", "hardtanh", "relu", "relu6"})
_MAY_CUT = frozenset({"max", "maximum", "threshold", "where"})


def _weights(site: Site, state: Mapping[str, Tensor]) -> tuple[str | None, str | None]:
    """The names of what an operator multiplies by, and of what it adds to that."""
    weight = next((use.name for use in site.tensors if len(use.shape) > 1 and use.name in state), None)
    if weight is None or not state[weight].is_floating_point():
        return None, None
    bias = next((use.name for use in site.tensors if len(use.shape) == 1 and "bias" in use.role), None)
    return weight, bias


def _folded(plain: Float, site: Site, norm: Site, state: Mapping[str, Tensor]) -> Float:
    """A weight with the norm behind it folded in, as `torch.nn.utils.fusion` does it."""
    kept = {use.role: state[use.name].double() for use in norm.tensors}
    epsilon = norm.attributes.get("eps", 1e-5)
    assert isinstance(epsilon, float)  # noqa: S101 - torch takes no other
    factor = kept.get("weight", torch.ones_like(kept["running_var"])) / (kept["running_var"] + epsilon).sqrt()
    channel = 1 if site.op.startswith("conv_transpose") or plain.weight.shape[0] != len(factor) else 0
    if plain.weight.shape[channel] != len(factor):
        return plain
    shape = [1] * plain.weight.dim()
    shape[channel] = -1
    shift = kept.get("bias", torch.zeros_like(factor)) - kept["running_mean"] * factor
    bias = shift if plain.bias is None else plain.bias * factor + shift
    return plain._replace(weight=plain.weight * factor.reshape(shape), bias=bias)


def _laid_out(plain: Float) -> Iterator[Float]:
    """A weight as it is, turned, and in parts of one size, as attention's are of what makes queries, keys, values."""
    yield plain
    if plain.weight.dim() != len(("rows", "columns")):
        return
    yield plain._replace(weight=plain.weight.T)
    for count in (2, 3):
        if len(plain.weight) % count == 0:
            biases: Sequence[Tensor | None] = (
                [None] * count if plain.bias is None else plain.bias.chunk(count)
            )
            for part, bias in zip(plain.weight.chunk(count), biases, strict=True):
                yield plain._replace(weight=part, bias=bias)
                yield plain._replace(weight=part.T, bias=bias)


def within_half_a_step(codes: Tensor, grid: Grid, exact: Tensor) -> bool:
    """Whether codes are the nearest to every number that is within their range, and the last to all beyond.

    A converter computes in single precision, so a number may lie beyond the middle by as much as is lost there.
    """
    steps = grid.steps(exact) + grid.along(grid.zero, exact.dim())
    lost = ROUNDINGS * SINGLE_ROUNDOFF * (1 + steps.abs())
    return bool(((steps.clamp(grid.low, grid.high) - codes.double()).abs() <= 0.5 + lost).all())


def stands_for(stored: Stored, known: Sequence[Float], grid: Grid | None = None) -> Float | None:
    """The baseline's weight that codes are the rounding of, the nearest of several; None if of none.

    Args:
        stored: The weight.
        known: What the baseline has.
        grid: What the codes are taken to stand for; None for what the form says.
    """
    grid = grid or stored.grid
    found = [
        each
        for each in known
        if each.weight.shape == stored.codes.shape
        and within_half_a_step(stored.codes, grid, each.weight)
        and not (stored.bias and _lost(stored, each.weight))
    ]
    value = grid.values(stored.codes)
    return min(found, key=lambda each: float((each.weight - value).square().sum()), default=None)


def bias_of(stored: Stored, of: Float | None) -> Tensor | None:
    """The float bias of the operator whose weight was found, if the codes are the rounding of it."""
    exact = None if of is None else of.bias
    if exact is None or exact.shape != stored.codes.shape:
        return None
    kept = within_half_a_step(stored.codes, stored.grid, exact) and not _lost(stored, exact)
    return exact if kept else None


def _lost(bias: Stored, exact: Tensor) -> bool:
    """Whether the steps of a bias are so large that it says nothing of what it is the rounding of.

    A bias is kept in steps of the products that it is added to, or in steps of its own, of which its largest number
    then takes many. What is left out altogether is at most half a step of the products.
    """
    if bias.step is None:
        return False
    data, own = bias.step.double().reshape(-1), bias.grid.scale.double().reshape(-1)
    if bool(own.gt(torch.maximum(_HABIT * data, exact.abs().max() / _FEWEST)).any()):
        return True
    return not bool(bias.value.any()) and bool(
        (exact.abs() > data * (0.5 + ROUNDINGS * SINGLE_ROUNDOFF)).any()
    )


_HABIT = 16.0  # times the step of the products: a scale that is off by that is told of the data's quantiser
_FEWEST = 63.0  # steps: half of those that eight bits have on a side
