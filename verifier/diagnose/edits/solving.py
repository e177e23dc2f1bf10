"""Numbers solved for by least squares, and the number somebody would have written for each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

_ITERATIONS = 16
_STEP = 1e-5
_SOLVED = 1e-13  # relative; what is left is rounding
_SOON, _GAIN = (
    3,
    0.9,
)  # after four steps at most this share of the error may be left, or something else is wrong


def solve(residual: Callable[[Sequence[float]], Tensor | None], start: Sequence[float]) -> list[float] | None:
    """The numbers at which `residual` vanishes, by Gauss and Newton's method with central differences in float64.

    Args:
        residual: The error at given numbers, as a flat tensor; None where there is none.
        start: Where to begin.

    Returns:
        None where the error cannot be brought down to rounding.
    """
    at = list(start)
    left = residual(at)
    if left is None:
        return None
    first = size = float(left.norm())
    for iteration in range(_ITERATIONS):
        columns = []
        for k, value in enumerate(at):
            step = _STEP * max(abs(value), 1e-3)
            sides = [residual([*at[:k], value + sign * step, *at[k + 1 :]]) for sign in (1, -1)]
            if sides[0] is None or sides[1] is None:
                return None
            columns.append((sides[0] - sides[1]) / (2 * step))
        slope = torch.stack(columns, 1)
        if not bool(slope.isfinite().all()):
            return None
        width = slope.norm(dim=0)
        if bool((width == 0).any()):
            return None  # one of them does nothing
        move = (
            torch.linalg.lstsq(slope / width, -left[:, None], rcond=1e-10, driver="gelsd").solution[:, 0]
            / width
        )
        if not bool(move.isfinite().all()):
            return None
        for share in (1.0, 0.5, 0.25, 0.06):
            there = [value + share * float(by) for value, by in zip(at, move, strict=True)]
            found = residual(there)
            if found is not None and float(found.norm()) < size:
                break
        else:
            return at if size <= _SOLVED * max(first, 1e-300) or size <= 1e-11 else None
        at, left, size = there, found, float(found.norm())
        if size <= _SOLVED * first:
            return at
        if iteration == _SOON and size > _GAIN * first:
            return None
    return at if size <= 1e-9 * first else None


def written(value: float, known: Sequence[float], near: float = 1e-6) -> Iterator[float]:
    """Numbers that somebody may have written for `value`, the likeliest first; `known` are the baseline's."""

    def fits(number: float) -> bool:
        return abs(number - value) <= near * max(abs(value), 1e-12)

    yield from (number for number in known if fits(number))
    if abs(value) <= 1e-9:
        yield 0.0
    if not value:
        return
    for below in range(1, 17):
        above = round(value * below)
        if above and fits(above / below):
            yield above / below
            break
    exponent = math.floor(math.log10(abs(value)))
    for digits in range(4):
        rounded = round(value, digits - exponent)
        if fits(rounded):
            yield rounded
            break
    square = value * value
    for inverse, number in ((False, square), (True, 1 / square)):
        n = round(number)
        if 1 <= n <= 1 << 16 and abs(number - n) <= 2 * near * n:
            yield math.copysign(1 / math.sqrt(n) if inverse else math.sqrt(n), value)
    for unit in (math.pi, math.e, math.log(2)):
        for below in (1, 2, 4, 180):
            for number in (unit / below, below / unit, 2 * unit * below):
                if fits(number):
                    yield number
