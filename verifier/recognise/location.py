"""Where the elements lie that differ: samples, channels, borders, corners, every other pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.recognise.axes import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

NAMED = 3
DEEPEST_BORDER = 3
LARGEST_PERIOD = 4


def where_it_differs(differs: Tensor) -> Iterator[str]:
    """Statements on a mask with at least one true element, each only if something else is left out."""
    wrong, rank = int(differs.sum()), differs.ndim
    if wrong == differs.numel():
        return
    if wrong <= NAMED:
        places = ", ".join(as_text(place) for place in differs.nonzero().tolist())
        yield f"only at {places}" if rank else "differs"
        return
    for axis, noun in _axes(rank):
        slices = _along(differs, axis)
        if len(slices) < differs.shape[axis]:
            listed = ", ".join(map(str, slices[:NAMED])) + (", ..." if len(slices) > NAMED else "")
            yield f"only in {len(slices)} of {differs.shape[axis]} {noun} ({listed})"
    if rank >= 4:
        yield from _on_the_map(differs.reshape(-1, *differs.shape[-2:]).any(0))


def _axes(rank: int) -> tuple[tuple[int, str], ...]:
    if rank == 1:
        return ()
    if rank == 2:
        return ((1, "features"), (0, "samples"))
    if rank == 3:
        return ((2, "positions of dimension 2"), (1, "positions of dimension 1"), (0, "samples"))
    return ((1, "channels"), (0, "samples"))


def _along(differs: Tensor, axis: int) -> list[int]:
    rows = differs.movedim(axis, 0).reshape(differs.shape[axis], -1)
    found: list[int] = rows.any(1).nonzero().flatten().tolist()
    return found


def _on_the_map(seen: Tensor) -> Iterator[str]:
    """What a mask of height and width leaves out: the inside, all but the corners, or all but a grid."""
    height, width = seen.shape
    if bool(seen.all()) or min(height, width) < 2 * DEEPEST_BORDER:
        return
    for depth in range(1, DEEPEST_BORDER + 1):
        if not bool(seen[depth:-depth, depth:-depth].any()):
            yield _on_the_border(seen, depth)
            return
    grid = [_period(seen.any(dim), size) for dim, size in ((1, height), (0, width))]
    clauses = [
        f"every {_ordinal(period)} {noun}, from {start}"
        for (period, start), noun in zip(grid, ("row", "column"), strict=True)
        if period > 1
    ]
    if clauses:
        yield f"only in {' and '.join(clauses)}"


def _on_the_border(seen: Tensor, depth: int) -> str:
    within = "at" if depth == 1 else f"within {depth} pixels of"
    columns, rows = seen[:, depth:-depth], seen[depth:-depth]
    edges = {
        "top": columns[:depth],
        "bottom": columns[-depth:],
        "left": rows[:, :depth],
        "right": rows[:, -depth:],
    }
    hit = [name for name, part in edges.items() if bool(part.any())]
    if not hit:
        return f"only {within} the corners"
    if len(hit) == len(edges):
        return f"only {within} the border"
    return f"only {within} the {' and '.join(hit)} edge{'s' if len(hit) > 1 else ''}"


def _period(seen: Tensor, size: int) -> tuple[int, int]:
    """Every how many rows, and from which, if there are at least two; otherwise 1."""
    rows = seen.nonzero().flatten()
    for period in range(LARGEST_PERIOD, 1, -1):
        start = int(rows[0]) % period
        if len(rows) > 1 and size >= 2 * period and bool((rows % period == start).all()):
            return period, start
    return 1, 0


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
