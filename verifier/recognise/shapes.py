"""How two tensors of different shapes relate."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from verifier.recognise.axes import as_text, axis_name, axis_orders
from verifier.recognise.reals import reals

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.recognise.reals import Reals


def relate_shapes(candidate: Tensor, baseline: Tensor) -> tuple[str, tuple[str, ...]]:
    """A clause about the candidate's shape, and what else is known: reordered, reshaped, grouped or cut off."""
    shape, expected = tuple(candidate.shape), tuple(baseline.shape)
    summary = f"has shape {as_text(shape)}, the baseline's is {as_text(expected)}"
    if candidate.is_complex() != baseline.is_complex():
        return summary, ("one of the two is complex",)
    two = reals(candidate, baseline)
    return summary, tuple(_same_numbers(two) or _one_axis(two) or _groups(shape, expected))


def _same_numbers(two: Reals) -> list[str]:
    c, b = two.candidate, two.baseline
    if c.numel() != b.numel() or not c.numel():
        return []
    for axes in axis_orders(tuple(b.shape), tuple(c.shape)):
        if two.fits(c, b.permute(axes)):
            what = "transposed" if b.ndim == 2 else f"with its axes in the order {as_text(axes)}"
            return [f"equal to the baseline's {what}"]
    if two.fits(c.reshape(-1), b.reshape(-1)):
        return ["the same numbers in the same order, in another shape"]
    if b.ndim == 2 and c.ndim != 2 and two.fits(c.reshape(-1), b.t().reshape(-1)):
        return ["the same numbers as the baseline's transposed, in another shape"]
    return ["as many elements"]


def _one_axis(two: Reals) -> list[str]:
    """One is the beginning, the middle or the end of the other along some axes."""
    c, b = two.candidate, two.baseline
    if c.ndim != b.ndim or not (c.numel() and b.numel()):
        return []
    differing = [axis for axis in range(c.ndim) if c.shape[axis] != b.shape[axis]]
    is_shorter = all(c.shape[axis] < b.shape[axis] for axis in differing)
    if not is_shorter and not all(c.shape[axis] > b.shape[axis] for axis in differing):
        return []
    small, large = (c, b) if is_shorter else (b, c)
    for where, share in (("first", 0.0), ("middle", 0.5), ("last", 1.0)):
        part = large
        for axis in differing:
            start = math.floor((large.shape[axis] - small.shape[axis]) * share)
            part = part.narrow(axis, start, small.shape[axis])
        if two.fits(part, small):
            names = " and ".join(axis_name(axis, c.ndim) for axis in differing)
            owner, part_owner = (
                ("the candidate's", "the baseline's")
                if is_shorter
                else (
                    "the baseline's",
                    "the candidate's",
                )
            )
            return [f"{owner} numbers are the {where} {names} of {part_owner}"]
    return []


def _groups(shape: tuple[int, ...], expected: tuple[int, ...]) -> list[str]:
    """Input channels a group: a convolution with another number of groups."""
    if not 3 <= len(shape) == len(expected) <= 5 or 0 in shape or 0 in expected:
        return []
    unlike = [i for i, (one, other) in enumerate(itertools.zip_longest(shape, expected)) if one != other]
    if unlike != [1]:
        return []
    small, large = sorted((shape[1], expected[1]))
    if large % small:
        return []
    ratio = large // small
    if shape[1] < expected[1]:
        return [f"input channels fewer by {ratio}: as with {ratio} times as many groups"]
    return [f"input channels more by {ratio}: as with {ratio} times fewer groups"]
