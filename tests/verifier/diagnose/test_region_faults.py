"""Faults in regions that are written with other operators: each is one culprit, its cause an edit that mends it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import torch

from tests.sweeps import swept
from tests.verifier.diagnose.region_faults import REGION_FAULTS
from tests.verifier.diagnose.regions import Host
from verifier import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from verifier.storage.saving import Verification

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


def compared(name: str, region: Callable[..., Tensor]) -> Verification:
    fault = REGION_FAULTS[name]
    x = torch.randn(fault.inputs, generator=torch.Generator().manual_seed(1))
    return verify(Host(fault.baseline).eval(), Host(region).eval(), x)


@pytest.mark.parametrize("name", swept(sorted(REGION_FAULTS.keys() - MISPAIRED), ALWAYS))
def test_a_fault_in_a_region_is_one_culprit_and_its_cause_an_edit(name: str) -> None:
    fault = REGION_FAULTS[name]

    culprits = compared(name, fault.wrong).culprits

    assert len(culprits) == fault.culprits
    for culprit in culprits:
        assert (culprit.candidate or culprit.baseline) not in {"first", "last"}
        assert culprit.cause is not None
        assert culprit.cause.status == "confirmed"
        assert re.search(fault.words, f"{culprit.cause.code} {culprit.cause.summary}")


@pytest.mark.parametrize("name", sorted(MISPAIRED))
@pytest.mark.thorough
def test_a_fault_among_wrong_pairs_is_found(name: str) -> None:
    assert compared(name, REGION_FAULTS[name].wrong).verdict == "diverged"


@pytest.mark.parametrize("name", swept(sorted(REGION_FAULTS), ALWAYS))
def test_the_region_without_the_fault_is_the_baselines(name: str) -> None:
    result = compared(name, REGION_FAULTS[name].right)
    assert (result.verdict, result.culprits) == ("match", ())
