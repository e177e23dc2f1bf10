"""Numbers of a file in single precision are read as those that they are the rounding of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
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
def test_whatever_it_is_it_rounds_to_what_is_stored(value: float) -> None:
    assert np.float32(meant(np.float32(value))) == np.float32(value)


def test_integers_and_doubles_are_themselves() -> None:
    assert number(np.array([3])) == 3
    assert number(np.array(0.1)) == 0.1


def test_a_number_that_was_learnt_is_seldom_taken_for_one_that_was_written() -> None:
    learnt = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    assert np.mean([number(each) != float(each) for each in learnt]) < 0.03
