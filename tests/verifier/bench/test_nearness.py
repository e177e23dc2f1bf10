"""Whether two results of one program are as near to float64 as its own rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from verifier.bench.nearness import Error, Few, near, near_enough

UNIT = 2.0**-24


def test_another_order_of_adding_is_near_though_few_numbers_of_a_channel_are_left() -> None:
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(16, 64, generator=generator)
        weight = torch.randn(64, 8, generator=generator)
        order = torch.randperm(64, generator=generator)
        exact = ((x.double() @ weight.double()) - 8).relu()
        program, other = ((x @ weight) - 8).relu(), ((x[:, order] @ weight[order]) - 8).relu()
        assert near(2.0**-24, exact, program, other, Error.of(exact, program)).near, seed


def products(seed: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Products of 32 samples in float64, in single precision, and added in another order."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 512, generator=generator)
    weight = torch.randn(512, channels, generator=generator)
    order = torch.randperm(512, generator=generator)
    return x.double() @ weight.double(), x @ weight, x[:, order] @ weight[order]


def test_what_two_samples_tell_is_enough_for_another_order_of_adding() -> None:
    told = []
    for seed in range(20):
        exact, program, other = products(seed, 1000)
        few = Few(exact[[31, 0]], program[[31, 0]])
        told.append(near_enough(UNIT, program, other, few).near)
        assert near(UNIT, exact, program, other, Error.of(exact, program)).near, seed
    assert all(told)


@pytest.mark.parametrize("channels", [9, 1000])
@pytest.mark.parametrize("seed", range(10))
def test_a_channel_or_sample_that_is_wrong_is_not_near_by_what_two_samples_tell(
    seed: int, channels: int
) -> None:
    exact, program, other = products(seed, channels)
    few = Few(exact[[31, 0]], program[[31, 0]])
    channel, sample = other.clone(), other.clone()
    channel[:, seed % channels] *= 1 + 1e-4
    sample[seed % 8] *= 1 + 1e-5
    assert not near_enough(UNIT, program, channel, few).near
    assert not near_enough(UNIT, program, sample, few).near
    assert not near_enough(UNIT, program, channel, None).near


def test_a_small_channel_among_large_ones_is_not_judged_by_their_errors() -> None:
    exact, program, other = products(0, 64)
    sizes = torch.where(torch.arange(64) == 5, 1.0, 1e4)
    exact, program, other = exact * sizes, program * sizes, other * sizes
    other[:, 5] *= 1.001
    assert not near_enough(UNIT, program, other, Few(exact[:2], program[:2])).near


@pytest.mark.parametrize("faint", [1e-1, 1e-3, 1e-5])
def test_two_samples_that_are_faint_do_not_excuse_the_others(faint: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(32, 64, generator=generator), torch.randn(64, 8, generator=generator))
    x[[31, 0]] *= faint
    bias = torch.randn(8, generator=generator)
    exact, program = x.double() @ weight.double() + bias - bias, x @ weight + bias - bias
    few = Few(exact[[31, 0]], program[[31, 0]])
    wrong = program.clone()
    wrong[:, 3] *= 1 + 1e-4
    assert not near_enough(UNIT, program, wrong, few).near
    assert not near_enough(UNIT, program, program * (1 + 1e-4), few).near


def test_two_samples_that_err_more_than_others_do_not_speak_for_them() -> None:
    exact, program, other = products(0, 64)
    few = Few(exact[[31, 0]], program[[31, 0]] * (1 + 1e-4))
    assert not near_enough(UNIT, program, other * (1 + 1e-4), few).near
