"""Numbers agree with 60-digit arithmetic where naive sums have no digit left."""

from __future__ import annotations

import functools
import math
import operator
from typing import TYPE_CHECKING, Any

import pytest
import scipy.stats
import torch

from verifier.metrics import METRICS, Moments, collect, kernel_torch, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

N = 4500  # more than two blocks of the compiled loops
F32, F64 = torch.float32, torch.float64


def noise(seed: int, dtype: torch.dtype = F32, n: int = N) -> Tensor:
    return torch.randn(n, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def figures(moments: Moments) -> dict[str, float]:
    return {name: metric(moments) for name, metric in METRICS.items()}


def assert_accurate(measured: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        # Near 0 a correlation is the small difference of sums of size 1, whose rounding is absolute.
        # A relative error of 1e-9 in nrmse is one of 8.7e-9 dB, also where the decibels are near 0.
        absolute = {"pearson": 1e-14, "cosine": 1e-14, "sqnr_db": 1e-8}.get(name, 0.0)
        assert measured[name] == pytest.approx(value, rel=1e-9, abs=absolute, nan_ok=True), name


def about(mean: float, deviation: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    a = mean + deviation * noise(1, dtype)
    return a, a + 0.1 * deviation * noise(2, dtype)


def starting_with(value: float, count: int) -> tuple[Tensor, Tensor]:
    """The first elements say nothing about the rest."""
    a = 1e4 + noise(1)
    a[:count] = value
    return a, a + 1e-3 * noise(2)


def scaled(factor: float, relative: float, dtype: torch.dtype, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    a = noise(1, dtype)
    return a, factor * a + abs(factor) * relative * noise(2, dtype) + offset


def one_element_off() -> tuple[Tensor, Tensor]:
    a = noise(1)
    b = a.clone()
    b[-1] += 1
    return a, b


CASES: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "unrelated": lambda: (noise(1), noise(2)),
    "unrelated about 1e6": lambda: (1e6 + noise(1), 1e6 + noise(2)),
    "mean 1e4, deviation 1e-2, float32": lambda: about(1e4, 1e-2, F32),
    "mean 1e6, deviation 1, float32": lambda: about(1e6, 1.0, F32),
    "mean 1e6, deviation 1e-2, float32 quanta": lambda: about(1e6, 1e-1, F32),
    "mean -1e6, deviation 1e-6, float64": lambda: about(-1e6, 1e-6, F64),
    "relative noise 1e-7, float32": lambda: scaled(1.0, 1e-7, F32),
    "relative noise 1e-13, float64": lambda: scaled(1.0, 1e-13, F64),
    "relative noise 1e-13 about 1e3": lambda: (1e3 + noise(1, F64), 1e3 + scaled(1.0, 1e-10, F64)[1]),
    "one element off": one_element_off,
    "offset by 5": lambda: scaled(1.0, 1e-7, F64, offset=5.0),
    "twice, float32": lambda: scaled(2.0, 1e-6, F32),
    "twice, float64": lambda: scaled(2.0, 1e-6, F64),
    "twice, offset by -3": lambda: scaled(2.0, 1e-6, F64, offset=-3.0),
    "a millionth": lambda: scaled(1e-6, 1e-5, F64),
    "a million times": lambda: scaled(1e6, 1e-5, F64),
    "opposite": lambda: scaled(-1.0, 1e-6, F64),
    "float32 subnormals": lambda: (1e-40 * noise(1), 1e-40 * noise(2)),
    "first block zero": lambda: starting_with(0.0, 2048),
    "first block far away": lambda: starting_with(-1e6, 2048),
    "an outlier first": lambda: starting_with(1e7, 1),
    "zeros in the baseline": lambda: (noise(1).relu(), noise(1).relu() + 1e-3 * noise(2)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_metrics_are_those_of_exact_arithmetic(case: Callable[[], Any], reduce: Any, oracle: Any) -> None:
    a, b = case()
    assert_accurate(figures(reduce(a, b)), oracle(a, b))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_moments_of_uneven_pieces_merge_into_those_of_the_whole(
    case: Callable[[], Any], reduce: Any, oracle: Any
) -> None:
    a, b = case()
    sizes = [1, 2, 997, 0, 3000, 500]
    pieces = [
        reduce(x, y, offset)
        for x, y, offset in zip(
            a.split(sizes), b.split(sizes), [sum(sizes[:k]) for k in range(len(sizes))], strict=True
        )
    ]
    whole = reduce(a, b)
    for order in (pieces, pieces[::-1]):
        merged = functools.reduce(Moments.merge, order, Moments.empty())
        assert_accurate(figures(merged), oracle(a, b))
        assert merged.elements == whole.elements
        assert merged.max_abs_index == whole.max_abs_index


@pytest.mark.parametrize("factor", [2.0, -0.3, 1e-9, 3e7])
@pytest.mark.parametrize("relative", [1e-8, 1e-10, 1e-12])
def test_the_residual_of_a_scaled_copy_is_known_up_to_the_rounding_of_the_copy(
    factor: float, relative: float, reduce: Any, oracle: Any
) -> None:
    a, b = scaled(abs(factor), relative, F64)
    measured, expected = figures(reduce(a, b))["one_minus_pearson"], oracle(a, b)["one_minus_pearson"]
    # b - factor * a is rounded at 2^-53 of b's own size, so sqrt(1 - r), its size relative to b, is off by
    # at most about that.
    assert math.sqrt(measured) == pytest.approx(math.sqrt(expected), rel=5e-10, abs=2e-16)


def test_an_exact_multiple_correlates_to_the_last_digit(reduce: Any) -> None:
    a = noise(1)
    moments = reduce(a, 2 * a)
    assert METRICS["one_minus_pearson"](moments) == 0
    assert METRICS["pearson"](moments) == 1
    assert METRICS["nrmse"](moments) == pytest.approx(1, rel=1e-12)


def test_one_minus_pearson_keeps_its_digits_where_scipy_has_none(reduce: Any) -> None:
    a, b = scaled(1.0, 1e-13, F64)
    assert 1 - scipy.stats.pearsonr(a.numpy(), b.numpy()).statistic == pytest.approx(0, abs=1e-15)
    assert METRICS["one_minus_pearson"](reduce(a, b)) == pytest.approx(5e-27, rel=0.1)


def test_pearson_is_scipys_where_scipy_is_well_conditioned(reduce: Any) -> None:
    a, b = noise(1, F64), noise(1, F64) + noise(2, F64)
    expected = scipy.stats.pearsonr(a.numpy(), b.numpy()).statistic
    assert METRICS["pearson"](reduce(a, b)) == pytest.approx(expected, rel=1e-12)


def test_both_reductions_agree_over_many_chunks() -> None:
    a = 1e3 + noise(1, n=700_001)
    b = a + 1e-3 * noise(2, n=700_001)
    assert kernel_torch.reduce(a, b, 0).values.shape[0] == math.ceil(700_001 / kernel_torch.CHUNK_CPU)
    (compiled,) = collect([measure(a, b)])
    by_torch = kernel_torch.reduce_now(a, b, 0)
    assert_accurate(figures(compiled), figures(by_torch))
    assert compiled.max_abs_index == by_torch.max_abs_index


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    a = noise(1, n=4_500_001)
    b = a + 1e-3 * noise(2, n=4_500_001)
    before = torch.get_num_threads()
    expected = measure(a, b).moments
    try:
        torch.set_num_threads(threads)
        moments = measure(a, b).moments
    finally:
        torch.set_num_threads(before)
    assert operator.eq(moments, expected)
