"""Statistical tests: is a tensor from a distribution, and are two tensors from the same one?

All of them are exact, or nearly, whatever the distribution, so that the chance of a false alarm is the one asked
for. Against a known distribution the values are turned into normal scores first: each is replaced by the quantile of
a standard normal distribution that it is in its own. Their mean then is exactly normal, the sum of their squares
exactly chi-squared, and the largest of them has a closed form. Two tensors are compared by ranks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import special, stats

from verifier.initialisation.records import Statistics, Test

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.initialisation.distributions import Array, Continuous

# Sorting more values than these finds no more: 1 % in the spread of a normal distribution shows in a fifth of them.
MANY = 2**17
ROOM = 1e-6  # relative, at the bounds of a distribution: what the arithmetic of a draw in float32 adds up to
COARSE = 1e-5  # relative: dtypes with a wider step are rounded so far that the tests would see it

DECLARED, BASELINE = "declared", "baseline"  # what a test was against


def unit_of(dtype: torch.dtype) -> float:
    """The step from 1 to the next larger number of a dtype; 0 for integers, which are not rounded."""
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


def one_sample(values: Array, expected: Continuous, unit: float = 0.0) -> tuple[Test, ...]:
    """Tests of independent draws (float64, one dimension) against a distribution.

    `unit` is the relative step of the dtype the values were rounded to (`unit_of`): so far beyond the bounds they may
    lie, and where it is large they are taken for what rounds to them rather than for exact.

    `ks`: Kolmogorov and Smirnov's largest distance between distribution functions. `mean` and `spread`: the sum and
    the sum of squares of the normal scores. `extreme`: the largest absolute score, which a truncation makes too
    small. `range`: values where the distribution has none, which needs no chance.
    """
    outside = int(np.count_nonzero(np.abs(values) > expected.limit * (1 + max(ROOM, unit))))
    if unit > COARSE:
        values = _unrounded(values, expected.limit, unit)
    scores = expected.scores(values)
    count = scores.size
    total, squares = float(scores.sum()), float(np.square(scores).sum())
    few = _few(values)
    # The limit distribution errs towards no alarm, by less than a tenth where there are so many.
    ks = stats.ks_1samp(few, expected.cdf, method="exact" if few.size <= 10_000 else "asymp")
    largest = float(np.abs(scores).max())
    # log P(|z| <= largest), for all of them
    below = count * math.log1p(-2 * float(special.ndtr(-largest))) if largest > 0 else -math.inf
    tails = float(stats.chi2.cdf(squares, count)), float(stats.chi2.sf(squares, count))
    tests = [
        _against_declared("ks", float(ks.statistic), float(ks.pvalue)),
        _against_declared("mean", total / count, 2 * float(special.ndtr(-abs(total) / math.sqrt(count)))),
        _against_declared("spread", math.sqrt(squares / count), min(1.0, 2 * min(tails))),
        _against_declared("extreme", largest, min(1.0, 2 * min(math.exp(below), -math.expm1(below)))),
    ]
    if outside:
        tests.append(_against_declared("range", float(outside), 0.0))
    return tuple(tests)


def _against_declared(name: str, statistic: float, p_value: float) -> Test:
    return Test(name=name, statistic=statistic, p_value=p_value, against=DECLARED)


def _against_baseline(name: str, statistic: float, p_value: float) -> Test:
    return Test(name=name, statistic=statistic, p_value=p_value, against=BASELINE)


def two_samples(values: Array, others: Array) -> tuple[Test, ...]:
    """Tests of two independent tensors (float64, one dimension) against each other.

    `ks` as above; `location`: Mann and Whitney's rank sum of the values; `spread`: how far they lie from the common
    median, by normal scores of the ranks; `extreme`: how many values of one lie further out than all of the other
    (Rosenbaum, "Tables for a nonparametric test of dispersion", Ann. Math. Statist. 24, 1953).
    """
    few, other_few = _few(values), _few(others)
    ks = stats.ks_2samp(few, other_few, method="asymp")
    location = stats.mannwhitneyu(few, other_few, method="asymptotic")
    centre = float(np.median(np.concatenate([few, other_few])))
    ratio, p_ratio = _normal_scores(np.abs(few - centre), np.abs(other_few - centre))
    further, p_further = _further_out(np.abs(values - centre), np.abs(others - centre))
    return (
        _against_baseline("ks", float(ks.statistic), float(ks.pvalue)),
        _against_baseline("location", float(location.statistic), _sure(location.pvalue)),
        _against_baseline("spread", ratio, p_ratio),
        _against_baseline("extreme", float(further), p_further),
    )


def _normal_scores(values: Array, others: Array) -> tuple[float, float]:
    """Whether distances from a centre are larger in one of two samples: the ratio of spreads, and how likely it is.

    Each distance is replaced by the quantile of a half-normal distribution its rank stands for, so that their squares
    are those of normal values whatever was drawn, and Fisher's F tells the ratio of their means. This is as powerful
    as F is for normal values (Klotz, "Nonparametric tests for scale", Ann. Math. Statist. 33, 1962), where rank sums
    need 1.6 times as many. Counted over permutations without ties, a p-value of 0.001 or less has 0.1 to 0.5 times
    that probability for samples of 20 to 64 values, and no other than its own for some hundreds.
    """
    ranks = stats.rankdata(np.concatenate([values, others]))
    squares = np.square(special.ndtri((1 + ranks / (ranks.size + 1)) / 2))
    size, other_size = values.size, others.size
    ratio = float(squares[:size].mean() / squares[size:].mean())
    tails = stats.f.cdf(ratio, size, other_size), stats.f.sf(ratio, size, other_size)
    return math.sqrt(ratio), min(1.0, 2 * float(min(tails)))


def _further_out(values: Array, others: Array) -> tuple[int, float]:
    """How many of one sample exceed all of the other (negative for the other's), and how likely so many are."""
    own, other = int(np.count_nonzero(values > others.max())), int(np.count_nonzero(others > values.max()))
    count, size = (own, values.size) if own else (other, others.size)
    whole = values.size + others.size
    # all of the `count` largest come from the same sample
    chance = math.exp(sum(math.log((size - k) / (whole - k)) for k in range(count))) if count < size else 0.0
    return (own or -other), min(1.0, 2 * chance)


def combined(tests: Sequence[Test]) -> float:
    """One p-value for several tests of one tensor: the smallest times their number (Bonferroni).

    `range` is certain and not counted.
    """
    if any(test.name == "range" for test in tests):
        return 0.0
    return min(1.0, len(tests) * min(test.p_value for test in tests))


def jointly(tests: Sequence[Test]) -> float:
    """One p-value for tests against one or two things, of which each must fail: the larger (an intersection-union).

    Where either of them keeps its error rate, so does this: it is never the smaller p-value.
    """
    return max(
        combined([test for test in tests if test.against == each]) for each in {t.against for t in tests}
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, so that the chance of any false alarm is kept whatever hangs together.

    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    so_far = 0.0
    for rank, index in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = so_far
    return corrected


def sample(values: Array) -> Statistics:
    """What to say of some values (float64, one dimension, at least one)."""
    spread = float(values.std())
    centred = values - values.mean()
    return Statistics(
        values=values.size,
        mean=float(values.mean()),
        std=spread,
        kurtosis=float(np.mean(np.square(np.square(centred / spread)))) if spread > 0 else None,
        smallest=float(values.min()),
        largest=float(values.max()),
    )


def thinned(values: Array, most: int) -> Array:
    """At most `most` of the values, evenly spaced."""
    return values if values.size <= most else values[:: -(-values.size // most)]


def _unrounded(values: Array, limit: float, unit: float) -> Array:
    """For each value one of those that a dtype of this step rounds to it, none beyond the limit, all equally likely.

    Up to four in a thousand uniform values lie where bfloat16 rounds to the bound itself, which as an exact value
    would be a miracle. They are drawn, with a seed of their own, as the tests are exact for independent draws alone.
    """
    half = np.ldexp(unit / 2, np.frexp(np.abs(values))[1] - 1)
    low, high = np.clip(values - half, -limit, limit), np.clip(values + half, -limit, limit)
    return np.asarray(low + (high - low) * np.random.default_rng(0).random(values.size))


def _few(values: Array) -> Array:
    return thinned(values, MANY)


def _sure(p_value: Any) -> float:
    """Two tensors of nothing but ties have no rank sum to speak of."""
    return 1.0 if math.isnan(p_value) else float(p_value)
