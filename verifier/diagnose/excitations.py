"""Inputs on which a site shows what those that were given did not reach, each made of a tensor that it was given."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.graph.tensors import once

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.graph.ranges import Range

Make = Callable[["Tensor", Sequence[float]], "Tensor"]
"""Makes a tensor of the same shape and dtype; the numbers are those among the site's settings."""


class Excitation(NamedTuple):
    """A way to make other inputs: its name, which completes "the baseline's tensors ...", and how."""

    name: str
    make: Make


def excited(tensor: Tensor, excitation: Excitation, numbers: Sequence[float], limits: Range) -> Tensor:
    """`tensor` as the excitation makes it, inside of `limits`.

    Numbers alone are changed: integers and truth values choose among other tensors, and a tensor with infinite
    numbers, or such as stand for them, is a mask.
    """
    if not is_excitable(tensor):
        return tensor
    made = excitation.make(once(tensor), numbers).clamp(limits.low, limits.high)
    return (made.round() if limits.whole else made).expand(tensor.shape)


def is_excitable(tensor: Tensor) -> bool:
    """Whether other numbers may stand in the place of a tensor's."""
    if not tensor.is_floating_point() or not tensor.numel():
        return False
    if tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
        return False
    tensor = once(tensor)
    if bool(((tensor == 0) | (tensor == 1)).all()):  # truth values, written as numbers
        return False
    return bool(tensor.abs().amax() < _MASK)  # false where it is NaN


_MASK = 1e30  # as `finfo.min` is: it stands for minus infinity


def _scaled(factor: float) -> Make:
    return lambda tensor, _: tensor * factor


def _shifted(deviations: float) -> Make:
    return lambda tensor, _: tensor + deviations * (size(tensor) or 1.0)


def size(tensor: Tensor) -> float:
    """The root mean square of a tensor's finite numbers; 0 where it holds none."""
    if not tensor.is_floating_point() or not tensor.numel():
        return 0.0
    return float(once(tensor).double().nan_to_num(0.0, 0.0, 0.0).square().mean().sqrt())


def _centred(tensor: Tensor, _: Sequence[float]) -> Tensor:
    """Both signs: a tensor of positive numbers less their mean."""
    return tensor - tensor.mean()


def _spread(tensor: Tensor, numbers: Sequence[float]) -> Tensor:
    """Numbers on both sides of every bound, and evenly from far below all of them to far above."""
    bounds = sorted({0.0, *numbers})
    near = [(a + b) / 2 for a, b in itertools.pairwise(bounds)]
    for bound in bounds:  # never the bound itself: where an operator jumps, rounding decides
        step = 1e-3 * max(1.0, abs(bound))
        near += [bound - step, bound + step, bound - 0.5, bound + 0.5, step - bound]
    far = 2 * max(_FAR, *(abs(bound) for bound in bounds))
    count = tensor.numel()
    even = torch.linspace(-far, far, max(1, count // 2), dtype=tensor.dtype, device=tensor.device)
    close = tensor.new_tensor(near).repeat(math.ceil(count / len(near)) + 1)
    mixed = torch.stack([even, close[: even.numel()]], dim=1).flatten()[:count]
    if mixed.numel() < count:  # an odd number of them
        mixed = torch.cat([mixed, mixed.new_full((count - mixed.numel(),), far)])
    # Neighbours would hold neighbouring numbers, and a window over them no extremes: a stride mixes them.
    return mixed[_mixing(count, tensor.device)].reshape(tensor.shape)


_FAR = 10.0


def _mixing(count: int, device: torch.device) -> Tensor:
    """All numbers below `count` in an order that leaves no two neighbours together; the same every time."""
    stride = next(k for k in range(max(1, int(count * 0.618)), count + 2) if math.gcd(k, count) == 1)
    return torch.arange(count, device=device) * stride % count


def _mixed_with(*values: float) -> Make:
    """Every third number another."""

    def make(tensor: Tensor, _: Sequence[float]) -> Tensor:
        made = tensor.flatten().clone()
        for k, value in enumerate(values):
            made[3 * k :: 3 * len(values)] = value
        return made.reshape(tensor.shape)

    return make


EXCITATIONS: tuple[Excitation, ...] = (
    Excitation("scaled by 10", _scaled(10)),
    Excitation("scaled by 1000", _scaled(1000)),
    Excitation("scaled by 0.1", _scaled(0.1)),
    Excitation("negated", _scaled(-1)),
    Excitation("negated and scaled by 10", _scaled(-10)),
    Excitation("shifted up by three times their size", _shifted(3)),
    Excitation("shifted down by three times their size", _shifted(-3)),
    Excitation("less their mean", _centred),
    Excitation("replaced by numbers on both sides of every bound", _spread),
    Excitation("replaced by zeros", lambda tensor, _: torch.zeros_like(tensor)),
)

FAR = tuple(
    each
    for each in EXCITATIONS
    if each.name
    in {
        "scaled by 1000",
        "scaled by 0.1",
        "negated and scaled by 10",
        "replaced by numbers on both sides of every bound",
        "replaced by zeros",
    }
)
"""Of these the ones that reach farthest: large and small, both signs, both sides of every bound, and nothing."""

TELLING_AFFINE = tuple(
    each
    for each in EXCITATIONS
    if each.name in {"replaced by numbers on both sides of every bound", "replaced by zeros"}
)
"""Of these the ones on which two affine functions agree only if they are one."""

NONFINITE: tuple[Excitation, ...] = (
    Excitation("with NaN among them", _mixed_with(math.nan)),
    Excitation("with infinities among them", _mixed_with(math.inf, -math.inf)),
)
"""For one operator in two settings: others treat what is not finite in ways that nobody meant to be alike."""


def enlarged(tensor: Tensor, _: Sequence[float] = ()) -> Tensor:
    """One more column and one more row, of numbers that are there already."""
    wider = torch.cat([tensor, tensor[..., :1]], dim=-1)
    return torch.cat([wider, wider[..., -1:, :]], dim=-2)


LARGER = Excitation("one row and one column larger", enlarged)
"""Not one of those above: settings that are computed from a size differ there, and rightly so."""
