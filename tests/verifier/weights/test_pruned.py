"""Channels that torch's own pruning masks: whose tensors they are, and what becomes of the classes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from verifier import verify
from verifier.gate.policy_files import policy_for

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def net() -> Any:
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False), nn.ReLU())
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()
    nn.init.normal_(model.get_parameter("7.weight"), std=30.0)  # classes that are told apart
    return model


def masked(model: Any, channels: int = 2) -> Any:
    """A copy without the channels of the first convolution that are smallest, and none less in the second."""
    model = copy.deepcopy(model)
    prune.ln_structured(model[0], "weight", amount=channels, n=2, dim=0)  # type: ignore[no-untyped-call]
    prune.identity(model[3], "weight")  # type: ignore[no-untyped-call]
    return model


@pytest.mark.parametrize("weights", ["transfer", "calibrated", "as-is"])
def test_masked_tensors_are_the_baselines_and_masks_need_no_partner(weights: str) -> None:
    found = verify(net(), masked(net()), X, weights=weights, localise=False)
    assert found.weights.parameter_map["0.weight_orig"] == "0.weight"
    assert found.weights.parameter_map["3.weight_orig"] == "3.weight"
    assert (found.weights.unmapped_baseline, found.weights.unmapped_candidate) == ((), ())
    assert found.verdict == "diverged"  # another function, on purpose


def test_a_renamed_network_is_pruned_too() -> None:
    renamed = nn.Sequential(masked(net())).eval()
    found = verify(net(), renamed, X, localise=False)
    assert found.weights.parameter_map["0.0.weight_orig"] == "0.weight"


@pytest.mark.parametrize("weights", ["transfer", "as-is"])
def test_what_channels_do_to_the_classes_is_judged_by_the_policy_for_it(weights: str) -> None:
    policy = policy_for("pruned", "net", "pruned")
    none, most = (verify(net(), masked(net(), count), X, weights=weights, policy=policy) for count in (0, 7))
    assert none.verdict == "match"
    assert most.verdict == "diverged"
    assert most.reason.startswith("budgets of the task")


def test_a_fault_beside_a_mask_is_found() -> None:
    faulty = masked(net(), 0)
    faulty[1].eps = 1e-2
    found = verify(net(), faulty, X)
    assert found.verdict == "diverged"
    assert any(each.baseline == "1" for each in found.culprits)


def test_a_mask_of_the_baselines_is_no_partner_either() -> None:
    permanent = masked(net())
    for k in (0, 3):
        prune.remove(permanent[k], "weight")  # type: ignore[no-untyped-call]
    found = verify(masked(net()), permanent, X)
    assert found.verdict == "match"
    assert not any("mask" in str(used) for used in found.weights.parameter_map.values())
