"""The part of an error that all samples share, against what was put in."""

from __future__ import annotations

import math

import pytest
import torch

from verifier.judge.budgets import ROUNDING, SUMMATION
from verifier.metrics.systematic import systematic


def tensors(samples: int = 2, channels: int = 64, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, channels, size, size, generator=generator, dtype=torch.float64) + 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_single_elements_leaves_nothing(dtype: torch.dtype) -> None:
    exact = tensors()
    found = systematic(exact, exact.to(dtype))
    assert found is not None
    assert found < 0.05 * torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_a_gain_and_an_offset_of_each_channel_are_found_below_rounding(samples: int) -> None:
    exact = tensors(samples)
    generator = torch.Generator().manual_seed(1)
    gains, offsets = (
        torch.randn(1, 64, 1, 1, generator=generator, dtype=torch.float64) * 2**-9 for _ in range(2)
    )
    error = exact * gains + offsets
    found = systematic(exact, (exact + error).to(torch.bfloat16))
    expected = error.square().mean().sqrt() / exact.square().mean().sqrt()
    assert found is not None
    assert math.isclose(found, expected, rel_tol=0.25)


def test_what_differs_from_sample_to_sample_is_not_shared() -> None:
    exact = tensors(8, 256)
    generator = torch.Generator().manual_seed(2)
    each = torch.randn(8, 256, 1, 1, generator=generator, dtype=torch.float64) * 2**-8
    found = systematic(exact, exact * (1 + each))
    assert found is not None
    assert found < 2**-8 / 4


def test_constant_channels_have_an_offset_but_no_gain() -> None:
    exact = torch.ones(2, 8, 4, 4, dtype=torch.float64)
    found = systematic(exact, exact * 1.5)
    assert found is not None
    assert math.isclose(found, 0.5, rel_tol=1e-9)


@pytest.mark.parametrize(
    "shape", [(1, 8, 4, 4), (2, 8), (2, 8, 16), (2, 8, 1, 1), (0, 8, 4, 4), (2, 0, 4, 4)]
)
def test_too_little_to_tell_is_none(shape: tuple[int, ...]) -> None:
    exact = torch.ones(shape, dtype=torch.float64)
    assert systematic(exact, exact) is None


def test_what_is_not_finite_is_left_to_others() -> None:
    exact = tensors()
    spoilt = exact.clone()
    spoilt[0, 0, 0, 0] = torch.inf
    assert systematic(exact, spoilt) == 0
    assert systematic(torch.zeros_like(exact), torch.zeros_like(exact)) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_one_rounding_costs_what_the_formula_says(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.exp(4 * torch.randn(200_000, generator=generator, dtype=torch.float64).clamp(-2, 2))
    relative = (values.to(dtype).double() - values) / values
    measured = float(relative.square().mean().sqrt()) / (torch.finfo(dtype).eps / 2)
    assert math.isclose(measured, ROUNDING, rel_tol=0.02)


@pytest.mark.parametrize("terms", [64, 1024])
def test_adding_terms_one_by_one_costs_what_the_formula_says(terms: int) -> None:
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(terms, 20_000, generator=generator)
    total = torch.zeros(20_000)
    for row in values:
        total = total + row
    exact = values.double().sum(0)
    measured = float((total.double() - exact).norm() / exact.norm()) / 2**-24
    assert math.isclose(measured, SUMMATION * math.sqrt(terms), rel_tol=0.1)
