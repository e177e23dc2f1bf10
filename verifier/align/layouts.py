"""One tensor laid out in two ways: NCHW and NHWC, tokens in a row or on a grid, dimensions exchanged."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

_MOST = 6  # dimensions, which have 720 orders

# Orders that models use, tried before others where the shapes alone allow several (height and width being equal).
_USUAL = (
    (1, 0),
    (0, 2, 3, 1),
    (0, 3, 1, 2),
    (0, 2, 1),
    (1, 0, 2),
    (0, 2, 1, 3),
    (0, 2, 3, 4, 1),
    (0, 4, 1, 2, 3),
)


class Layout(NamedTuple):
    """From the baseline's tensor to the candidate's: its dimensions in another order, some of them joined.

    The dimensions that change places are the baseline's own, joined afterwards (`finer` false), or those of the
    candidate's tensor, which the baseline has joined. Sizes are not kept: they grow with the batch.
    """

    order: tuple[int, ...]
    finer: bool = False

    def forth(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """The baseline's `tensor` as the candidate lays it out, in `shape`; a view if possible.

        Raises:
            RuntimeError: The sizes do not go together.
        """
        if self.finer:
            tensor = tensor.reshape([shape[k] for k in self._back])
        return tensor.permute(self.order).reshape(tuple(shape))

    def back(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """The candidate's `tensor` as the baseline lays it out, in `shape`; a view if possible.

        Raises:
            RuntimeError: The sizes do not go together.
        """
        if not self.finer:
            tensor = tensor.reshape([shape[k] for k in self.order])
        return tensor.permute(self._back).reshape(tuple(shape))

    @property
    def _back(self) -> tuple[int, ...]:
        return tuple(sorted(range(len(self.order)), key=self.order.__getitem__))

    @property
    def trivial(self) -> bool:
        """Whether the elements lie in the same order, so that only the shape may differ."""
        return self.order == tuple(range(len(self.order)))

    @property
    def usual(self) -> bool:
        """Whether models use it often: nothing changes places, or as in NCHW and NHWC, or batch and time do."""
        return self.trivial or self.order in _USUAL

    def moved(self, shape: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
        """Which dimensions of more than one element come in which order: two layouts may do the same to a tensor."""
        sizes = other if self.finer else [shape[k] for k in self.order]
        return tuple(k for k, size in zip(self.order, sizes, strict=True) if size != 1)

    @property
    def text(self) -> str:
        """For reports: `permute(0, 2, 3, 1)`, `reshape`."""
        return "reshape" if self.trivial else f"permute({', '.join(map(str, self.order))})"


def layouts(shape: Sequence[int], other: Sequence[int]) -> Iterator[Layout]:
    """All ways in which a tensor of `shape` may be laid out in the shape `other`, the usual ones first.

    Dimensions may change places, and neighbours may be joined on one of the two sides.
    """
    shape, other = tuple(shape), tuple(other)
    most = max(len(shape), len(other))
    if math.prod(shape) != math.prod(other) or 0 in shape or not 0 < most <= _MOST:
        return
    if len(other) <= len(shape):
        for order in _orders(len(shape)):
            if _joins([shape[k] for k in order], other):
                yield Layout(order)
    else:
        for order in _orders(len(other)):
            layout = Layout(order, finer=True)
            if _joins([other[k] for k in layout._back], shape):
                yield layout


def _orders(count: int) -> Iterator[tuple[int, ...]]:
    yield tuple(range(count))
    usual = [order for order in _USUAL if len(order) == count]
    yield from usual
    yield from (order for order in itertools.permutations(range(count)) if order not in usual)


def _joins(finer: Sequence[int], coarser: Sequence[int]) -> bool:
    """Whether neighbours among the sizes `finer` can be joined to give `coarser`."""
    position = 0
    for size in coarser:
        product = 1
        while product < size and position < len(finer):
            product *= finer[position]
            position += 1
        if product != size:
            return False
        if size == 1 and position < len(finer) and finer[position] == 1:
            position += 1
    return all(size == 1 for size in finer[position:])
