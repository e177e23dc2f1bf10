"""What a pair may be off by: the rules, with the arithmetic they come from."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from verifier.records import Budget

if TYPE_CHECKING:
    from verifier.judge.policy import Policy

DOUBLE_ROUNDOFF = 2.0**-53
SINGLE_ROUNDOFF = 2.0**-24
# Roundings a stored number may have gone through: a scale (a sum, a root and two products) and a product with it,
# each at most one unit roundoff; a power in float32 is wrong by up to two.
ROUNDINGS = 6.0

# The root mean square of the relative error of one rounding, in unit roundoffs: the error is uniform in half a unit
# in the last place either way, 1 / sqrt(3) of it in the mean, and the mantissa m in [1, 2) has the density
# 1 / (m ln 2) (Benford's law; Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 2.7), so
# the mean of 1 / m^2 is 3 / (8 ln 2).
ROUNDING = math.sqrt(3 / (8 * math.log(2)) / 3)

# Adding n independent terms of spread s one by one rounds partial sums of size s sqrt(i): in all, relative to the
# result of size s sqrt(n), ROUNDING sqrt(n / 2) roundoffs. The rule that errors grow with the root of n: Higham and
# Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41(5), 2019.
SUMMATION = ROUNDING / math.sqrt(2)


def arithmetic(policy: Policy, unit_roundoff: float, reduction: int) -> float:
    """How far one step may be from exact arithmetic (NRMSE) if it only rounds, as the cell's dtype does.

    Args:
        policy: The constants.
        unit_roundoff: The cell's.
        reduction: How many terms are summed for one element; half precisions are summed in float32.
    """
    summing = SUMMATION * min(unit_roundoff, SINGLE_ROUNDOFF) * math.sqrt(reduction)
    return policy.hardware * (ROUNDING * unit_roundoff + summing)


def semantics_budget(policy: Policy, amplification: float) -> Budget:
    """What a pair may be off by in float64.

    Args:
        policy: The constants.
        amplification: The baseline's own total error at this pair in unit roundoffs of the dtype it was
            measured in: how much the network amplifies rounding. The same multiple of float64's unit roundoff
            is allowed.
    """
    return Budget(
        rule="semantics/float64",
        total=max(policy.semantics, policy.factor * amplification * DOUBLE_ROUNDOFF),
        intrinsic=policy.semantics,
        noise_total=amplification * DOUBLE_ROUNDOFF,
    )


def narrowed_budget(policy: Policy, noise_total: float, reduction: int, *, here: bool) -> Budget:
    """What a pair may be off by in float64 at or behind a step that had to run in float32.

    Args:
        policy: The constants.
        noise_total: The baseline's own total error at this pair (NRMSE) where all of it runs in float32.
        reduction: How many terms are summed for one element.
        here: Whether the step is the pair's own, or one that leads to it; else it only inherits the error.
    """
    rounding = ROUNDING + SUMMATION * math.sqrt(reduction)
    return Budget(
        rule=NARROWED[not here],
        total=policy.factor * max(noise_total, rounding * SINGLE_ROUNDOFF),
        intrinsic=policy.factor * rounding * SINGLE_ROUNDOFF if here else policy.semantics,
        noise_total=noise_total,
        reduction=reduction,
    )


NARROWED = ("narrowed/float32", "behind narrowed/float32")
"""The rules of pairs at and behind a step without a float64 kernel."""


def numerics_budget(
    policy: Policy,
    dtype: str,
    unit_roundoff: float,
    noise_total: float | None,
    noise_intrinsic: float | None,
    noise_systematic: float | None = None,
    reduction: int = 1,
    accumulated: int | None = None,
    elements: int | None = None,
) -> Budget:
    """What a pair may be off by in a lower precision: a multiple of the baseline's own distance from float64.

    That of few numbers is small by chance as often as the F distribution says, for two errors of one size in as many
    numbers each; there the candidate may be as many times as far, but not further than the two may be apart.

    Args:
        policy: The constants.
        dtype: The cell's, for the rule's name.
        unit_roundoff: The cell's.
        noise_total: The baseline's total distance (NRMSE) from the oracle.
        noise_intrinsic: What this one step adds to it; no step is asked to be better than one rounding.
        noise_systematic: The part of that which is the same in all samples.
        reduction: How many terms are summed for one element; half precisions are summed in float32.
        accumulated: The same for the longest sum here or above, whose rounding errors have come along; None for
            `reduction`.
        elements: How many numbers it was measured in; None for many.
    """
    floor = policy.floor * unit_roundoff
    adding = policy.summation * min(unit_roundoff, SINGLE_ROUNDOFF)
    summing = adding * math.sqrt(reduction)
    spare = policy.accuracy_floor * unit_roundoff + summing
    longest = reduction if accumulated is None else accumulated
    spare_total = policy.accuracy_floor * unit_roundoff + adding * math.sqrt(longest)
    total = policy.factor * (noise_total or 0.0) + floor
    oracle_total = None
    if noise_total is not None:
        least = max(noise_total, ROUNDING * unit_roundoff)
        chance = min(_by_chance(elements) * least, noise_total + total)
        oracle_total = max(policy.accuracy_total * least + spare_total, chance)
    return Budget(
        rule=f"rounding/{dtype}",
        total=total,
        intrinsic=policy.factor * (noise_intrinsic or 0.0) + floor,
        noise_total=noise_total,
        noise_intrinsic=noise_intrinsic,
        oracle_total=oracle_total,
        oracle_intrinsic=(
            None
            if noise_intrinsic is None
            else policy.accuracy * max(noise_intrinsic, ROUNDING * unit_roundoff) + spare
        ),
        oracle_systematic=(
            None
            if noise_systematic is None
            else policy.accuracy * noise_systematic + policy.systematic * unit_roundoff + summing
        ),
        reduction=reduction,
        accumulated=accumulated,
    )


_CHANCE = 1e-4  # how often one of a network's many pairs may be taken for less accurate by chance alone
_FEW = 100  # numbers from which on chance is covered by what is allowed in any case


@functools.cache
def _by_chance(elements: int | None) -> float:
    """How many times the error of so many numbers another may be that rounds as much; 0 for many."""
    if elements is None or not 0 < elements < _FEW:
        return 0.0
    # If the ratio of two sums of as many squares has an F distribution, the one's share of both has a beta
    # distribution of half as much on either side, and so has the other's.
    share = _share(elements / 2)
    return math.sqrt((1 - share) / share)


def _share(half: float) -> float:
    """What a beta distribution of `half`, `half` falls short of with the probability `_CHANCE`.

    SciPy has it as well, and takes a tenth of a second to import. Its distribution function is the sum below times
    x^half (1 - x)^half / (half B(half, half)): NIST Digital Library of Mathematical Functions, 8.17.8.
    """
    scale = math.lgamma(2 * half) - 2 * math.lgamma(half) - math.log(half)
    low, high = math.log(1e-12), math.log(0.5)  # of x, which is about _CHANCE^2 for a single number
    while low < (middle := (low + high) / 2) < high:
        x = math.exp(middle)
        term = total = 1.0
        k = 0
        while term > total * 2.0**-60:
            term *= x * (2 * half + k) / (half + 1 + k)
            total += term
            k += 1
        if scale + half * (middle + math.log1p(-x)) + math.log(total) < math.log(_CHANCE):
            low = middle
        else:
            high = middle
    return math.exp(high)
