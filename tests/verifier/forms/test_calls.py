"""Numbers of a file in single precision are read as those that they are the rounding of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verifier.forms.calls import meant, number


@pytest.mark.parametrize(
    "value",
    [
        *(1e-5, 0.1, 0.125, 1e-12, 1.702, 0.044715, 10000.0, 0.0),
        *(1 / 6, 2 / 3, -1 / 3, 80**-0.5, 80**-0.25, math.sqrt(768), -(768**-0.5), math.sqrt(2)),
        *(math.pi, math.sqrt(2 / math.pi), math.log(2)),
    ],
)
def test_what_programs_write_is_found_again(value: float) -> None:
    assert meant(np.float32(value)) == pytest.approx(value, rel=1e-15)


@given(st.floats(width=32, allow_nan=False))
@example(float(np.finfo(np.float32).max))
@example(float(np.finfo(np.float32).min))
def test_whatever_it_is_it_rounds_to_what_is_stored_or_next_to_it(value: float) -> None:
    stored, found = np.float32(value), np.float32(meant(np.float32(value)))
    with np.errstate(over="ignore"):  # what comes after the largest number is infinity
        after, before = (np.nextafter(stored, np.float32(end)) for end in (np.inf, -np.inf))
    assert found in {stored, after, before}


@pytest.mark.parametrize("size", [12, 24, 48, 80, 96, 768])
def test_a_root_of_a_number_that_was_rounded_is_found_again(size: int) -> None:
    scale = np.float32(1 / math.sqrt(size))
    assert meant(np.sqrt(scale)) == pytest.approx(size**-0.25, rel=1e-15)


def test_integers_and_doubles_are_themselves() -> None:
    assert number(np.array([3])) == 3
    assert number(np.array(0.1)) == 0.1


def test_a_number_that_was_learnt_is_seldom_taken_for_one_that_was_written() -> None:
    learnt = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    assert np.mean([number(each) != float(each) for each in learnt]) < 0.03


@pytest.mark.parametrize("value", [-3.4028234663852886e38, 3.4028234663852886e38, 1.1754943508222875e-38])
def test_bounds_of_a_dtype_are_themselves(value: float) -> None:
    assert meant(np.float32(value)) == value
