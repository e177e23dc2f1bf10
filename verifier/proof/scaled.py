"""A factor and a shift by channel that one model keeps behind a product and the other makes of several tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF
from verifier.proof.stored import rounds_to
from verifier.recognise.relation import compared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.diagnose.neighbourhood import Neighbourhood
    from verifier.graph import KeptCall, Site
    from verifier.proof.stored import Exact

    Made = tuple[Site, KeptCall]


class _Kept(NamedTuple):
    """An operator with one tensor that is stored."""

    name: str
    stored: Tensor


class _Scaled(NamedTuple):
    """A product, and by which stored numbers it is multiplied, and what is added then, if anything is."""

    product: KeptCall
    times: _Kept
    shift: _Kept | None
    given: Tensor


def scaled(side: Neighbourhood, other: Neighbourhood, wanted: Tensor, limit: float) -> Exact | None:
    """What the numbers that one side keeps behind a product are the rounding of, by the names of these.

    They follow from what the other side does behind its product, whatever goes in: a norm on running statistics, a
    factor that is learnt, a bias before that. None where they do not round to what is kept.

    Args:
        side: The side that keeps them, in float64 on the right inputs.
        other: The other side.
        wanted: What both should give, in float64.
        limit: The relative error (NRMSE) that is none.
    """
    kept, line = _kept(side), _line(other)
    if kept is None or line is None:
        return None
    product, slope, offset = line
    same = [each.arguments.get("weight") for each in (kept.product, product)]
    if kept.product.function is not product.function or not _equal(*same):
        return None
    for sign, call in ((1, product), (-1, kept.product)):
        bias = call.arguments.get("bias")
        if isinstance(bias, Tensor):
            offset = offset + sign * slope * bias.reshape(_along(kept.times.stored, wanted))
    exact = {kept.times.name: slope.reshape(kept.times.stored.shape)}
    if not rounds_to(exact[kept.times.name], kept.times.stored):
        return None
    if kept.shift is not None:
        found = offset.reshape(kept.shift.stored.shape)
        own, size = kept.shift.stored, wanted.square().mean().sqrt()
        allowed = ROUNDINGS * SINGLE_ROUNDOFF * torch.maximum(torch.maximum(own.abs(), found.abs()), size)
        if bool(((found - own).abs() > allowed).any()):
            return None
        exact[kept.shift.name] = found
    elif bool(offset.any()):
        return None
    if not compared(kept.given * slope + offset, wanted).within(limit):
        return None
    stored = {each.name: each.stored for each in (kept.times, kept.shift) if each is not None}
    return {name: tensor for name, tensor in exact.items() if not tensor.equal(stored[name])}


def _kept(side: Neighbourhood) -> _Scaled | None:
    """The last operators of a side, if they are such."""
    if side.site is None or side.call is None:
        return None
    calls = [*side.between, (side.site, side.call)]
    shift = _stored(calls[-1], "add")
    places = {site.index: call for site, call in calls}
    times = _stored(calls[-1 if shift is None else -2], "mul") if len(calls) > (shift is not None) else None
    if times is None or (shift is not None and calls[-1][0].operands != (calls[-2][0].index,)):
        return None
    if shift is not None and shift.stored.numel() != times.stored.numel():
        return None
    (site, call) = calls[-1 if shift is None else -2]
    (source,) = site.operands
    product = None if source is None else places.get(source)
    if product is None or not _is_product(product):
        return None
    return _Scaled(product, times, shift, call.operands[0])


def _stored(made: Made, op: str) -> _Kept | None:
    site, call = made
    if (
        site.op != op
        or len(site.tensors) != 1
        or len(call.operands) != 1
        or call.arguments.get("alpha", 1) != 1
    ):
        return None
    stored = call.arguments.get(site.tensors[0].role)
    fits = isinstance(stored, Tensor) and stored.dtype is torch.float64
    return _Kept(site.tensors[0].name, stored) if fits and isinstance(stored, Tensor) else None


def _is_product(call: KeptCall) -> bool:
    return isinstance(call.arguments.get("weight"), Tensor) and "weight" in call.state


def _line(side: Neighbourhood) -> tuple[KeptCall, Tensor, Tensor] | None:
    """The product of a side, and by which number of each channel it is multiplied and what is added behind it.

    None where what stands behind it depends on the inputs in another way.
    """
    if side.site is None or side.call is None:
        return None
    calls = [*side.between, (side.site, side.call)]
    products = (k for k, (site, call) in enumerate(calls) if site.op != "batch_norm" and _is_product(call))
    first = next(products, len(calls))
    if first >= len(calls) - 1:
        return None
    (site, product), chain = calls[first], calls[first + 1 :]
    reads, inside = side.graph.reads_inputs, site.index
    for behind, _ in chain:
        if behind.op not in _AFFINE or behind.attributes.get("training", False):
            return None
        if [k for k in behind.operands if k is None or k < 0 or reads[k]] != [inside]:
            return None
        inside = behind.index
    ends = [
        _through(chain, site.index, torch.full(site.shape, value, dtype=torch.float64))
        for value in (1.0, -1.0)
    ]
    if ends[0] is None or ends[1] is None:
        return None
    slope, offset = (ends[0] - ends[1]) / 2, (ends[0] + ends[1]) / 2
    dimension = -1 if site.op == "linear" else 1
    over = [d for d in range(slope.dim()) if d != dimension % slope.dim()]
    if any(not each.amax(over).equal(each.amin(over)) for each in (slope, offset)):
        return None
    return product, slope.amax(over, keepdim=True), offset.amax(over, keepdim=True)


_AFFINE = {"add", "batch_norm", "div", "mul", "sub"}


def _through(chain: Sequence[Made], source: int, value: Tensor) -> Tensor | None:
    """What comes out of operators one after the other; None where one cannot be run on it."""
    for site, call in chain:
        operands = [
            value if index == source else tensor
            for index, tensor in zip(site.operands, call.operands, strict=True)
        ]
        try:
            with torch.no_grad(), call.surroundings():
                value = call.made_on(operands)[site.output]
        except RuntimeError:
            return None
        source = site.index
    return value


def _along(stored: Tensor, like: Tensor) -> tuple[int, ...]:
    """The shape in which a number for each channel is multiplied."""
    return (1,) * (like.dim() - stored.dim()) + tuple(stored.shape)


def _equal(one: object, two: object) -> bool:
    return isinstance(one, Tensor) and isinstance(two, Tensor) and torch.equal(one, two)
