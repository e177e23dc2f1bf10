"""The sums of a tensor are those that its numbers have one by one."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.metrics.content import sums

NUMBERS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200)


@given(NUMBERS)
def test_sums_are_those_of_the_numbers(numbers: list[float]) -> None:
    found = sums(torch.tensor(numbers))
    exact = [math.fsum(each**power for each in numbers) for power in (1, 2, 3)]
    sizes = [math.fsum(abs(each) ** power for each in numbers) for power in (1, 2, 3)]
    for value, right, size in zip((found.total, found.squares, found.cubes), exact, sizes, strict=True):
        assert abs(value - right) <= 1e-13 * size
    assert (found.least, found.most) == (min(numbers), max(numbers))


def test_what_is_not_finite_shows_in_the_squares() -> None:
    for value in (math.nan, math.inf, -math.inf):
        assert not math.isfinite(sums(torch.tensor([1.0, value])).squares)


def test_the_order_does_not_matter() -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    one, other = sums(x), sums(x.permute(2, 0, 1))
    assert math.isclose(one.cubes, other.cubes, rel_tol=1e-12)


def test_what_is_expanded_counts_as_often_as_it_stands_there() -> None:
    wide = torch.randn(2, 3, 1, dtype=torch.float64).expand(2, 3, 50)
    one, other = sums(wide), sums(wide.contiguous())
    assert all(math.isclose(a, b, rel_tol=1e-12) for a, b in zip(one, other, strict=True))
