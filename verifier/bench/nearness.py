"""Whether what a form of a program returns is as near to float64 as what the program itself returns.

Compiled code keeps more digits inside, or adds in another order. It may be as many times as far from float64 as any
candidate may. What is wrong of all elements alike is small beside what many roundings leave in each of them, and is
measured by itself: it is what a wrong scale looks like in half precision. So is what is wrong of one channel or
sample among many.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from verifier.graph.tensors import same_numbers
from verifier.judge import STRICT
from verifier.judge.budgets import ROUNDING, SINGLE_ROUNDOFF
from verifier.lockstep import meet
from verifier.lockstep.meeting import masks
from verifier.metrics import compare

NOTHING = -1.0
"""A limit that no error is within: what is returned is of another dtype."""

_SUMS = 4.0  # roundings of what sums are kept in, which another order of adding may cost


class Error(NamedTuple):
    """How far a tensor is from float64 (NRMSE), and by how much of its size all of it is too large or shifted."""

    distance: float
    shared: float

    @classmethod
    def of(cls, exact: Tensor, found: Tensor) -> Error:
        """That of `found`, a tensor of any dtype, from `exact`, of the same shape."""
        distance = _distance(exact, found)
        if not 0 < distance < math.inf or exact.is_complex():
            return cls(distance, 0.0)
        wide, error = exact.double().flatten().cpu(), found.double().flatten().cpu()
        known = wide.isfinite() & error.isfinite() & ~masks(wide)
        wide, error = wide[known], error[known] - wide[known]
        power = wide.square().mean()
        gain, offset = (wide * error).mean().abs() / power, error.mean().abs() / power.sqrt()
        return cls(distance, float(torch.maximum(gain, offset)))

    def or_larger(self, other: Error) -> Error:
        """The larger of each, where the other is a number at all."""
        return Error(
            *(max(one, two) if math.isfinite(two) else one for one, two in zip(self, other, strict=True))
        )


class Near(NamedTuple):
    """Whether a tensor is near, what it is held against, and how far it may be from that (NRMSE)."""

    near: bool
    limit: float
    like: Tensor


class Few(NamedTuple):
    """What a program gives for a few samples, in float64 and as it runs."""

    exact: Tensor
    program: Tensor


def near_enough(unit: float, program: Tensor, other: Tensor, few: Few | None) -> Near:
    """Whether `other` is as near to what a program gives as that alone makes it near to float64, too.

    The program errs as it does on a few samples, or not at all: what it does on these is left out of what it may be
    apart, since that adds to it at most. What is not near enough may still be `near`.
    """
    if few is None:
        return near(unit, program, program, other, Error(0.0, 0.0))
    error = Error.of(*few)
    if not error.distance <= _USUAL:
        return Near(False, 0.0, program)
    share = _SHARE * _fainter(few.exact, program)
    return near(unit, program, program, other, Error(*(share * each for each in error)), few)


def _fainter(few: Tensor, program: Tensor) -> float:
    """How much smaller a few samples are than all in the mean, at most 1: so is an error of theirs beside all."""
    sizes = [float(each.double().square().mean().sqrt()) for each in (few, program)]
    return min(1.0, sizes[0] / sizes[1]) if sizes[1] > 0 else 0.0


_USUAL = 32 * SINGLE_ROUNDOFF  # beyond which samples may be too unlike each other for a few to speak for all
_SHARE = 1 - 1 / STRICT.accuracy_total


def near(
    unit: float, exact: Tensor, program: Tensor, other: Tensor, error: Error, few: Few | None = None
) -> Near:
    """Whether `other` is as near to `exact` as a program may be whose own error is `error`.

    Args:
        unit: The unit roundoff of what the program computes in.
        exact: What it returns in float64.
        program: What it returns.
        other: What is in question, of the same shape.
        error: The largest known of the program.
        few: What says how far channels of the program are off, where `exact` does not.
    """
    if program.dtype != other.dtype:
        return Near(False, NOTHING, program)
    rounding = ROUNDING * unit
    room = STRICT.accuracy_floor * unit + _SUMS * min(unit, SINGLE_ROUNDOFF)
    limit = STRICT.accuracy_total * max(error.distance, rounding) + room
    measurable = exact.numel() > 0 and (exact.is_floating_point() or exact.is_complex())
    if not measurable or not math.isfinite(limit):
        return Near(same_numbers(program, other), 0.0, program)  # there is no measure
    # One rounding of what all is multiplied by, and what is left of those of as many elements as are of one size.
    known = torch.where(exact.isfinite() & ~masks(exact), exact, 0).abs().double()
    chance = rounding * (1 + STRICT.accuracy_total / float(_many(known, [*range(exact.dim())])) ** 0.5)
    shared = STRICT.accuracy_total * error.shared + chance + room
    given = Error.of(exact, other)
    if given.distance <= limit and given.shared > shared:
        return Near(False, shared, exact)
    if given.distance > limit:
        return Near(False, limit, exact)
    part = _beyond(unit, exact, program, other, few)
    return Near(part is None, limit if part is None else part, exact)


def _beyond(unit: float, exact: Tensor, program: Tensor, other: Tensor, few: Few | None) -> float | None:
    """What the whole might be apart if a channel, sample or place that is too far from float64 were just near enough.

    None where there is no such slice.

    A slice is too far if it is so beside what the program errs by in all slices together, relative to their size, and
    beside what it errs by in that one. Errors of few numbers are small by chance as often as the quantile of their
    ratio says (F distribution); as many count as there are if all were as large: (sum of squares)^2 / sum of fourth
    powers.
    """
    if exact.is_complex() or not exact.shape == program.shape == other.shape:
        return None
    from scipy import special  # noqa: PLC0415 - a tenth of a second, and what is equal needs none

    wide, others = _apart(exact, other, program)
    size, own = _apart(exact, program, other) if few is None else _apart(*few)
    share = 1.0 if few is None else _SHARE
    room = STRICT.accuracy_floor * unit + _SUMS * min(unit, SINGLE_ROUNDOFF)
    for dim, count in enumerate(exact.shape):
        if count < 2 or exact.numel() // max(count, 1) < 2:
            continue
        rest = [each for each in range(exact.dim()) if each != dim]
        norms, found, sizes, errors = (each.square().mean(rest).sqrt() for each in (wide, others, size, own))
        usual = (errors.square().mean() / sizes.square().mean().clamp_min(_TINY)).sqrt()
        usual = torch.maximum(usual, (errors / sizes.clamp_min(_TINY)).median())
        usual = (usual * (1.0 if few is None else _fainter(few.exact, program))).clamp_min(ROUNDING * unit)
        many = _many(wide, rest)
        if few is None:
            many = torch.where(errors == 0, many, torch.minimum(many, _many(own, rest)))
        elif len(errors) == count:
            errors, many = _pooled(sizes, errors, own.numel() // count), many.clamp_max(_POOL)
        else:  # how far each sample is off is known of a few alone
            errors = torch.zeros_like(norms)
        chance = torch.from_numpy(special.fdtri(many.numpy(), many.numpy(), _CHANCE / count)).rsqrt()
        allowed = STRICT.accuracy_total * usual * (1 + STRICT.accuracy_total / many.sqrt()) + room
        most = share * torch.maximum(allowed * norms, chance.clamp_min(STRICT.accuracy_total) * errors)
        most = torch.where(many < _FEW, math.inf, most)
        if bool((found > most).any()):
            k = int((found - most).argmax())
            return float(most[k] / (norms.square().sum().sqrt()))
    return None


def _pooled(norms: Tensor, errors: Tensor, numbers: int) -> Tensor:
    """What slices of a few numbers each err by, as far as those of about the same size tell; 0 where too few are."""
    window = -(-_POOL // numbers)
    if len(norms) < window:
        return torch.zeros_like(errors)
    sizes, order = norms.sort()
    sums = torch.cat([sizes.new_zeros(1), errors[order].square().cumsum(0)])
    first = (torch.arange(len(sizes)) - window // 2).clamp(0, len(sizes) - window)
    found = ((sums[first + window] - sums[first]) / window).sqrt()
    found = torch.where(sizes[first + window - 1] <= _ALIKE * sizes, found, 0.0)
    return torch.empty_like(found).scatter_(0, order, found)


_POOL, _ALIKE = 32, 4.0  # numbers that tell an error to a quarter, and how unlike in size they may be


def _apart(exact: Tensor, given: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """What is exact in float64, and by how much something else is off; 0 where any of them is no number."""
    wide, off = (each.detach().cpu().double() for each in (exact, given))
    known = wide.isfinite() & off.isfinite() & ~masks(wide)
    for each in others:
        known &= each.detach().cpu().isfinite()
    return torch.where(known, wide, 0.0), torch.where(known, off - wide, 0.0)


def _many(tensor: Tensor, rest: list[int]) -> Tensor:
    """How many numbers each slice holds as far as they are of one size, at least 1."""
    squares = (tensor / tensor.abs().amax().clamp_min(_TINY)).square()
    return (squares.sum(rest).square() / squares.square().sum(rest).clamp_min(_TINY)).clamp_min(1.0)


_FEW = 3.0  # numbers of which nothing is told by how large they are together
_TINY = torch.finfo(torch.float64).tiny
_CHANCE = 1e-4  # how often one of many slices may be taken for wrong by this alone


def _distance(one: Tensor, two: Tensor) -> float:
    wide = torch.complex128 if one.is_complex() else torch.float64
    (meeting,) = meet([one.cpu().to(wide)], [two.cpu().to(wide)])
    if meeting.moments is None:
        return math.inf
    error = compare(meeting.moments)
    if error.nonfinite_mismatched:
        return math.inf
    return 0.0 if error.elements == 0 or error.max_abs == 0 else error.nrmse
