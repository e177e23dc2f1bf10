"""A line through two measurements."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from verifier.estimate.rates import Line

SECONDS = st.floats(1e-6, 1e3)


@given(SECONDS, SECONDS, st.integers(2, 64))
def test_it_goes_through_what_most_samples_take_and_never_below_nothing(
    one: float, some: float, samples: int
) -> None:
    line = Line.through(one, some, samples)
    assert line.fixed >= 0
    assert line.each >= 0
    assert abs(line.at(samples) - some) <= 1e-9 * some
    if one <= some <= one * samples:
        assert abs(line.at(1) - one) <= 1e-9 * some


def test_of_one_sample_it_is_proportional() -> None:
    assert Line.through(2.0, 2.0, 1).at(3) == 6.0
