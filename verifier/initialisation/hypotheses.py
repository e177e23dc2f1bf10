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
from scipy import special, stats

from verifier.initialisation.records import Sample, Test

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.initialisation.distributions import Array, Continuous

# Sorting more values than these finds no more: 1 % in the spread of a normal distribution shows in a fifth of them.
MANY = 2**17
ROOM = 1e-6  # relative; float32 rounds a bound that far


def one_sample(values: Array, expected: Continuous) -> tuple[Test, ...]:
    """Tests of independent draws (float64, one dimension) against a distribution.

    `ks`: Kolmogorov and Smirnov's largest distance between distribution functions. `mean` and `spread`: the sum and
    the sum of squares of the normal scores. `extreme`: the largest absolute score, which a truncation makes too
    small. `range`: values where the distribution has none, which needs no chance.
    """
    outside = int(np.count_nonzero(np.abs(values) > expected.limit * (1 + ROOM)))
    scores = expected.scores(values)
    count = scores.size
    total, squares = float(scores.sum()), float(np.square(scores).sum())
    few = _few(values)
    # The limit distribution errs towards no alarm, by less than a tenth where there are so many.
    ks = stats.ks_1samp(few, expected.cdf, method="exact" if few.size <= 10_000 else "asymp")
    largest = float(np.abs(scores).max())
    # log P(|z| <= largest), for all of them
    below = count * math.log1p(-2 * float(special.ndtr(-largest))) if largest > 0 else -math.inf
    tests = [
        Test(name="ks", statistic=float(ks.statistic), p_value=float(ks.pvalue)),
        Test(
            name="mean",
            statistic=total / count,
            p_value=2 * float(special.ndtr(-abs(total) / math.sqrt(count))),
        ),
        Test(
            name="spread",
            statistic=math.sqrt(squares / count),
            p_value=min(
                1.0, 2 * min(float(stats.chi2.cdf(squares, count)), float(stats.chi2.sf(squares, count)))
            ),
        ),
        Test(
            name="extreme",
            statistic=largest,
            p_value=min(1.0, 2 * min(math.exp(below), -math.expm1(below))),
        ),
    ]
    if outside:
        tests.append(Test(name="range", statistic=float(outside), p_value=0.0))
    return tuple(tests)


def two_samples(values: Array, others: Array) -> tuple[Test, ...]:
    """Tests of two independent tensors (float64, one dimension) against each other.

    `ks` as above; `location` and `spread`: Mann and Whitney's rank sum of the values and of their distances from the
    common median; `extreme`: how many values of one lie further out than all of the other (Rosenbaum, "Tables for a
    nonparametric test of dispersion", Ann. Math. Statist. 24, 1953).
    """
    few, other_few = _few(values), _few(others)
    ks = stats.ks_2samp(few, other_few, method="asymp")
    location = stats.mannwhitneyu(few, other_few, method="asymptotic")
    centre = float(np.median(np.concatenate([few, other_few])))
    spread = stats.mannwhitneyu(np.abs(few - centre), np.abs(other_few - centre), method="asymptotic")
    further, p_further = _further_out(np.abs(values - centre), np.abs(others - centre))
    return (
        Test(name="ks", statistic=float(ks.statistic), p_value=float(ks.pvalue)),
        Test(name="location", statistic=float(location.statistic), p_value=_sure(location.pvalue)),
        Test(name="spread", statistic=float(spread.statistic), p_value=_sure(spread.pvalue)),
        Test(name="extreme", statistic=float(further), p_value=p_further),
    )


def _further_out(values: Array, others: Array) -> tuple[int, float]:
    """How many of one sample exceed all of the other (negative for the other's), and how likely so many are."""
    ours, theirs = int(np.count_nonzero(values > others.max())), int(np.count_nonzero(others > values.max()))
    count, size = (ours, values.size) if ours else (theirs, others.size)
    whole = values.size + others.size
    # all of the `count` largest come from the same sample
    chance = math.exp(sum(math.log((size - k) / (whole - k)) for k in range(count))) if count < size else 0.0
    return (ours or -theirs), min(1.0, 2 * chance)


def combined(tests: Sequence[Test]) -> float:
    """One p-value for several tests of one tensor: the smallest times their number (Bonferroni).

    `range` is certain and not counted.
    """
    if any(test.name == "range" for test in tests):
        return 0.0
    return min(1.0, len(tests) * min(test.p_value for test in tests))


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


def sample(values: Array) -> Sample:
    """What to say of some values (float64, one dimension, at least one)."""
    spread = float(values.std())
    centred = values - values.mean()
    return Sample(
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


def _few(values: Array) -> Array:
    return thinned(values, MANY)


def _sure(p_value: Any) -> float:
    """Two tensors of nothing but ties have no rank sum to speak of."""
    return 1.0 if math.isnan(p_value) else float(p_value)
