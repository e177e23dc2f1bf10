"""What is said of a quantiser, against figures made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.forms.quantisers import Grid, Rounding, Stored
from verifier.quantised.floats import Float, bias_of, within_half_a_step
from verifier.quantised.sane import figures, misread, off_zero, outlying, uneven, unsuited


def grid(scale: float = 0.1, zero: int = 0, low: int = -128, high: int = 127) -> Grid:
    return Grid(torch.tensor(scale), torch.tensor(float(zero)), low, high)


def rounding(made: Grid, back: Grid | None = None, *, positive: bool = False, name: str = "x") -> Rounding:
    return Rounding(name, ("layer",), ("layer",), made, back or made, positive=positive)


def test_a_grid_rounds_to_the_nearest_code_and_cuts_off_beyond_the_last() -> None:
    x = torch.tensor([0.0, 0.14, 0.16, -0.25, 99.0, -99.0])
    assert grid().codes(x).tolist() == [0, 1, 2, -2, 127, -128]
    assert grid().values(grid().codes(x)).tolist() == pytest.approx([0, 0.1, 0.2, -0.2, 12.7, -12.8])
    assert grid().clipped(x).tolist() == [False, False, False, False, True, True]


def test_a_grid_of_slices_rounds_each_with_its_own_scale() -> None:
    made = Grid(torch.tensor([1.0, 10.0]), torch.tensor([0.0, 5.0]), 0, 255, axis=1)
    assert made.codes(torch.tensor([[3.2, 41.0], [-1.0, -70.0]])).tolist() == [[3, 9], [0, 0]]
    assert made.fits((7, 2))
    assert not made.fits((2, 7))


@given(
    st.floats(1e-3, 1e3),
    st.integers(-100, 100),
    st.lists(st.floats(-200, 200), min_size=1, max_size=40),
)
def test_codes_of_a_grid_are_always_within_half_a_step(scale: float, zero: int, steps: list[float]) -> None:
    made, x = grid(scale, zero), torch.tensor(steps, dtype=torch.float64) * scale
    assert within_half_a_step(made.codes(x), made, x)


@pytest.mark.parametrize("off", [1, -1])
def test_a_code_beside_the_nearest_is_not_within_half_a_step(off: int) -> None:
    x = torch.linspace(-5, 5, 33, dtype=torch.float64)
    codes = grid().codes(x)
    codes[7] += off
    assert not within_half_a_step(codes, grid(), x)


def test_figures_of_numbers_that_fill_a_quarter_of_the_range() -> None:
    told = figures(torch.linspace(-3.175, 3.175, 1001), grid())
    assert told.clipped == 0
    assert told.used == pytest.approx(0.25, abs=1e-3)
    assert told.finer == pytest.approx(0.25, rel=0.05)  # half the step, a quarter of the mean square
    assert told.coarser == pytest.approx(4, rel=0.05)


def test_figures_of_zeros_say_nothing_of_the_range() -> None:
    assert math.isnan(figures(torch.zeros(5), grid()).used)


def test_codes_read_otherwise_than_they_were_made_are_told() -> None:
    other = misread(rounding(grid(), grid(0.2)))
    assert other is not None
    assert other.code == "quantiser-scale"
    moved = misread(rounding(grid(), grid(zero=3)))
    assert moved is not None
    assert moved.code == "quantiser-zero-point"
    assert misread(rounding(grid())) is None


@pytest.mark.parametrize(("zero", "wrong"), [(0, False), (16, True), (127, False), (128, False), (255, True)])
def test_what_cannot_be_negative_starts_at_the_first_code_or_in_the_middle(zero: int, wrong: bool) -> None:
    made = grid(zero=zero, low=0, high=255)
    assert (off_zero(rounding(made, positive=True)) is not None) == wrong
    assert off_zero(rounding(made)) is None


def test_one_zero_point_off_zero_among_many_is_told() -> None:
    usual = [rounding(grid(), name=str(k)) for k in range(8)]
    assert [each.tensor for each in uneven([*usual, rounding(grid(zero=2), name="odd")])] == ["odd"]
    assert list(uneven([*usual, *(rounding(grid(zero=2), name=f"odd{k}") for k in range(2))])) == []
    assert list(uneven(usual)) == []


@pytest.mark.parametrize(("factor", "told"), [(2.0, ["odd"]), (0.5, ["odd"]), (1.3, []), (0.8, [])])
def test_a_range_that_is_another_multiple_than_all_others_is_told(factor: float, told: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    given = []
    for k in range(8):
        x = torch.randn(4000, generator=generator)
        scale = float(x.abs().max()) / 127 * (1 + 0.1 * (-1) ** k)
        given.append((rounding(grid(scale), name=str(k)), grid(scale), x))
    x = torch.randn(4000, generator=generator)
    odd = grid(float(x.abs().max()) / 127 * factor)
    found = [each.tensor for each in outlying([*given, (rounding(odd, name="odd"), odd, x)])]
    assert found == told


def test_ranges_that_all_clip_alike_are_no_fault() -> None:
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    made = grid(float(x.abs().max()) / 127 / 2)
    assert list(outlying([(rounding(made, name=str(k)), made, x) for k in range(9)])) == []


def weights(*factors: float | torch.Tensor, axis: int | None = None) -> list[tuple[Stored, Float]]:
    """Weights (8, 50), each quantised with its own scale, or that of its rows, times a factor."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for k, factor in enumerate(factors):
        x = torch.randn(8, 50, generator=generator).double()
        largest = x.abs().max() if axis is None else x.abs().amax(1)
        made = Grid(largest / 127 * factor, torch.zeros_like(largest), -128, 127, axis)
        stored = Stored(f"w{k}", (f"layer{k}",), made.codes(x).long(), made)
        found.append((stored, Float(f"w{k}", x)))
    return found


