"""How the tensors that several processes hold of one make it up: told by their numbers alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

Kind = Literal["replica", "shard", "sum", "mean", "max"]

_LOOSE = 1e3  # the largest error is that much beyond the root of their mean square, of which budgets are
_LEAST = 1e-10  # of the tensor's own size: what slices that are told apart differ by
_CHUNK = 1 << 22  # distances that are held at once


@dataclass(frozen=True)
class Placement:
    """What pieces are of a whole, piece by piece: copies, or slices along `axis`, or terms.

    `indices` has for each piece which slices of the whole it holds, in order; None of a kind without an axis, and of
    copies in the whole's own order. `shape` is the whole's as the slices are counted in, where that is not its own:
    all dimensions but the last in one. `usual` says that the pieces are in the order of their ranks, each in one
    stretch, and copies in the whole's order; `certain` that no other order explains the numbers as well.
    """

    kind: Kind
    axis: int | None = None
    indices: tuple[Tensor, ...] | None = None
    shape: tuple[int, ...] | None = None
    usual: bool = True
    certain: bool = True
    order: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """For people and records: `replica`, `shard(1)`, `shard(1) in the order 1, 0`, `partial sum`."""
        if self.kind in ("sum", "mean", "max"):
            return {"sum": "partial sum", "mean": "partial mean", "max": "partial maximum"}[self.kind]
        where = f"({self.axis})" if self.shape is None else " of rows"
        text = "replica" if self.kind == "replica" else f"shard{where}"
        if not self.usual:
            if self.kind == "replica":
                text += f", permuted{where}"
            elif self.order:
                text += f" in the order {', '.join(map(str, self.order))}"
            else:
                text += ", interleaved"
        return text if self.certain else f"{text} (ambiguous)"

    @property
    def reduced(self) -> bool:
        """Whether each process has the numbers themselves, and not terms of them."""
        return self.kind in ("replica", "shard")


def place(whole: Tensor, pieces: Sequence[Tensor], limit: float) -> Placement | None:
    """What pieces are of a whole; None if no placement explains their numbers.

    Args:
        whole: The baseline's tensor, float64.
        pieces: What each process has, in the order of ranks, float64.
        limit: The relative L2 error that rounding explains.
    """
    if not pieces:
        return None
    slack = tolerance(whole, limit)
    shapes = {tuple(piece.shape) for piece in pieces}
    if shapes == {tuple(whole.shape)}:
        return _of_full_size(whole, pieces, slack)
    axes = _axes(whole, pieces)
    for axis in axes:
        found = _along(whole, pieces, axis, slack)
        if found is not None:
            return found
    return None if axes else _flattened(whole, pieces, slack)


def tolerance(whole: Tensor, limit: float) -> float:
    """By how much single numbers may be off, from the relative L2 error that is allowed."""
    size = float(whole.square().mean().sqrt()) if whole.numel() else 0.0
    return max(_LOOSE * limit, _LEAST) * (size or 1.0)


def close(one: Tensor, two: Tensor, slack: float) -> bool:
    """Whether all numbers are within so much of each other; what is not finite must be the same."""
    if one.shape != two.shape:
        return False
    return bool(torch.isclose(one, two, rtol=0.0, atol=slack, equal_nan=True).all())


def join(placed: Placement, whole: Tensor, pieces: Sequence[Tensor]) -> Tensor | None:
    """The tensor that the pieces make up, in the whole's shape; of copies the one farthest from it.

    None where the pieces do not fit, as those of another run may not.
    """
    if placed.kind == "sum":
        return sum_of(pieces)
    if placed.kind == "mean":
        return sum_of(pieces) / len(pieces)
    if placed.kind == "max":
        return torch.stack(list(pieces)).amax(0)
    if placed.indices is None:
        return farthest(whole, pieces)
    shape = placed.shape or tuple(whole.shape)
    axis = placed.axis or 0
    made = [torch.full(shape, torch.nan, dtype=whole.dtype, device=whole.device)]
    if placed.kind == "replica":
        made *= len(pieces)
        made = [each.clone() for each in made]
    for k, (piece, index) in enumerate(zip(pieces, placed.indices, strict=True)):
        laid = _laid(piece, shape, axis, len(index))
        if laid is None:
            return None
        made[k if placed.kind == "replica" else 0].index_copy_(axis, index.to(whole.device), laid)
    joined = [each.reshape(whole.shape) for each in made]
    return farthest(whole, joined)


def cut(placed: Placement, whole: Tensor, count: int) -> list[Tensor]:
    """What each of `count` pieces has of a whole, by a placement; of a sum the first has all."""
    if placed.kind == "sum":
        return [whole, *(torch.zeros_like(whole) for _ in range(count - 1))]
    if placed.indices is None:
        return [whole] * count
    laid = whole.reshape(placed.shape or tuple(whole.shape))
    return [laid.index_select(placed.axis or 0, index) for index in placed.indices]


def by_shape(whole: Tensor, pieces: Sequence[Tensor]) -> Placement | None:
    """How pieces whose numbers tell nothing would be placed, from their shapes: copies, or in the order of ranks."""
    if all(piece.shape == whole.shape for piece in pieces):
        return Placement("replica", certain=False)
    for axis in _axes(whole, pieces):
        sizes = [piece.shape[axis] for piece in pieces]
        if sum(sizes) == whole.shape[axis]:
            return Placement("shard", axis, tuple(_stretches(sizes)), certain=False)
    return None


def farthest(whole: Tensor, pieces: Sequence[Tensor]) -> Tensor:
    """Of several tensors of the whole's shape the one that differs most; what is not finite differs most."""

    def distance(piece: Tensor) -> float:
        apart = (piece - whole).abs()
        apart = torch.where((piece == whole) | (piece.isnan() & whole.isnan()), 0.0, apart)
        return float(apart.nan_to_num(nan=torch.inf).amax()) if apart.numel() else 0.0

    return max(pieces, key=distance)


