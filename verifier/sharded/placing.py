"""How the tensors that several processes hold of one make it up: told by their numbers alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from verifier.sharded.slices import close, matched, tolerance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

Kind = Literal["replica", "shard", "sum", "mean", "max"]


@dataclass(frozen=True)
class Placement:
    """What pieces are of a whole, piece by piece: copies, or slices along `axis`, or terms.

    `indices` has for each piece which slices of the whole it holds, in order; None of a kind without an axis, and of
    copies in the whole's own order. `shape` is the whole's as the slices are counted in, where that is not its own:
    all dimensions but the last in one. `usual` says that the pieces are in the order of their ranks, each in one
    stretch, and copies in the whole's order; `certain` that no other order explains the numbers as well. Where
    several processes have the same, as on a mesh of two dimensions, `parts` has which part each piece is. `second` is
    another dimension along which the pieces are slices too.
    """

    kind: Kind
    axis: int | None = None
    indices: tuple[Tensor, ...] | None = None
    shape: tuple[int, ...] | None = None
    usual: bool = True
    certain: bool = True
    order: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    second: tuple[int, tuple[Tensor, ...]] | None = None

    @property
    def text(self) -> str:
        """For people and records: `replica`, `shard(1)`, `shard(1) in the order 1, 0`, `partial sum`."""
        copies = len(self.parts) // len(set(self.parts)) if self.parts else 1
        return self._text if copies == 1 else f"{self._text}, {copies} copies"

    @property
    def _text(self) -> str:
        if self.kind in ("sum", "mean", "max"):
            return {"sum": "partial sum", "mean": "partial mean", "max": "partial maximum"}[self.kind]
        where = f"({self.axis})" if self.shape is None else " of rows"
        text = "replica" if self.kind == "replica" else f"shard{where}"
        if self.second is not None:
            text += f", shard({self.second[0]})"
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
    found = _placed(whole, pieces, slack)
    if found is None and len(pieces) > 2 and (parts := _alike(pieces, slack)):
        firsts = [pieces[parts.index(k)] for k in range(max(parts) + 1)]
        single = _placed(whole, firsts, slack)
        found = None if single is None else replace(single, parts=parts)
    return found


def _alike(pieces: Sequence[Tensor], slack: float) -> tuple[int, ...]:
    """Which pieces are the same, by the number of the first such, if all are there equally often; else nothing."""
    firsts: list[Tensor] = []
    parts: list[int] = []
    for piece in pieces:
        known = next((k for k, each in enumerate(firsts) if close(piece, each, slack)), len(firsts))
        if known == len(firsts):
            firsts.append(piece)
        parts.append(known)
    often = {parts.count(k) for k in range(len(firsts))}
    return tuple(parts) if len(often) == 1 and often != {1} else ()


def _placed(whole: Tensor, pieces: Sequence[Tensor], slack: float) -> Placement | None:
    shapes = {tuple(piece.shape) for piece in pieces}
    if shapes == {tuple(whole.shape)}:
        return _of_full_size(whole, pieces, slack)
    axes = _axes(whole, pieces)
    for axis in axes:
        found = _along(whole, pieces, axis, slack)
        if found is not None:
            return found
    return None if axes else _grid(whole, pieces, slack) or _flattened(whole, pieces, slack)


def _grid(whole: Tensor, pieces: Sequence[Tensor], slack: float) -> Placement | None:
    """Slices along two dimensions at once, in the order of a mesh's rows or columns."""
    count = len(pieces)
    if any(piece.dim() != whole.dim() for piece in pieces):
        return None
    axes = [k for k in range(whole.dim()) if any(piece.shape[k] != whole.shape[k] for piece in pieces)]
    if len(axes) != 2:
        return None
    for (one, two), inner in itertools.product((axes, axes[::-1]), range(2, count // 2 + 1)):
        rows, columns = (
            [piece.shape[one] for piece in pieces[::inner]],
            [p.shape[two] for p in pieces[:inner]],
        )
        if count % inner or (sum(rows), sum(columns)) != (whole.shape[one], whole.shape[two]):
            continue
        firsts, seconds = list(_stretches(rows)), list(_stretches(columns))
        places = [divmod(k, inner) for k in range(count)]
        second = (two, tuple(seconds[j] for _, j in places))
        found = Placement("shard", one, tuple(firsts[i] for i, _ in places), second=second)
        cuts = cut(found, whole, count)
        if all(close(piece, part, slack) for piece, part in zip(pieces, cuts, strict=True)):
            return replace(found, certain=not _exchangeable(pieces, slack))
    return None


def join(placed: Placement, whole: Tensor, pieces: Sequence[Tensor]) -> Tensor | None:
    """The tensor that the pieces make up, in the whole's shape; of copies the one farthest from it.

    None where the pieces do not fit, as those of another run may not.
    """
    if placed.parts:
        sets: list[list[Tensor]] = [[] for _ in range(len(placed.parts) // len(set(placed.parts)))]
        for part in range(max(placed.parts) + 1):
            for kept, k in zip(sets, (k for k, p in enumerate(placed.parts) if p == part), strict=True):
                kept.append(pieces[k])
        single = replace(placed, parts=())
        joined = [each for kept in sets if (each := join(single, whole, kept)) is not None]
        return farthest(whole, joined) if len(joined) == len(sets) else None
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
    if placed.second is not None:
        return _from_grid(placed, whole, pieces)
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


def _from_grid(placed: Placement, whole: Tensor, pieces: Sequence[Tensor]) -> Tensor | None:
    axis, (second, others) = placed.axis or 0, placed.second or (0, ())
    made = torch.full_like(whole, torch.nan)
    laid = made.movedim((axis, second), (0, 1))
    for piece, index, other in zip(pieces, placed.indices or (), others, strict=True):
        if piece.dim() != whole.dim() or (piece.shape[axis], piece.shape[second]) != (len(index), len(other)):
            return None
        laid[index[:, None], other[None, :]] = piece.movedim((axis, second), (0, 1))
    return made


def cut(placed: Placement, whole: Tensor, count: int) -> list[Tensor]:
    """What each of `count` pieces has of a whole, by a placement; of a sum the first has all."""
    if placed.parts:
        single = cut(replace(placed, parts=()), whole, len(set(placed.parts)))
        return [single[part] for part in placed.parts]
    if placed.second is not None:
        second, others = placed.second
        return [
            whole.index_select(placed.axis or 0, index).index_select(second, other)
            for index, other in zip(placed.indices or (), others, strict=True)
        ]
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
    held = [tuple(index.tolist()) for index in indices if len(index)]
    if len(set(torch.cat(indices).tolist())) != size or len(set(held)) < len(held):
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


def _stretches(sizes: Sequence[int]) -> Iterator[Tensor]:
    ends = list(itertools.accumulate(sizes))
    for size, end in zip(sizes, ends, strict=True):
        yield torch.arange(end - size, end)


def _exchangeable(pieces: Sequence[Tensor], slack: float) -> bool:
    return any(one.numel() > 0 and close(one, two, slack) for one, two in itertools.combinations(pieces, 2))


def _laid(piece: Tensor, shape: tuple[int, ...], axis: int, count: int) -> Tensor | None:
    wanted = (*shape[:axis], count, *shape[axis + 1 :])
    return piece.reshape(wanted) if piece.numel() == torch.Size(wanted).numel() else None