@pytest.mark.parametrize("factor", [1 / 2, 1 / 8, 1 / 64, 1 / 1000, 2, 4, 500])
def test_a_scale_that_is_off_by_any_factor_is_told_beside_one_other(factor: float) -> None:
    told = list(unsuited(weights(1.0, factor), {}))
    assert [(each.tensor, each.code) for each in told] == [("w1", "quantiser-scale")]
    assert ("too small" in told[0].said) == (factor < 1)


@pytest.mark.parametrize(
    ("factor", "wrong"), [(1.0, False), (2.0, False), (4.0, True), (500, True), (1 / 8, True)]
)
def test_a_weight_by_itself_may_leave_half_of_its_range_unused(factor: float, wrong: bool) -> None:
    assert bool([*unsuited(weights(factor), {})]) == wrong


def test_one_scale_of_many_that_is_too_small_is_told() -> None:
    factors = torch.ones(8, dtype=torch.float64)
    assert list(unsuited(weights(factors, factors, axis=0), {})) == []
    factors[3] = 1 / 16
    [told] = unsuited(weights(1.0, factors, axis=0), {})
    assert "with 16 times the scale" in told.evidence[0]


def test_a_percentile_that_clips_a_little_is_no_fault() -> None:
    x = torch.randn(8, 500, generator=torch.Generator().manual_seed(0)).double()
    x[0, 0] = 100
    made = grid(10 / 127)
    assert list(unsuited([(Stored("w", ("layer",), made.codes(x).long(), made), Float("w", x))], {})) == []


def test_a_weight_of_zeros_is_rounded_well_by_any_scale() -> None:
    x = torch.zeros(8, 50, dtype=torch.float64)
    none = Stored("w", ("layer",), x.long(), grid(1.0)), Float("w", x)
    assert list(unsuited([*weights(1.0, 1.0), none], {})) == []


@pytest.mark.parametrize(
    ("scale", "same"), [(0.001, True), (0.002, True), (1.2 / 127, True), (1e8, False), (0.5, False)]
)
def test_a_bias_is_kept_in_steps_of_products_or_in_many_of_its_own(scale: float, same: bool) -> None:
    exact = torch.linspace(-1.2, 1.1, 20, dtype=torch.float64)
    made = grid(scale, low=-(2**31), high=2**31 - 1)
    bias = Stored("b", ("layer",), made.codes(exact).long(), made, bias=True, step=torch.tensor(0.001))
    assert (bias_of(bias, Float("w", torch.zeros(20, 3), exact)) is not None) == same


@pytest.mark.parametrize(("size", "same"), [(0.0004, True), (0.004, False)])
def test_a_bias_is_left_out_where_it_is_less_than_half_a_step_of_the_products(
    size: float, same: bool
) -> None:
    exact = torch.full((20,), size, dtype=torch.float64)
    made = grid(0.01, low=-(2**31), high=2**31 - 1)
    bias = Stored("b", ("layer",), torch.zeros(20).long(), made, bias=True, step=torch.tensor(0.001))
    assert (bias_of(bias, Float("w", torch.zeros(20, 3), exact)) is not None) == same
