"""Do a dumped tensor and one of the candidate's hold the same numbers, whatever order they lie in?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.align.layouts import Layout, layouts
from verifier.lockstep import meet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from verifier.records import Comparison

_MASK = 1e30  # beyond it a number stands for an infinity
_SUMS = 1e-12  # by which sums in float64 may be off where terms come in another order
_TRIED = 24  # unusual layouts
_FEW, _SHARE = 3, 0.05  # of elements, which are not the same to six digits by chance
_SAMPLE = 1 << 16  # elements that likeness is told from

Shape = tuple[int, ...]


class Mark(NamedTuple):
    """What is the same however a tensor is laid out: how many numbers, how many are finite, their sum and L2 norm.

    `varies` says that the finite numbers are not all one.
    """

    elements: int
    finite: int
    total: float
    size: float
    varies: bool


def mark(tensor: Tensor) -> Mark:
    """The mark of a tensor."""
    wide = torch.view_as_real(tensor).double() if tensor.is_complex() else tensor.double()
    numbers = wide[wide.isfinite() & (wide.abs() < _MASK)]
    if not numbers.numel():
        return Mark(tensor.numel(), 0, 0.0, 0.0, varies=False)
    low, high = numbers.aminmax()
    return Mark(
        tensor.numel(),
        numbers.numel(),
        float(numbers.sum()),
        float(torch.linalg.vector_norm(numbers)),
        varies=bool(low < high),
    )


def may_agree(one: Mark, two: Mark, limit: float) -> bool:
    """Whether two tensors can be within a relative L2 distance of each other (by the Cauchy-Schwarz inequality)."""
    if (one.elements, one.finite) != (two.elements, two.finite):
        return False
    slack = (limit + _SUMS) * max(one.size, two.size)
    return abs(one.size - two.size) <= slack and abs(one.total - two.total) <= slack * math.sqrt(
        one.finite or 1
    )


@cache
def fitting(shape: Shape, other: Shape) -> tuple[Layout, ...]:
    """The layouts that lead from one shape to another: the usual ones if any of these does, else others."""
    found: list[Layout] = []
    for layout in layouts(shape, other):
        if layout.usual or (not any(each.usual for each in found) and len(found) < _TRIED):
            found.append(layout)
    usual = [layout for layout in found if layout.usual]
    return tuple(_unlike(usual or found, shape, other))


@cache
def permuted(shape: Shape, other: Shape) -> tuple[Layout, ...]:
    """All layouts that lead from one shape to another, as kernels need them."""
    return tuple(_unlike(layouts(shape, other), shape, other))


def _unlike(found: Iterable[Layout], shape: Shape, other: Shape) -> list[Layout]:
    seen: dict[tuple[bool, Shape], Layout] = {}
    for layout in found:
        seen.setdefault((layout.finer, layout.moved(shape, other)), layout)
    return list(seen.values())


def distance(dumped: Tensor, tensor: Tensor, layout: Layout) -> Comparison | None:
    """How far the candidate's tensor, laid out as the dumped one, is from it."""
    return meet([dumped], [layout.back(tensor, dumped.shape)])[0].error


def partly(dumped: Tensor, tensor: Tensor, layout: Layout, limit: float) -> bool:
    """Whether so many numbers other than 0 agree within a relative distance that it cannot be chance."""
    laid = layout.back(tensor, dumped.shape).double()
    wide = dumped.double()
    numbers = wide.isfinite() & (wide.abs() < _MASK) & (wide != 0)
    size = float(wide[numbers].square().mean().sqrt()) if bool(numbers.any()) else 0.0
    alike = int((numbers & ((wide - laid).abs() <= limit * size)).sum())
    return alike >= max(_FEW, _SHARE * dumped.numel())


def likeness(dumped: Tensor, tensor: Tensor, layout: Layout) -> float:
    """The correlation of the two on a sample of elements; 0 where there is none."""
    laid = layout.back(tensor, dumped.shape).reshape(-1)
    step = max(1, laid.numel() // _SAMPLE)
    pair = torch.stack([dumped.reshape(-1)[::step].double(), laid[::step].double()])
    pair = pair[:, (pair.isfinite() & (pair.abs() < _MASK)).all(0)]
    if pair.shape[1] < 2:
        return 0.0
    found = float(torch.corrcoef(pair)[0, 1])
    return found if math.isfinite(found) else 0.0


@dataclass
class Conventions:
    """How tensors of so many dimensions are laid out in the dump and in the candidate, as content has shown."""

    votes: dict[tuple[int, int], list[tuple[str, Layout]]] = field(default_factory=dict)

    def vote(self, name: str, shape: Shape, other: Shape, layout: Layout) -> None:
        """Note a dumped tensor whose content has shown its layout."""
        self.votes.setdefault((len(shape), len(other)), []).append((name, layout))

    def between(self, shape: Shape, other: Shape) -> Layout | None:
        """The convention, if there is one and it leads from one shape to the other."""
        layout = self.order(shape, other)
        if layout is None:
            return None
        moved = layout.moved(shape, other) if _sized(layout, shape, other) else None
        return next((each for each in fitting(shape, other) if each.moved(shape, other) == moved), None)

    def borne_out(self, name: str, shape: Shape, other: Shape, layout: Layout) -> bool | None:
        """Whether an output may be laid out so: as it is, or as other tensors are. None where no other tells."""
        plain = [[size for size in each if size != 1] for each in (shape, other)]
        if layout.trivial and plain[0] == plain[1]:
            return True
        others = {
            sizes: [each for who, each in found if who != name or (each.trivial and sizes[0] == sizes[1])]
            for sizes, found in self.votes.items()
        }
        same = others.get((len(shape), len(other)))
        if same:
            most = _most(same)
            return most.order == layout.order or bool(kinds(most) & kinds(layout))
        return True if any(kinds(_most(each)) & kinds(layout) for each in others.values() if each) else None

    def order(self, shape: Shape, other: Shape) -> Layout | None:
        """The convention, whether or not the sizes allow it; None where there is none."""
        found = self.votes.get((len(shape), len(other)))
        return _most([layout for _, layout in found]) if found else None


def _most(found: Sequence[Layout]) -> Layout:
    """The layout that is there most often, the first of those that are as often."""
    return max(found, key=found.count)


def kinds(layout: Layout) -> frozenset[str]:
    """What an order of dimensions means, whatever their number; nothing of one that means nothing."""
    order, count = layout.order, len(layout.order)
    rest = tuple(range(count))
    found = {
        "batch and time": (1, 0, *rest[2:]),
        "channels first": (0, count - 1, *rest[1:-1]),
        "channels last": (0, *rest[2:], 1),
    }
    return frozenset(name for name, each in found.items() if order == each and order != rest)


def _sized(layout: Layout, shape: Shape, other: Shape) -> bool:
    return len(layout.order) == (len(other) if layout.finer else len(shape))
