from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from tests.sweeps import swept
from verifier.initialisation import records
from verifier.initialisation.distributions import USUAL, Constant, Normal, TruncatedNormal, Uniform, fans
from verifier.initialisation.hypotheses import (
    combined,
    holm,
    jointly,
    one_sample,
    sample,
    two_samples,
    unit_of,
)

if TYPE_CHECKING:
    from verifier.initialisation.distributions import Array, Continuous

DISTRIBUTIONS: list[Continuous] = [Normal(0.02), Uniform(0.3), TruncatedNormal(0.02, 0.04)]
TRIALS = 500


def draws(distribution: Continuous, count: int, generator: torch.Generator) -> Array:
    """Draws as torch makes them, in float32."""
    tensor = torch.empty(count)
    if isinstance(distribution, Normal):
        tensor.normal_(0, distribution.std, generator=generator)
    elif isinstance(distribution, Uniform):
        tensor.uniform_(-distribution.bound, distribution.bound, generator=generator)
    else:
        limit = distribution.limit
        nn.init.trunc_normal_(tensor, 0, distribution.scale, -limit, limit, generator=generator)
    values: Array = tensor.double().numpy()
    return values


def too_many(alarms: int, trials: int, rate: float) -> bool:
    """Whether so many alarms happen less than once in ten thousand times at the rate they should have."""
    return bool(stats.binom.sf(alarms - 1, trials, rate) < 1e-4)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
@pytest.mark.parametrize("count", swept([20, 300], [20]))
def test_each_test_against_a_distribution_is_as_rarely_wrong_as_it_says(
    distribution: Continuous, count: int
) -> None:
    generator = torch.Generator().manual_seed(count)
    found = [one_sample(draws(distribution, count, generator), distribution) for _ in range(TRIALS)]
    for tests in zip(*found, strict=True):
        for rate in (0.05, 0.01):
            alarms = sum(test.p_value <= rate for test in tests)
            assert not too_many(alarms, TRIALS, rate), (tests[0].name, rate, alarms)
        assert sum(test.p_value <= 0.2 for test in tests) > TRIALS / 10, "and not by never raising alarm"


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_each_test_of_two_tensors_is_as_rarely_wrong_as_it_says(distribution: Continuous) -> None:
    generator = torch.Generator().manual_seed(1)
    trials = 300
    found = [
        two_samples(draws(distribution, 60, generator), draws(distribution, 90, generator))
        for _ in range(trials)
    ]
    for tests in zip(*found, strict=True):
        for rate in (0.05, 0.01):
            alarms = sum(test.p_value <= rate for test in tests)
            assert not too_many(alarms, trials, rate), (tests[0].name, rate, alarms)


@pytest.mark.parametrize("families", swept([50, 200], [50]))
def test_a_family_of_tensors_raises_alarm_no_more_often_than_asked_for(families: int) -> None:
    """Counted at a rate of 5 %, so that there is something to count."""
    generator = torch.Generator().manual_seed(2)
    sizes = [20, 64, 432] * 4
    rate = 0.05
    alarms = 0
    for _ in range(families):
        p_values = []
        for number, size in enumerate(sizes):
            distribution = DISTRIBUTIONS[number % len(DISTRIBUTIONS)]
            p_values.append(combined(one_sample(draws(distribution, size, generator), distribution)))
        alarms += min(holm(p_values)) <= rate
    assert not too_many(alarms, families, rate), alarms


def test_large_tensors_of_float32_numbers_raise_no_alarm() -> None:
    generator = torch.Generator().manual_seed(3)
    for distribution in DISTRIBUTIONS:
        assert combined(one_sample(draws(distribution, 1_000_000, generator), distribution)) > 1e-3


def test_the_figures_are_those_of_scipy() -> None:
    values = draws(Normal(2.0), 500, torch.Generator().manual_seed(4))
    by_name = {test.name: test for test in one_sample(values, Normal(2.0))}
    ks = stats.kstest(values, stats.norm(scale=2).cdf)
    assert by_name["ks"].p_value == pytest.approx(ks.pvalue)
    assert by_name["mean"].p_value == pytest.approx(
        2 * stats.norm(scale=2 / math.sqrt(500)).sf(abs(values.mean()))
    )
    assert by_name["spread"].statistic == pytest.approx(math.sqrt(np.mean(values**2)) / 2)
    lower = stats.halfnorm(scale=2).cdf(np.abs(values).max()) ** 500
    assert by_name["extreme"].p_value == pytest.approx(2 * min(lower, 1 - lower))


@pytest.mark.parametrize(
    ("wrong", "telling"),
    [
        (Normal(0.02 * 1.25), "spread"),
        (Uniform(0.02 * math.sqrt(3)), "extreme"),
        (TruncatedNormal(0.02 / 0.87963, 0.04 / 0.87963), "extreme"),
    ],
    ids=["gain", "uniform", "truncated with the same spread"],
)
def test_what_is_not_from_the_distribution_is_told_by_the_test_for_it(
    wrong: Continuous, telling: str
) -> None:
    values = draws(wrong, 4000, torch.Generator().manual_seed(5))
    for expected_to_hold, expected in ((True, wrong), (False, Normal(0.02))):
        assert (combined(one_sample(values, expected)) > 1e-6) is expected_to_hold
    tests = {test.name: test.p_value for test in one_sample(values, Normal(0.02))}
    assert tests[telling] < 1e-6
    baseline = draws(Normal(0.02), 4000, torch.Generator().manual_seed(6))
    assert combined(two_samples(values, baseline)) < 1e-6
    assert combined(two_samples(values, draws(wrong, 4000, torch.Generator().manual_seed(7)))) > 1e-3


