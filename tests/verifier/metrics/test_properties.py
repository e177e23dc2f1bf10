"""Laws that hold for any tensors: hard values are drawn, exact arithmetic judges."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from verifier.metrics import METRICS, Moments, compare
from verifier.metrics.table import SMALLEST_SUM

# Float64 is drawn from where squares and their products neither underflow nor overflow; float32 whole.
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
FLOAT64 = st.sampled_from([-1.0, 1.0]).flatmap(
    lambda sign: st.floats(1e-60, 1e60).map(lambda size: sign * size) | st.just(0.0)
)
SPECIAL = st.sampled_from([math.nan, math.inf, -math.inf])
SMALL = st.integers(-3, 3).map(float)

SETTINGS = settings(max_examples=150, derandomize=True, deadline=None)


@st.composite
def pairs(draw: Any, *, special: bool = False, least: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Two vectors of equal length; the second is often close to the first, or a multiple of it."""
    dtype, values = draw(st.sampled_from([(np.float32, FLOAT32), (np.float64, FLOAT64), (np.float64, SMALL)]))
    if special:
        values = values | SPECIAL
    shape = draw(st.integers(least, 12))
    a = draw(npst.arrays(dtype, shape, elements=values))
    if draw(st.booleans()):
        b = draw(npst.arrays(dtype, shape, elements=values))
    else:
        b = a.copy()
        b[draw(st.integers(0, shape - 1))] = draw(values)
    return torch.from_numpy(a), torch.from_numpy(b)


def assert_agrees(name: str, measured: float, expected: float) -> None:
    if name == "one_minus_pearson":
        # The square root is b's residual relative to its spread: known to 1e-9 or to b's own rounding of
        # 2^-53, which the fitted slope and both means incur once each, whatever the accuracy of the sums.
        assert math.sqrt(measured) == pytest.approx(math.sqrt(expected), rel=1e-9, abs=1e-15)
    else:
        # Sums of products that nearly cancel are known to 2^-53 of the products' size, 12 of them here.
        absolute = {"pearson": 1e-14, "cosine": 1e-14, "sqnr_db": 1e-8}.get(name, 0.0)
        assert measured == pytest.approx(expected, rel=1e-9, abs=absolute), name


@SETTINGS
@given(pair=pairs())
def test_metrics_of_finite_tensors(pair: Any, reduce: Any, oracle: Any) -> None:
    a, b = pair
    moments = reduce(a, b)
    assert moments.identical == torch.equal(a, b)
    for name, expected in oracle(a, b, 300).items():
        measured = METRICS[name](moments)
        if math.isnan(expected):
            assert math.isnan(measured), name
        elif math.isnan(measured):
            # A spread can lie below the least sum of squares that keeps its digits, where values do not.
            assert min(moments.centred().aa, moments.centred().bb) <= SMALLEST_SUM, name
        else:
            assert_agrees(name, measured, expected)


@SETTINGS
@given(pair=pairs(special=True))
def test_nonfinite_elements_are_counted_one_by_one(pair: Any, reduce: Any) -> None:
    a, b = (x.numpy().astype(np.float64) for x in pair)
    moments = reduce(*pair)
    comparison = compare(moments)
    finite = np.isfinite(a) & np.isfinite(b)
    agree = (a == b) | (np.isnan(a) & np.isnan(b))
    mismatched = ~finite & ~agree
    assert moments.finite == finite.sum()
    assert comparison.nonfinite_baseline == (~np.isfinite(a)).sum()
    assert comparison.nonfinite_candidate == (~np.isfinite(b)).sum()
    assert comparison.nonfinite_mismatched == mismatched.sum()
    assert moments.identical == bool(agree.all())
    if mismatched.any():
        assert comparison.max_abs_index == (int(mismatched.argmax()),)
    elif finite.any():
        gap = np.abs(np.where(finite, b, 0) - np.where(finite, a, 0))
        assert comparison.max_abs == gap.max()
        assert comparison.max_abs_index == (int(np.where(finite, gap, -1).argmax()),)
    else:
        assert comparison.max_abs_index is None


def assert_same(one: Moments, two: Moments) -> None:
    """Counts and maxima are equal, figures up to rounding."""
    for field in (
        "elements",
        "finite",
        "nonfinite_baseline",
        "nonfinite_candidate",
        "nonfinite_mismatched",
        "mismatch_index",
        "max_abs",
        "max_abs_index",
        "max_rel",
        "identical",
    ):
        assert getattr(one, field) == getattr(two, field), field
    for name, metric in METRICS.items():
        x, y = metric(one), metric(two)
        assert math.isnan(x) == math.isnan(y), name
        if not math.isnan(x):
            assert_agrees(name, x, y)


def split(pair: Any, reduce: Any, cuts: tuple[int, int]) -> list[Moments]:
    a, b = pair
    low, high = sorted(min(cut, a.numel()) for cut in cuts)
    bounds = [(0, low), (low, high), (high, a.numel())]
    return [reduce(a[start:stop], b[start:stop], start) for start, stop in bounds]


@SETTINGS
@given(pair=pairs(special=True))
def test_the_moments_of_nothing_are_the_identity(pair: Any, reduce: Any) -> None:
    moments = reduce(*pair)
    # repr, since NaN is not equal to itself
    assert repr(moments.merge(Moments.empty())) == repr(moments)
    assert repr(Moments.empty().merge(moments)) == repr(moments)


@SETTINGS
@given(pair=pairs(special=True), cuts=st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_merging_is_commutative(pair: Any, cuts: Any, reduce: Any) -> None:
    one, two, _ = split(pair, reduce, cuts)
    assert_same(one.merge(two), two.merge(one))


@SETTINGS
@given(pair=pairs(special=True), cuts=st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_merging_is_associative_and_gives_the_whole(pair: Any, cuts: Any, reduce: Any) -> None:
    one, two, three = split(pair, reduce, cuts)
    whole = reduce(*pair)
    assert_same(one.merge(two).merge(three), one.merge(two.merge(three)))
    assert_same(functools.reduce(Moments.merge, (three, one, two)), whole)
