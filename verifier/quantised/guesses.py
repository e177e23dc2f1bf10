"""What codes that stand for none of the baseline's weights were made with: another scale, zero point or axis."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF
from verifier.quantised.floats import stands_for

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.forms.quantisers import Grid, Stored
    from verifier.quantised.floats import Float

Guess = tuple["Grid", str, str]


def _factor(stored: Stored, exact: Float) -> Guess | None:
    """The scale that all codes allow, if there is one."""
    scale = _allowed(stored, exact, None)
    if scale is None or stored.grid.axis is not None:
        ratio = _common(stored, exact)
    else:
        ratio = float(scale / stored.grid.scale.reshape(()).double())
    if ratio is None or abs(ratio - 1) < _OFF:
        return None
    said = f"the scale of {stored.name} is {1 / ratio:.4g} times the one that its codes were made with"
    return stored.grid.times(ratio), "quantiser-scale", said


def _common(stored: Stored, exact: Float) -> float | None:
    """By how much the scales of all slices are off, where that is one power of two."""
    value = stored.value
    power = float(value.square().sum())
    factor = float((value * exact.weight).sum()) / power if power else 0.0
    return 2.0 ** round(math.log2(factor)) if factor > 0 else None


def _allowed(stored: Stored, exact: Float, axis: int | None) -> Tensor | None:
    """The scale with which each number is within half a step of its code: the middle of what is left; None of none.

    A code c of a number w says that its step is between w / (c + 1/2) and w / (c - 1/2); the last codes stand for
    all that lies beyond as well.
    """
    grid, dimensions = stored.grid, stored.codes.dim()
    codes = stored.codes.double()
    steps = codes - grid.along(grid.zero, dimensions)
    size, count = exact.weight.abs(), steps.abs()
    least = torch.where((codes > grid.low) & (codes < grid.high), size / (count + 0.5), torch.zeros(()))
    most = torch.where(count > 0, size / (count - 0.5), torch.full((), math.inf))
    if axis is None:
        low, high = least.max().reshape(1), most.min().reshape(1)
    else:
        low = least.movedim(axis, 0).flatten(1).amax(1)
        high = most.movedim(axis, 0).flatten(1).amin(1)
    room = 1 + ROUNDINGS * SINGLE_ROUNDOFF * float(count.max())
    fits = bool(((low <= high * room) & high.isfinite()).all())
    return (low + high) / 2 if fits else None


def _shift(stored: Stored, exact: Float) -> Guess | None:
    """The zero point that fits best, moved by as much in all slices."""
    grid = stored.grid
    off = (
        grid.steps(exact.weight) - (stored.codes.double() - grid.along(grid.zero, stored.codes.dim()))
    ).mean()
    moved = round(float(off))
    if not moved:
        return None
    other = replace(grid, zero=grid.zero - moved)
    return other, "quantiser-zero-point", f"the zero point of {stored.name} is off by {moved:+d}"


def _axis(stored: Stored, _exact: Float) -> Guess | None:
    """The scales of one dimension along another."""
    grid = stored.grid
    for axis, size in enumerate(stored.codes.shape if grid.axis is not None else ()):
        other = replace(grid, axis=axis)
        if axis != grid.axis and size == grid.scale.numel() and stands_for(stored, [_exact], other):
            said = f"the scales of {stored.name} are along axis {grid.axis}, not {axis}, of which they are"
            return other, "quantiser-axis", said
    return None


def _scales(stored: Stored, exact: Float) -> Guess | None:
    """A scale for each slice that its codes allow."""
    axis = stored.grid.axis
    scale = None if axis is None else _allowed(stored, exact, axis)
    if scale is None or not bool((scale > 0).all()):
        return None
    wrong = int(((scale / stored.grid.scale.double() - 1).abs() > _OFF).sum())
    said = f"{wrong} of the {len(scale)} scales of {stored.name} are not those that its codes were made with"
    return replace(stored.grid, scale=scale), "quantiser-scale", said


_OFF = 0.005  # of a scale that is told by what 255 codes allow: nearer than a step of the largest, it may be the same

GUESSES = (_factor, _shift, _axis, _scales)
