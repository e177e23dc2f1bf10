"""Slices of a tensor found among those of another, within rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_LOOSE = 1e3  # the largest error is that much beyond the root of their mean square, of which budgets are
_LEAST = 1e-10  # of the tensor's own size: what slices that are told apart differ by
_CHUNK = 1 << 22  # distances that are held at once


def tolerance(whole: Tensor, limit: float) -> float:
    """By how much single numbers may be off, from the relative L2 error that is allowed."""
    size = float(whole.square().mean().sqrt()) if whole.numel() else 0.0
    return max(_LOOSE * limit, _LEAST) * (size or 1.0)


def close(one: Tensor, two: Tensor, slack: float) -> bool:
    """Whether all numbers are within so much of each other; what is not finite must be the same."""
    if one.shape != two.shape:
        return False
    return bool(torch.isclose(one, two, rtol=0.0, atol=slack, equal_nan=True).all())


@dataclass(frozen=True)
class Matched:
    """Which slices of a whole a piece holds: `index` has -1 where none, and the first of those that agree."""

    index: Tensor
    certain: bool

    @property
    def complete(self) -> bool:
        """Whether each slice of the piece is one of the whole's."""
        return not bool((self.index < 0).any())


def matched(whole: Tensor, piece: Tensor, axis: int, slack: float) -> Matched:
    """Find each slice of a piece among those of a whole, along a dimension; the others have the whole's sizes."""
    held = _slices(piece, axis)
    known = _slices(whole, axis)
    none = torch.full((held.shape[0],), -1)
    if held.shape[1] != known.shape[1] or not held.numel() or not known.numel():
        return Matched(none, certain=True)
    generator = torch.Generator().manual_seed(0)
    look = torch.randn(held.shape[1], generator=generator, dtype=torch.float64)
    seen, looked = held.nan_to_num() @ look, known.nan_to_num() @ look
    # What numbers that are off by `slack` may add up to, with room for the normal's tail, and the sums' own rounding.
    room = slack * held.shape[1] + _LEAST * float(looked.abs().amax())
    index, certain = none, True
    each = max(1, _CHUNK // max(1, len(looked)))
    for start in range(0, len(seen), each):
        near = (seen[start : start + each, None] - looked[None, :]).abs() <= room
        for row, column in _pairs(near, start):
            options = [c for c in column if close(held[row], known[c], slack)]
            if options:
                certain &= len(options) == 1
                index[row] = _next(index, row, options)
    return Matched(index, certain)


def _pairs(near: Tensor, start: int) -> Iterator[tuple[int, list[int]]]:
    for k, row in enumerate(near):
        yield start + k, row.nonzero().flatten().tolist()


def _next(index: Tensor, row: int, options: list[int]) -> int:
    """Of slices that hold the same, the one that goes on from the slice before; else the first that is not taken."""
    follows = int(index[row - 1]) + 1 if row else 0
    if follows in options:
        return follows
    taken = set(index[:row].tolist())
    return next((each for each in options if each not in taken), options[0])


def _slices(tensor: Tensor, axis: int) -> Tensor:
    size = tensor.shape[axis]
    others = torch.Size([*tensor.shape[:axis], *tensor.shape[axis + 1 :]]).numel()
    return tensor.movedim(axis, 0).reshape(size, others)
