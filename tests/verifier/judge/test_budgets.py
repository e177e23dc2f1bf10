from __future__ import annotations

import math

import pytest
from msgspec.structs import replace
from scipy import special

from verifier.judge import STRICT, numerics_budget

ONLY_CHANCE = replace(STRICT, factor=1e12, accuracy_total=0.0, accuracy_floor=0.0, summation=0.0)


def allowed(elements: int) -> float:
    """How many times a baseline's distance from float64 the candidate's may be by chance alone."""
    found = numerics_budget(ONLY_CHANCE, "bfloat16", 2.0**-8, 1.0, None, elements=elements).oracle_total
    assert found is not None
    return found


def test_the_error_of_few_numbers_is_larger_by_chance_as_often_as_the_f_distribution_says() -> None:
    few = range(1, 100)
    expected = [1 / math.sqrt(special.fdtri(elements, elements, 1e-4)) for elements in few]
    assert [allowed(elements) for elements in few] == pytest.approx(expected, rel=1e-12)


def test_chance_is_nothing_where_there_are_none_or_many_numbers() -> None:
    assert allowed(0) == allowed(100) == 0
