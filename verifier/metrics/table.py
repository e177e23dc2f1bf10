"""The table of metrics: each derives one number from moments."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from verifier.records import Comparison

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.metrics.moments import Moments

# Sums of squares outside this range have lost digits to underflow or overflow. Only float64 tensors whose
# magnitudes lie below about 1e-140 or above about 1e150 get there; what cannot be said is then never a pass.
SMALLEST_SUM = 1e-280
LARGEST_SUM = 1e300
# Above this correlation 1 - r comes first and r from it; below, r itself has all its digits.
CLOSE = 0.5


def mse(moments: Moments) -> float:
    """Mean of (b - a)^2 over elements finite on both sides: NaN for an empty tensor, inf after a mismatch."""
    if moments.elements == 0:
        return math.nan
    if moments.nonfinite_mismatched:
        return math.inf
    return moments.sum_dd / moments.finite if moments.finite else 0.0


def nrmse(moments: Moments) -> float:
    """sqrt(sum (b - a)^2 / sum a^2), the relative L2 error: 0/0 = 0, x/0 = inf, NaN for an empty tensor."""
    if moments.elements == 0:
        return math.nan
    if moments.identical:
        return 0.0
    if moments.nonfinite_mismatched or not _representable(moments.raw_aa):
        return math.inf
    return math.sqrt(moments.sum_dd) / math.sqrt(moments.raw_aa)  # whose ratio could leave float64's range


def sqnr_db(moments: Moments) -> float:
    """Signal to quantisation noise ratio in decibels, -20 log10(nrmse): inf where the error is 0."""
    error = nrmse(moments)
    return -20 * math.log10(error) if error > 0 else (math.nan if math.isnan(error) else math.inf)


def pearson(moments: Moments) -> float:
    """Pearson's r: NaN where either side is constant, has fewer than two elements, or after a mismatch."""
    direct = _correlation(moments)
    return 1 - one_minus_pearson(moments) if direct > CLOSE else direct


def one_minus_pearson(moments: Moments) -> float:
    """1 - r from the variance of b's residual on a, with all its digits as r -> 1; NaN where r is.

    1 - r^2 = unexplained variance / variance of b, and 1 - r = (1 - r^2) / (1 + r). Its relative error is
    below 1e-9, except where b is so close to a multiple or shifted copy of a, other than a itself, that the
    float64 rounding of b - slope * a shows: sqrt(1 - r) is then known to about 1e-15 max |b| / spread of b.
    """
    correlation = _correlation(moments)
    if not correlation > 0:
        return 1 - correlation
    parts = moments.centred()
    return parts.unexplained / parts.bb / (1 + correlation)


def cosine(moments: Moments) -> float:
    """Cosine of the angle between both tensors as vectors: NaN where either is zero, or after a mismatch."""
    aa, bb = moments.raw_aa, moments.raw_bb
    if moments.nonfinite_mismatched or not (_representable(aa) and _representable(bb)):
        return math.nan
    return max(-1.0, min(1.0, moments.raw_ab / (math.sqrt(aa) * math.sqrt(bb))))


def max_abs(moments: Moments) -> float:
    """Largest |b - a|: 0 for an empty tensor, inf after a mismatch."""
    return math.inf if moments.nonfinite_mismatched else moments.max_abs


def max_rel(moments: Moments) -> float:
    """Largest |b - a| / |a| where a is not 0, as numpy's `assert_allclose` has it; inf after a mismatch."""
    return math.inf if moments.nonfinite_mismatched else moments.max_rel


METRICS: dict[str, Callable[[Moments], float]] = {
    "mse": mse,
    "pearson": pearson,
    "one_minus_pearson": one_minus_pearson,
    "cosine": cosine,
    "nrmse": nrmse,
    "sqnr_db": sqnr_db,
    "max_abs": max_abs,
    "max_rel": max_rel,
}


def compare(moments: Moments) -> Comparison:
    """Every metric of one pair.

    `max_abs_index` is the coordinate of the largest difference, or of the first disagreement about a NaN or
    an infinity where there is one, or None where no element is finite.
    """
    mismatched = moments.nonfinite_mismatched > 0
    figures: dict[str, Any] = {name: metric(moments) for name, metric in METRICS.items()}
    return Comparison(
        **figures,
        max_abs_index=moments.mismatch_index if mismatched else moments.max_abs_index,
        nonfinite_baseline=moments.nonfinite_baseline,
        nonfinite_candidate=moments.nonfinite_candidate,
        nonfinite_mismatched=moments.nonfinite_mismatched,
        elements=moments.elements,
    )


def _representable(sum_of_squares: float) -> bool:
    return SMALLEST_SUM < sum_of_squares < LARGEST_SUM


def _correlation(moments: Moments) -> float:
    parts = moments.centred()
    if moments.nonfinite_mismatched or not (_representable(parts.aa) and _representable(parts.bb)):
        return math.nan
    return max(-1.0, min(1.0, parts.ab / (math.sqrt(parts.aa) * math.sqrt(parts.bb))))
