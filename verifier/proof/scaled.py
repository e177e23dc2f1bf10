"""A factor and a shift by channel that one model keeps behind a product and the other makes of several tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.diagnose.folds import is_product, scalings
from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF
from verifier.proof.stored import rounds_to
from verifier.recognise.relation import compared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.diagnose.neighbourhood import Neighbourhood
    from verifier.graph import KeptCall, Site
    from verifier.proof.stored import Exact

    Made = tuple[Site, KeptCall]


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
    kept = next((each for each in scalings(side) if (each.added or each.times)[0] is side.site), None)
    line = _line(other)
    if kept is None or line is None:
        return None
    (_, call), product = kept.product, line[0]
    weights = call.arguments["weight"], product.arguments["weight"]
    if call.function is not product.function or not torch.equal(*weights):
        return None
    slope, offset = line[1].flatten(), line[2].flatten()
    for sign, each in ((1, product), (-1, call)):
        if isinstance(bias := each.arguments.get("bias"), Tensor):
            offset = offset + sign * slope * bias
    if not rounds_to(slope, kept.factor) or (kept.shift is None and bool(offset.any())):
        return None
    if kept.shift is not None:
        size = torch.maximum(torch.maximum(kept.shift.abs(), offset.abs()), wanted.square().mean().sqrt())
        if bool(((offset - kept.shift).abs() > ROUNDINGS * SINGLE_ROUNDOFF * size).any()):
            return None
    made = kept.times[1].operands[0] * slope.reshape(line[1].shape) + offset.reshape(line[1].shape)
    if not compared(made, wanted).within(limit):
        return None
    found = [(kept.times, slope, kept.factor)]
    if kept.added is not None and kept.shift is not None:
        found.append((kept.added, offset, kept.shift))
    exact = [_known(*each) for each in found]
    return (
        None if None in exact else {name: tensor for each in exact for name, tensor in (each or {}).items()}
    )


def _known(made: Made, exact: Tensor, kept: Tensor) -> Exact | None:
    """The number for each channel by the name of what is stored of it; None where one number is kept of several."""
    if not made[0].tensors or exact.equal(kept):
        return {}
    (use,) = made[0].tensors
    shape = made[1].arguments[use.role].shape
    alone = shape.numel() == 1
    if alone and bool((exact != exact[0]).any()):
        return None
    return {use.name: (exact[:1] if alone else exact).reshape(shape)}


def _line(side: Neighbourhood) -> tuple[KeptCall, Tensor, Tensor] | None:
    """The product of a side, and by which number of each channel it is multiplied and what is added behind it.

    None where what stands behind it depends on the inputs in another way.
    """
    if side.site is None or side.call is None:
        return None
    calls = [*side.between, (side.site, side.call)]
    first = next((k for k, each in enumerate(calls) if is_product(*each)), len(calls))
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


_AFFINE = {"add", "batch_norm", "div", "mul", "neg", "rsub", "sub"}


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