def sum_of(pieces: Sequence[Tensor]) -> Tensor:
    """Their sum, in the order of ranks."""
    total = pieces[0].clone()
    for piece in pieces[1:]:
        total += piece
    return total


def _of_full_size(whole: Tensor, pieces: Sequence[Tensor], slack: float) -> Placement | None:
    same = all(close(piece, whole, slack) for piece in pieces)
    if same:
        return Placement("replica", certain=len(pieces) == 1 or not close(2 * whole, whole, slack))
    if len(pieces) > 1:
        if close(sum_of(pieces), whole, slack * len(pieces)):
            return Placement("sum")
        if not any(close(piece, pieces[0], slack) for piece in pieces[1:]):
            if close(sum_of(pieces) / len(pieces), whole, slack):
                return Placement("mean")
            if close(torch.stack(list(pieces)).amax(0), whole, slack):
                return Placement("max")
    for axis in range(whole.dim()):
        found = [matched(whole, piece, axis, slack) for piece in pieces]
        if all(each.complete and len(each.index) == whole.shape[axis] for each in found):
            certain = all(each.certain for each in found)
            indices = tuple(each.index for each in found)
            return Placement("replica", axis, indices, usual=False, certain=certain)
    return None


def _axes(whole: Tensor, pieces: Sequence[Tensor]) -> list[int]:
    """The dimension along which the pieces are smaller or larger; nothing if they differ in several."""
    if any(piece.dim() != whole.dim() for piece in pieces):
        return []
    differing = {
        axis
        for piece in pieces
        for axis, (one, two) in enumerate(zip(piece.shape, whole.shape, strict=True))
        if one != two
    }
    return list(differing) if len(differing) == 1 else []


def _along(
    whole: Tensor,
    pieces: Sequence[Tensor],
    axis: int,
    slack: float,
    shape: tuple[int, ...] | None = None,
) -> Placement | None:
    size = whole.shape[axis]
    sizes = [piece.shape[axis] for piece in pieces]
    if sum(sizes) == size:
        stretches = list(_stretches(sizes))
        if all(close(p, whole.index_select(axis, s), slack) for p, s in zip(pieces, stretches, strict=True)):
            certain = not _exchangeable(pieces, slack)
            return Placement("shard", axis, tuple(stretches), shape, certain=certain)
    found = [matched(whole, piece, axis, slack) for piece in pieces]
    if not all(each.complete for each in found):
        return None
    indices = tuple(each.index for each in found)
    if len(set(torch.cat(indices).tolist())) != size:
        return None
    starts = [int(index[0]) if len(index) else size for index in indices]
    together = all(bool((index.diff() == 1).all()) for index in indices)
    order = tuple(sorted(range(len(pieces)), key=starts.__getitem__)) if together else ()
    usual = together and order == tuple(range(len(pieces)))
    certain = all(each.certain for each in found)
    return Placement(
        "shard", axis, indices, shape, usual=usual, certain=certain, order=() if usual else order
    )


def _flattened(whole: Tensor, pieces: Sequence[Tensor], slack: float) -> Placement | None:
    """Where dimensions come in another number: rows of one length in any order, or slices of all rows."""
    if whole.dim() < 1 or any(piece.dim() < 1 for piece in pieces):
        return None
    last = whole.shape[-1]
    rows = whole.reshape(-1, last)
    flat = tuple(rows.shape)
    if all(piece.shape[-1] == last for piece in pieces):
        laid = [piece.reshape(-1, last) for piece in pieces]
        if all(piece.shape == rows.shape for piece in laid):
            found = [matched(rows, piece, 0, slack) for piece in laid]
            if all(each.complete for each in found):
                indices = tuple(each.index for each in found)
                usual = all(bool((index == torch.arange(len(index))).all()) for index in indices)
                certain = all(each.certain for each in found)
                return Placement("replica", 0, indices, flat, usual=usual, certain=certain)
            if len(laid) > 1 and close(sum_of(laid).reshape(whole.shape), whole, slack):
                return None
        return _along(rows, laid, 0, slack, flat)
    if all(piece.numel() == rows.shape[0] * piece.shape[-1] for piece in pieces):
        laid = [piece.reshape(rows.shape[0], -1) for piece in pieces]
        return _along(rows, laid, 1, slack, flat)
    return None


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


def _stretches(sizes: Sequence[int]) -> Iterator[Tensor]:
    ends = list(itertools.accumulate(sizes))
    for size, end in zip(sizes, ends, strict=True):
        yield torch.arange(end - size, end)


def _exchangeable(pieces: Sequence[Tensor], slack: float) -> bool:
    return any(one.numel() > 0 and close(one, two, slack) for one, two in itertools.combinations(pieces, 2))


def _laid(piece: Tensor, shape: tuple[int, ...], axis: int, count: int) -> Tensor | None:
    wanted = (*shape[:axis], count, *shape[axis + 1 :])
    return piece.reshape(wanted) if piece.numel() == torch.Size(wanted).numel() else None