def test_values_where_the_distribution_has_none_need_no_chance() -> None:
    values = draws(Uniform(0.3), 1000, torch.Generator().manual_seed(8))
    values[17] = 0.31
    assert combined(one_sample(values, Uniform(0.3))) == 0


ROUNDED = list(
    itertools.product(
        [Normal(0.02), Uniform(0.31), TruncatedNormal(0.023, 0.046)], [torch.bfloat16, torch.float16]
    )
)


@pytest.mark.parametrize(
    ("distribution", "dtype"), swept(ROUNDED, [ROUNDED[0], ROUNDED[3], ROUNDED[4]]), ids=str
)
def test_rounded_values_raise_alarm_no_more_often_than_exact_ones(
    distribution: Continuous, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(10)
    trials = 100
    found = []
    for _ in range(trials):
        rounded = torch.from_numpy(draws(distribution, 20_000, generator)).to(dtype).double().numpy()
        found.append(one_sample(rounded, distribution, unit_of(dtype)))
    assert not any(test.name == "range" for tests in found for test in tests)
    for tests in zip(*found, strict=True):
        alarms = sum(test.p_value <= 0.01 for test in tests)
        assert not too_many(alarms, trials, 0.01), (tests[0].name, alarms)
        assert sum(test.p_value <= 0.2 for test in tests) > trials / 20, "and not by never raising alarm"


def test_the_spread_of_two_tensors_is_told_as_the_ratio_of_their_spreads_and_as_surely_as_by_fisher() -> None:
    generator = torch.Generator().manual_seed(12)
    values, others = draws(Normal(1.1), 900, generator), draws(Normal(1.0), 3600, generator)
    found = {test.name: test for test in two_samples(values, others)}["spread"]
    ratio = values.var() / others.var()
    assert found.statistic == pytest.approx(math.sqrt(ratio), rel=0.02)
    assert math.log10(found.p_value) == pytest.approx(math.log10(2 * stats.f(899, 3599).sf(ratio)), abs=1)


def test_a_bound_may_be_passed_by_one_step_of_the_dtype_and_no_more() -> None:
    values = draws(Uniform(0.3), 1000, torch.Generator().manual_seed(8))
    for dtype in (torch.bfloat16, torch.float16):
        step = unit_of(dtype)
        for beyond, certain in ((0.9 * step, False), (1.1 * step, True)):
            values[17] = 0.3 * (1 + beyond)
            assert (combined(one_sample(values, Uniform(0.3), step)) == 0) is certain
            assert combined(one_sample(values, Uniform(0.3))) == 0, "as exact values they are out of bounds"


def test_of_tests_against_two_things_each_must_fail() -> None:
    def test(against: str, p_value: float) -> records.Test:
        return records.Test(name="ks", statistic=0.0, p_value=p_value, against=against)

    both = [test("declared", 1e-9), test("declared", 0.5), test("baseline", 0.01), test("baseline", 0.2)]
    assert jointly(both) == pytest.approx(0.02)
    assert jointly(both[:2]) == pytest.approx(2e-9)


def test_one_value_far_out_is_told() -> None:
    values = draws(Normal(1.0), 1000, torch.Generator().manual_seed(9))
    values[17] = 9.0
    assert combined(one_sample(values, Normal(1.0))) < 1e-10


def test_holm_rejects_what_stepping_down_by_hand_rejects() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        p_values = list(generator.uniform(0, 0.1, size=7) ** 2)
        rejected = set()
        for rank, index in enumerate(np.argsort(p_values)):
            if p_values[index] > 0.01 / (7 - rank):
                break
            rejected.add(int(index))
        assert {k for k, p in enumerate(holm(p_values)) if p <= 0.01} == rejected


@pytest.mark.parametrize(("scale", "limit"), [(1.0, 2.0), (0.02, 2.0), (0.3, 0.1)])
def test_the_spread_of_a_truncated_normal_is_scipys(scale: float, limit: float) -> None:
    cut = limit / scale
    assert TruncatedNormal(scale, limit).std == pytest.approx(stats.truncnorm(-cut, cut, scale=scale).std())


@pytest.mark.parametrize("shape", [(10, 4), (8, 3, 7, 7), (16, 1, 3, 3), (6, 2, 5)])
def test_fans_are_those_torch_counts(shape: tuple[int, ...]) -> None:
    from torch.nn.init import _calculate_fan_in_and_fan_out

    assert fans(shape) == _calculate_fan_in_and_fan_out(torch.empty(shape))


@pytest.mark.parametrize(
    "known", [each for each in USUAL if each.name.endswith(")") and "_(" in each.name], ids=str
)
def test_a_usual_initialiser_is_the_function_of_torch_it_is_called_by(known: object) -> None:
    shape = (64, 24, 3, 3)
    torch.manual_seed(0)
    tensor = torch.empty(shape)
    call = known.name.replace("_(", "_(tensor, ", 1)  # type: ignore[attr-defined]
    eval(f"nn.init.{call}", {"nn": nn, "tensor": tensor, "sqrt": math.sqrt})
    expected = known.of(shape)  # type: ignore[attr-defined]
    assert not isinstance(expected, Constant)
    assert combined(one_sample(tensor.double().numpy().reshape(-1), expected)) > 1e-4


def test_a_sample_is_described_in_its_own_unit() -> None:
    described = sample(np.array([1.0, 2.0, 3.0, 6.0]))
    assert (described.values, described.mean, described.smallest, described.largest) == (4, 3.0, 1.0, 6.0)
    assert described.std == pytest.approx(math.sqrt(3.5))
    assert described.kurtosis == pytest.approx(stats.kurtosis([1, 2, 3, 6], fisher=False))
    assert sample(np.ones(3)).kurtosis is None
