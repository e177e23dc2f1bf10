"""In which order, and in which pieces, the elements of two tensors are read."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

Where: TypeAlias = "tuple[int | slice, ...]"


@dataclass(frozen=True, slots=True)
class Walk:
    """Two tensors as a sequence of pieces, visited in the order of the `sizes` given.

    `sizes` are the dimensions in walking order and `strides` their row-major strides in the logical shape:
    one dimension of stride 1 where the walk is row-major. In a dense walk `baseline` and `candidate` are flat
    and contiguous views, in memory order; in any other they are the tensors as they came.
    """

    baseline: Tensor
    candidate: Tensor
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dense: bool

    @property
    def row_major(self) -> bool:
        """Whether elements are visited in the order of their logical numbers."""
        return len(self.sizes) == 1

    def in_parts(self, parts: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """`sizes` and `strides` where each element is `parts` numbers that follow each other."""
        if parts == 1 or self.row_major:
            return (self.sizes if parts == 1 else (parts * self.sizes[0],)), self.strides
        return (*self.sizes, parts), (*(parts * stride for stride in self.strides), 1)

    def pieces(self, limit: int) -> Iterator[tuple[int, Where]]:
        """Pieces of at most `limit` elements: where each starts in the walk, and the index selecting it."""
        return slices(tuple(self.baseline.shape), limit)


def plan(baseline: Tensor, candidate: Tensor) -> Walk:
    """The walk over two tensors of equal shape: memory order where both are dense alike, else row-major."""
    n = baseline.numel()
    if baseline.is_contiguous() and candidate.is_contiguous():
        return Walk(baseline.view(-1), candidate.view(-1), (n,), (1,), dense=True)
    order = memory_order(baseline)
    if order is None or order != memory_order(candidate):
        return Walk(baseline, candidate, (n,), (1,), dense=False)
    shape = tuple(baseline.shape)
    logical = row_major_strides(shape)
    rest = [k for k in range(len(shape)) if k not in order]  # of size 1: they may stand anywhere
    moved = (*order, *rest)
    return Walk(
        baseline.permute(moved).reshape(-1),
        candidate.permute(moved).reshape(-1),
        tuple(shape[k] for k in order),
        tuple(logical[k] for k in order),
        dense=True,
    )


def memory_order(tensor: Tensor) -> tuple[int, ...] | None:
    """The dimensions larger than 1, outermost in memory first; None if the tensor has gaps or overlaps."""
    sized = sorted((-stride, k) for k, stride in enumerate(tensor.stride()) if tensor.shape[k] > 1)
    expected = 1
    for negative, k in reversed(sized):
        if -negative != expected:
            return None
        expected *= tensor.shape[k]
    return tuple(k for _, k in sized)


def slices(shape: Sequence[int], limit: int) -> Iterator[tuple[int, Where]]:
    """Row-major pieces of at most `limit` elements: where each starts, and the index that selects it."""
    if 0 in shape:
        return
    inner = row_major_strides(shape)
    axis = next((k for k, size in enumerate(inner) if size <= limit), None)
    if axis is None:  # no dimensions: a single element
        yield 0, ()
        return
    step = max(1, limit // inner[axis])
    for lead in itertools.product(*(range(size) for size in shape[:axis])):
        base = sum(index * stride for index, stride in zip(lead, inner, strict=False))
        for start in range(0, shape[axis], step):
            yield base + start * inner[axis], (*lead, slice(start, start + step))


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The stride, in elements, of each dimension of a contiguous tensor of this shape."""
    return tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))


def coordinate(number: int, shape: Sequence[int], offset: int) -> tuple[int, ...]:
    """The multi-index of the row-major `number` in `shape`, with `offset` added along its first dimension."""
    index = []
    for size in reversed(shape):
        number, remainder = divmod(number, size)
        index.append(remainder)
    if index:
        index[-1] += offset
    return tuple(reversed(index))
