"""Faults in regions that are written with other operators: each is one culprit, its cause an edit that mends it."""

from __future__ import annotations

import pytest

from tests.mutants.ports.region_faults import REGION_PORTS
from tests.mutants.ports.scoring import compared, marks
from tests.sweeps import swept

ALWAYS = {
    "constants of a hard swish",
    "eps added to the root",
    "halves of a gate exchanged",
    "heads merged as they lie",
    "norm over all for groups",
    "pads on all sides",
    "softmax of the chosen",
    "table from one",
    "unbiased variance",
}
# Sites that compute other things are paired here by their place, and each is then blamed for not being the other.
MISPAIRED = {"rotation off by one", "shares renormalised"}


@pytest.mark.parametrize("name", swept(sorted(REGION_PORTS.keys() - MISPAIRED), ALWAYS))
def test_a_fault_in_a_region_is_one_culprit_and_its_cause_an_edit(name: str) -> None:
    found = compared(REGION_PORTS[name], REGION_PORTS[name].wrong)

    assert marks(REGION_PORTS[name], found) == (True, True, True), [row.cause for row in found.culprits]


@pytest.mark.parametrize("name", sorted(MISPAIRED))
@pytest.mark.thorough
def test_a_fault_among_wrong_pairs_is_found(name: str) -> None:
    assert compared(REGION_PORTS[name], REGION_PORTS[name].wrong).verdict == "diverged"


@pytest.mark.parametrize("name", swept(sorted(REGION_PORTS), ALWAYS))
def test_the_region_without_the_fault_is_the_baselines(name: str) -> None:
    result = compared(REGION_PORTS[name], REGION_PORTS[name].right)
    assert (result.verdict, result.culprits) == ("match", ())
