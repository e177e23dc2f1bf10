"""The same numbers in another order: axes exchanged or reversed, slices permuted."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch

from verifier.recognise.axes import MOST_AXES, along, as_text, axis_name, axis_orders
from verifier.recognise.reals import sample_positions
from verifier.recognise.relation import CLEARLY, NEARLY, Deviation, compared
from verifier.recognise.slices import nearest_slices, order_in_words, order_of_slices

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.recognise.reals import Reals
    from verifier.records import Comparison

# Below this relative error the slices are where they belong.
MOVED = 0.1


def transposed(two: Reals) -> Deviation | None:
    """The baseline with some axes exchanged."""
    for axes in axis_orders(tuple(two.baseline.shape), tuple(two.candidate.shape)):
        if _looks(two, axes, ()) and two.fits(two.candidate, two.baseline.permute(axes)):
            moved = [i for i, axis in enumerate(axes) if i != axis]
            return Deviation(
                "transposed", along(moved, two.baseline.ndim, "exchanged"), (f"axes {as_text(axes)}",)
            )
    return None


def flipped(two: Reals) -> Deviation | None:
    """The baseline with some axes reversed."""
    rank = two.baseline.ndim
    if rank > MOST_AXES:
        return None
    long = [axis for axis in range(rank) if two.baseline.shape[axis] > 1]
    for count in range(1, len(long) + 1):
        for chosen in itertools.combinations(reversed(long), count):
            axes = tuple(sorted(chosen))
            if _looks(two, tuple(range(rank)), axes) and two.fits(two.candidate, two.baseline.flip(axes)):
                return Deviation(
                    "permuted", along(axes, rank, "reversed"), (f"flipped along axes {as_text(axes)}",)
                )
    return None


def _looks(two: Reals, axes: tuple[int, ...], flipped: tuple[int, ...]) -> bool:
    """Whether a sample of the candidate agrees with the baseline, its axes reordered and reversed."""
    shape = two.candidate.shape
    positions = sample_positions(two.candidate.numel(), two.candidate.device)
    where = torch.unravel_index(positions, shape)
    turned = [shape[i] - 1 - index if i in flipped else index for i, index in enumerate(where)]
    source: list[Tensor] = [turned[axes.index(axis)] for axis in range(len(axes))]
    return two.fits(two.candidate[tuple(where)], two.baseline[tuple(source)])


def permuted(two: Reals, comparison: Comparison) -> Deviation | None:
    """Slices in another order along one axis: equal up to rounding, or else each the nearest of all."""
    axes = range(two.baseline.ndim)
    if _same_energy(two, comparison, 2 * two.tolerance):
        for axis in axes:
            order = order_of_slices(two.candidate, two.baseline, axis)
            if order is not None and two.fits(two.candidate, two.baseline.index_select(axis, order)):
                return _ordered(order, axis, two)
    if not MOVED < comparison.nrmse < math.inf or not _same_energy(two, comparison, NEARLY):
        return None
    for axis in axes:
        order = nearest_slices(two.candidate, two.baseline, axis)
        if order is not None:
            left = compared(two.candidate, two.baseline.index_select(axis, order)).nrmse
            if left < NEARLY and left < CLEARLY * comparison.nrmse:
                return _ordered(order, axis, two, f"what then remains is {left:.3g} of it")
    return None


def _ordered(order: Tensor, axis: int, two: Reals, *more: str) -> Deviation:
    name = axis_name(axis, two.baseline.ndim)
    evidence = (f"along axis {axis}: {order_in_words(order.tolist())}", *more)
    return Deviation("permuted", f"has {name} in another order", evidence)


def _same_energy(two: Reals, comparison: Comparison, share: float) -> bool:
    """Whether both may hold the same numbers in another order: their norms differ by at most this share."""
    if comparison.nonfinite_baseline != comparison.nonfinite_candidate:
        return False
    if comparison.nonfinite_baseline:
        return True
    one, other = (float(tensor.norm(dtype=torch.float64)) for tensor in (two.candidate, two.baseline))
    return abs(one - other) <= share * other
