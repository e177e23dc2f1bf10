"""What each number says where textbooks are silent: NaN, infinities, constants, one element, none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from verifier.metrics import METRICS, Moments, compare
from verifier.records import Comparison

NAN, INF = math.nan, math.inf


def tensor(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def test_every_metric_is_a_field_of_the_comparison(reduce: Any) -> None:
    moments = reduce(tensor(1, 2, 3), tensor(1, 2, 4))
    comparison = compare(moments)
    for name, metric in METRICS.items():
        assert getattr(comparison, name) == metric(moments)
    assert set(METRICS) < set(Comparison.__struct_fields__)


def test_identical_tensors_have_no_error_at_all(reduce: Any) -> None:
    a = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    moments = reduce(a, a.clone())
    comparison = compare(moments)
    assert moments.identical
    assert (comparison.mse, comparison.nrmse, comparison.max_abs, comparison.max_rel) == (0, 0, 0, 0)
    assert (comparison.one_minus_pearson, comparison.pearson, comparison.sqnr_db) == (0, 1, INF)
    assert comparison.cosine == pytest.approx(1, abs=1e-15)
    assert comparison.max_abs_index == (0,)


def test_an_empty_tensor_is_compared_to_nothing(reduce: Any) -> None:
    moments = reduce(torch.empty(0, 3), torch.empty(0, 3))
    comparison = compare(moments)
    assert moments == Moments.empty()
    assert not moments.identical
    for name in ("mse", "nrmse", "sqnr_db", "pearson", "one_minus_pearson", "cosine"):
        assert math.isnan(getattr(comparison, name)), name
    assert (comparison.max_abs, comparison.max_abs_index, comparison.elements) == (0, None, 0)


def test_one_element_has_no_correlation_but_an_angle(reduce: Any) -> None:
    comparison = compare(reduce(tensor(2), tensor(-3)))
    assert math.isnan(comparison.pearson)
    assert math.isnan(comparison.one_minus_pearson)
    assert (comparison.cosine, comparison.mse, comparison.nrmse) == (-1, 25, 2.5)
    assert (comparison.max_abs, comparison.max_rel, comparison.max_abs_index) == (5, 2.5, (0,))


def test_a_tensor_without_dimensions_has_the_empty_coordinate(reduce: Any) -> None:
    moments = reduce(torch.tensor(2.0), torch.tensor(3.0), 7)
    assert (moments.max_abs, moments.max_abs_index) == (1, ())


@pytest.mark.parametrize("constant", [0.1, -7.3e-12, 1e6 + 0.1, 3e38])
def test_correlation_with_a_constant_is_undefined_on_either_side(constant: float, reduce: Any) -> None:
    varied = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    fixed = torch.full((5000,), constant)
    for a, b in ((varied, fixed), (fixed, varied), (fixed, fixed)):
        comparison = compare(reduce(a, b))
        assert math.isnan(comparison.pearson)
        assert math.isnan(comparison.one_minus_pearson)
        assert math.isfinite(comparison.cosine)


def test_a_zero_tensor_has_no_direction(reduce: Any) -> None:
    varied = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros(5000)
    assert math.isnan(compare(reduce(varied, zero)).cosine)
    assert math.isnan(compare(reduce(zero, varied)).cosine)
    assert compare(reduce(varied, zero)).nrmse == pytest.approx(1, rel=1e-12)


def test_relative_error_against_zero_is_infinite_and_of_zero_is_zero(reduce: Any) -> None:
    wrong, right = compare(reduce(tensor(0, 0), tensor(0, 1))), compare(reduce(tensor(0, 0), tensor(0, 0)))
    assert (wrong.nrmse, wrong.sqnr_db, wrong.max_rel, wrong.max_abs) == (INF, -INF, 0, 1)
    assert (right.nrmse, right.sqnr_db, right.max_rel, right.max_abs) == (0, INF, 0, 0)


def test_max_rel_leaves_out_zeros_of_the_baseline_only(reduce: Any) -> None:
    assert compare(reduce(tensor(0, 2, -4), tensor(9, 3, 0))).max_rel == 1


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [(NAN, 1.0, (1, 0)), (1.0, NAN, (0, 1)), (INF, -INF, (1, 1)), (NAN, INF, (1, 1)), (1.0, -INF, (0, 1))],
)
@pytest.mark.parametrize("place", [0, 2047, 2500])
def test_a_number_never_hides_a_mismatch(
    one: float, other: float, counts: tuple[int, int], place: int, reduce: Any
) -> None:
    a = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    b = a.clone()
    a[place], b[place] = one, other
    b[2900] = 1e9  # a larger finite difference, later
    moments = reduce(a, b)
    comparison = compare(moments)
    assert not moments.identical
    for name in ("mse", "nrmse", "max_abs", "max_rel"):
        assert getattr(comparison, name) == INF, name
    for name in ("pearson", "one_minus_pearson", "cosine"):
        assert math.isnan(getattr(comparison, name)), name
    assert comparison.sqnr_db == -INF
    assert comparison.max_abs_index == (place,)
    assert (comparison.nonfinite_baseline, comparison.nonfinite_candidate) == counts
    assert comparison.nonfinite_mismatched == 1
    assert comparison.elements == 3000


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_agreeing_nonfinite_elements_are_counted_and_left_out(value: float, reduce: Any, oracle: Any) -> None:
    a = torch.randn(3000, generator=torch.Generator().manual_seed(0)) + 100
    b = a + 1e-2 * torch.randn(3000, generator=torch.Generator().manual_seed(1))
    keep = torch.ones(3000, dtype=torch.bool)
    keep[:2100] = keep[2990] = False
    a[~keep] = b[~keep] = value
    comparison = compare(reduce(a, b))
    assert (comparison.nonfinite_baseline, comparison.nonfinite_candidate) == (2101, 2101)
    assert comparison.nonfinite_mismatched == 0
    for name, expected in oracle(a[keep], b[keep]).items():
        assert getattr(comparison, name) == pytest.approx(expected, rel=1e-9), name
    gap = (b - a).double().abs().nan_to_num(0, 0, 0)
    assert comparison.max_abs_index == (int(gap.argmax()),)


def test_tensors_of_agreeing_nonfinite_elements_only_are_identical(reduce: Any) -> None:
    masks = tensor(-INF, NAN, INF)
    moments = reduce(masks, masks.clone())
    comparison = compare(moments)
    assert moments.identical
    assert (comparison.mse, comparison.nrmse, comparison.max_abs, comparison.sqnr_db) == (0, 0, 0, INF)
    assert (comparison.max_abs_index, comparison.elements) == (None, 3)


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 1.7e308])
def test_float64_beyond_the_range_of_squares_never_passes(scale: float, reduce: Any) -> None:
    a = scale * tensor(0.5, -1, 0.25, 0.75, dtype=torch.float64)
    b = scale * tensor(0.5, 1, 0.25, 0.75, dtype=torch.float64)
    wrong, right = compare(reduce(a, b)), reduce(a, a.clone())
    assert wrong.nrmse == INF
    assert math.isnan(wrong.one_minus_pearson)
    assert math.isnan(wrong.cosine)
    assert wrong.max_abs > 0
    assert wrong.max_abs_index == (1,)
    assert wrong.max_rel >= 2 or scale == 1.7e308
    assert right.identical
    assert compare(right).nrmse == 0


def test_a_difference_of_finite_values_may_be_infinite(reduce: Any) -> None:
    a, b = tensor(1, -1.7e308, dtype=torch.float64), tensor(1, 1.7e308, dtype=torch.float64)
    comparison = compare(reduce(a, b))
    assert (comparison.max_abs, comparison.max_abs_index, comparison.mse) == (INF, (1,), INF)
    assert comparison.nonfinite_mismatched == 0
