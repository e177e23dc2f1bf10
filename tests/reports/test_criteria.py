from __future__ import annotations

import math

import msgspec
import pytest

from reports import criteria
from verifier.records import Criterion


def test_a_criterion_says_in_which_cell_it_is_judged() -> None:
    plain = Criterion(name="output MSE", value=1.0, comparison="<", limit=2.0, passed=True)
    assert criteria.sentence(plain) == "passed: output MSE is 1, required < 2"
    somewhere = msgspec.structs.replace(plain, cell="cpu/bfloat16")
    assert criteria.sentence(somewhere) == "passed: output MSE in cpu/bfloat16 is 1, required < 2"


@pytest.mark.parametrize(
    ("value", "said"), [(0.998998, "0.998998"), (0.9989999, "0.9989999"), (0.999, "0.999"), (0.5, "0.5")]
)
def test_what_was_measured_can_be_told_from_what_is_required(value: float, said: str) -> None:
    near = Criterion(name="Pearson", value=value, comparison=">", limit=0.999, passed=False)
    assert criteria.sentence(near) == f"failed: Pearson is {said}, required > 0.999"


def test_a_criterion_that_is_no_number_says_why() -> None:
    pearson = Criterion(name="Pearson", value=math.nan, comparison=">", limit=0.999, passed=False)
    assert criteria.sentence(pearson) == (
        "failed: Pearson is undefined, for one side is constant or not finite, required > 0.999"
    )
