"""What is multiplied and added channel by channel: the numbers that the stored ones are the rounding of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF
from verifier.proof.stored import rounds_to
from verifier.recognise.relation import compared

if TYPE_CHECKING:
    from verifier.diagnose.neighbourhood import Neighbourhood
    from verifier.graph import KeptCall, Site
    from verifier.proof.stored import Exact


class Scaled(NamedTuple):
    """The numbers by the names of the stored tensors, and whether they hold on all inputs."""

    exact: Exact
    everywhere: bool


class _Step(NamedTuple):
    """An operator with one tensor that is stored, and what comes in."""

    site: Site
    name: str
    stored: Tensor
    given: Tensor


def scaled(side: Neighbourhood, wanted: Tensor, limit: float) -> Scaled | None:
    """With which numbers a product with stored ones, and what is added behind it, give `wanted`.

    Each channel is a line: its slope and what it is shifted by follow from what comes in and what should come out.
    None where the stored numbers are not the rounding of these.

    Args:
        side: Its last two operators, in float64 on the right inputs.
        wanted: What they should give, in float64.
        limit: The relative error (NRMSE) that is none.
    """
    steps = _steps(side)
    if steps is None:
        return None
    times, shift = steps
    x = times.given
    shape = (1,) * (x.dim() - times.stored.dim()) + tuple(times.stored.shape)
    if x.dim() < times.stored.dim() or x.shape != wanted.shape or x.dtype is not torch.float64:
        return None
    if shift is not None and (1,) * (x.dim() - shift.stored.dim()) + tuple(shift.stored.shape) != shape:
        return None
    over = [d for d in range(x.dim()) if shape[d] == 1]
    kept = times.stored.double().reshape(shape)
    middle = [
        t.mean(over, keepdim=True) if shift is not None and over else torch.zeros_like(kept)
        for t in (x, wanted)
    ]
    a, b = x - middle[0], wanted - middle[1]
    power = a.square().sum(over, keepdim=True) if over else a.square()
    moved = (a * b).sum(over, keepdim=True) if over else a * b
    slope = torch.where(power > 0, moved / power.clamp_min(torch.finfo(x.dtype).tiny), kept)
    if not rounds_to(slope, kept):
        return None
    found = {times.name: slope.reshape(times.stored.shape)}
    made = x * slope
    if shift is not None:
        offset = middle[1] - slope * middle[0]
        own = shift.stored.double().reshape(shape)
        size = torch.maximum(torch.maximum(own.abs(), offset.abs()), wanted.square().mean().sqrt())
        if bool(((offset - own).abs() > ROUNDINGS * SINGLE_ROUNDOFF * size).any()):
            return None
        found[shift.name] = offset.reshape(shift.stored.shape)
        made = made + offset
    return Scaled(found, bool((power > 0).all())) if compared(made, wanted).within(limit) else None


def _steps(side: Neighbourhood) -> tuple[_Step, _Step | None] | None:
    """The product, and what is added behind it, if anything is."""
    if side.site is None or side.call is None:
        return None
    last = _step(side.site, side.call, "add")
    if last is None:
        product = _step(side.site, side.call, "mul")
        return None if product is None else (product, None)
    if not side.between:
        return None
    product = _step(*side.between[-1], "mul")
    return (product, last) if product is not None and side.site.operands == (product.site.index,) else None


def _step(site: Site, call: KeptCall, op: str) -> _Step | None:
    if (
        site.op != op
        or len(site.tensors) != 1
        or len(call.operands) != 1
        or call.arguments.get("alpha", 1) != 1
    ):
        return None
    (use,) = site.tensors
    stored = call.arguments.get(use.role)
    if not isinstance(stored, Tensor) or not stored.is_floating_point():
        return None
    return _Step(site, use.name, stored, call.operands[0])
