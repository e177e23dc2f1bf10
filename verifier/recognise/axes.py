"""Names for the axes of a parameter, and the orders they can stand in."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES: dict[int, tuple[str, ...]] = {
    1: ("elements",),
    2: ("rows", "columns"),
    3: ("output channels", "input channels", "kernel positions"),
    4: ("output channels", "input channels", "kernel rows", "kernel columns"),
    5: ("output channels", "input channels", "kernel planes", "kernel rows", "kernel columns"),
}
MOST_AXES = 5  # have 119 other orders


def axis_name(axis: int, rank: int) -> str:
    """What a parameter's axis holds, in the plural: a guess from the rank, as torch lays weights out."""
    return NAMES[rank][axis] if rank in NAMES else f"slices along axis {axis}"


def along(axes: Sequence[int], rank: int, verb: str) -> str:
    """A clause about axes: "has kernel rows and kernel columns exchanged"."""
    if verb == "exchanged" and rank == 2:
        return "is transposed"
    if verb == "exchanged" and len(axes) > 2:
        return "has its axes in another order"
    return f"has {' and '.join(axis_name(axis, rank) for axis in axes)} {verb}"


def as_text(numbers: Sequence[int]) -> str:
    """A coordinate or shape: "(3, 7)", and "(3)" for one number."""
    return f"({', '.join(map(str, numbers))})"


@functools.lru_cache(maxsize=256)
def axis_orders(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Orders of axes that bring `source` to the shape `target` and move data, those that move fewest first."""
    rank = len(source)
    if rank != len(target) or not 2 <= rank <= MOST_AXES or sorted(source) != sorted(target):
        return ()
    long = [axis for axis in range(rank) if source[axis] > 1]
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for axes in sorted(itertools.permutations(range(rank)), key=_moved):
        order_of_long = tuple(axis for axis in axes if axis in long)
        fits = all(source[axis] == size for axis, size in zip(axes, target, strict=True))
        if fits and order_of_long != tuple(long):
            found.setdefault(order_of_long, axes)  # axes of size 1 may stand anywhere
    return tuple(found.values())


def _moved(axes: tuple[int, ...]) -> int:
    return sum(i != axis for i, axis in enumerate(axes))
