"""Collectives that gradients go back through, as Megatron has them, and layers that are made of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from tests.mutants.shards.networks import Norm


def added(x: Tensor, group: Any = None) -> Tensor:
    """The sum over a group, of which autograd knows nothing."""
    x = x.detach().contiguous().clone()
    dist.all_reduce(x, group=group)
    return x


def joined(x: Tensor, axis: int, group: Any = None) -> Tensor:
    """The parts of a group along a dimension; they may be of several sizes."""
    sizes: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(sizes, tuple(x.shape), group=group)
    parts = [x.new_empty(size) for size in sizes]
    dist.all_gather(parts, x.detach().contiguous(), group=group)
    return torch.cat(parts, axis)


def chunk(x: Tensor, axis: int, group: Any = None) -> Tensor:
    """This rank's part."""
    return x.tensor_split(dist.get_world_size(group), axis)[dist.get_rank(group)].contiguous()


class _Pass(torch.autograd.Function):
    """Something forwards, something backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Any, back: Any) -> Any:
        ctx.back = back
        return there(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.back(gradients[0]), None, None


def _same(x: Tensor) -> Tensor:
    return x.view_as(x)


def copied(x: Tensor, group: Any = None) -> Any:
    """Megatron's f: itself, and backwards the sum."""
    return _Pass.apply(x, _same, lambda g: added(g, group))


def reduced(x: Tensor, group: Any = None) -> Any:
    """Megatron's g: the sum, and backwards itself."""
    return _Pass.apply(x, lambda t: added(t, group), _same)


def summed(x: Tensor, group: Any = None) -> Any:
    """The sum both ways: each rank does something else with it."""
    return _Pass.apply(x, lambda t: added(t, group), lambda g: added(g, group))


def split(x: Tensor, axis: int, group: Any = None) -> Any:
    """This rank's part, and backwards those of all."""
    return _Pass.apply(x, lambda t: chunk(t, axis, group), lambda g: joined(g, axis, group))


def gathered(x: Tensor, axis: int, group: Any = None, *, apart: bool = False) -> Any:
    """The parts of all, and backwards this rank's; summed before, where ranks do something else each with it."""
    return _Pass.apply(
        x,
        lambda t: joined(t, axis, group),
        lambda g: chunk(added(g, group) if apart else g, axis, group),
    )


def scattered(x: Tensor, axis: int, group: Any = None) -> Any:
    """This rank's part of the sum, and backwards those of all."""
    return _Pass.apply(x, lambda t: chunk(added(t, group), axis, group), lambda g: joined(g, axis, group))


def _part(whole: Tensor, axis: int, group: Any) -> nn.Parameter:
    return nn.Parameter(chunk(whole.detach(), axis, group).clone())


class Column(nn.Module):
    """A part of a linear layer's outputs."""

    def __init__(
        self, whole: nn.Linear, group: Any = None, *, back: bool = True, gather: bool = False
    ) -> None:
        super().__init__()
        self.weight, self.bias = _part(whole.weight, 0, group), _part(whole.bias, 0, group)
        self.group, self.back, self.gather = group, back, gather

    def forward(self, x: Tensor) -> Any:
        y = F.linear(copied(x, self.group) if self.back else x, self.weight, self.bias)
        return gathered(y, -1, self.group) if self.gather else y


class Row(nn.Module):
    """A part of a linear layer's inputs; `both` sums backwards, too, `scatter` leaves a part of the sequence."""

    def __init__(
        self, whole: nn.Linear, group: Any = None, *, both: bool = False, scatter: bool = False
    ) -> None:
        super().__init__()
        self.weight, self.bias = _part(whole.weight, 1, group), nn.Parameter(whole.bias.detach().clone())
        self.group, self.both, self.scatter = group, both, scatter

    def forward(self, x: Tensor) -> Any:
        y = F.linear(x, self.weight)
        if self.scatter:
            return scattered(y, 1, self.group) + self.bias
        return (summed if self.both else reduced)(y, self.group) + self.bias


class WideNorm(Norm):
    """A norm of what lies in parts on the ranks of a group."""

    def __init__(self, whole: Norm, group: Any = None, *, back: bool = True) -> None:
        super().__init__(1)
        self.weight = _part(whole.weight, 0, group)
        self.width, self.group, self.back = len(whole.weight), group, back

    def forward(self, x: Tensor) -> Any:
        squares = x.pow(2).sum(-1, keepdim=True)
        total = (summed if self.back else reduced)(squares, self.group)
        return x * torch.rsqrt(total / self.width + 1e-6) * self.weight


def of_parts(model: nn.Module) -> set[int]:
    """Which parameters are this rank's own part, by their identity."""
    found = set()
    for name, module in model.named_modules():
        own = isinstance(module, Column | WideNorm) or ".experts." in name
        for what, parameter in module.named_parameters(recurse=False):
            if own or (isinstance(module, Row) and what == "weight"):
                found.add(id(parameter))
    return found
