"""How far two tensors are apart in the layout in which they are nearest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from verifier.align import layouts
from verifier.metrics import collect, compare, measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.align import Layout
    from verifier.records import Comparison

EQUAL = 1e-11
"""Relative error (NRMSE) of tensors that operators which cancel may leave; beyond it they are not the same."""

ROUNDED = 1e-4
"""And of tensors that the rounding of stored weights sets apart, which are laid out alike all the same."""


class Likeness(NamedTuple):
    """How far two tensors are apart (NRMSE) in the layout in which they are nearest; None for the baseline's."""

    error: float
    layout: Layout | None


def nearest(one: Tensor, other: Tensor, known: Sequence[Layout]) -> Likeness:
    """The layout in which two tensors are one, or nearest to it; those that are known come first."""
    best = Likeness(math.inf, None)
    if one.shape == other.shape:
        best = Likeness(distance(one, other), None)
        if best.error <= ROUNDED:
            return best  # no other layout of it is the same
    for layout in (*known, *layouts(one.shape, other.shape)):
        error = distance(one, layout.back(other, one.shape))
        if error < best.error:
            best = Likeness(error, layout)
        if error <= EQUAL:
            break
    return best


def distance(one: Tensor, other: Tensor) -> float:
    """The relative error (NRMSE) of two tensors of one shape; infinite where numbers are none on one side alone."""
    found = compared(one, other)
    if found.within(0.0):
        return 0.0
    return math.inf if found.nonfinite_mismatched or math.isnan(found.nrmse) else found.nrmse


def compared(one: Tensor, other: Tensor) -> Comparison:
    """What sets two tensors of one shape apart."""
    return compare(collect([measure(one, other)])[0])
