"""Channels that torch's own pruning masks: whose tensors they are, and what becomes of the classes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from verifier import verify
from verifier.gate.policy_files import policy_for

if TYPE_CHECKING:
    from collections.abc import Callable

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


class Block(nn.Module):
    """A residual block of which the channels inside may be fewer."""

    def __init__(self, inside: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(6, inside, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, 6, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(inside)))


def blocks(*, shift: float = 0.0) -> Any:
    """Three blocks, of which every third channel inside gives 0, or a number that the ReLU behind it cuts off."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), Block(), Block(), Block(), nn.Flatten(), nn.Linear(1176, 5))
    for block in (model.get_submodule(str(k)) for k in (1, 2, 3)):
        assert isinstance(block, Block)
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            block.bn1.weight[::3] = 0.0 if shift == 0 else 0.1
            block.bn1.bias[::3] = shift
    return model.eval()


def cut(model: Any) -> Any:
    """A copy without these channels."""
    made = copy.deepcopy(model)
    kept = torch.tensor([1, 2, 4, 5, 7])
    for k in (1, 2, 3):
        block, before = Block(5), made[k]
        block.conv2.weight.data = before.conv2.weight.data[:, kept].clone()
        block.conv1.weight.data = before.conv1.weight.data[kept].clone()
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(block.bn1, name).data = getattr(before.bn1, name).data[kept].clone()
        block.bn2 = before.bn2
        made[k] = block
    return made.eval()


@pytest.mark.parametrize("weights", ["transfer", "calibrated", "as-is"])
def test_channels_that_count_for_nothing_may_be_cut_out(weights: str) -> None:
    found = verify(blocks(), cut(blocks()), X, weights=weights)
    assert (found.verdict, found.culprits) == ("match", ())
    assert found.coverage.baseline_share == 1.0


@pytest.mark.parametrize("weights", ["transfer", "calibrated", "as-is"])
def test_a_fault_where_channels_are_cut_out_is_found_alone(weights: str) -> None:
    faulty = cut(blocks())
    faulty[2].bn2.eps = 1e-2
    found = verify(blocks(), faulty, X, weights=weights)
    assert [culprit.baseline for culprit in found.culprits] == ["2.bn2"]
    assert found.culprits[0].cause is not None
    assert found.culprits[0].cause.code == "batchnorm-eps"


def test_channels_that_are_cut_out_and_count_are_found() -> None:
    faulty = blocks()
    with torch.no_grad():
        faulty[2].bn1.bias[3] = 0.5
    found = verify(faulty, cut(blocks()), X, weights="as-is")
    assert found.verdict == "diverged"
    assert found.first_divergence is not None
    assert str(found.first_divergence.baseline).startswith("2.")


def test_channels_that_only_the_given_inputs_leave_silent_are_no_match() -> None:
    baseline = blocks(shift=-2.0)
    assert torch.equal(baseline(X), cut(baseline)(X))
    assert verify(baseline, cut(baseline), X, weights="as-is").verdict != "match"


class Masked(nn.Module):
    """Two linear layers with something between, of which every other channel gives 0 and may be cut out."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor], kept: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        first, last = nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)
        first.weight.data[::2] = 0.0
        rows = torch.arange(8) if kept == 8 else torch.arange(1, 8, 2)
        self.first, self.last = nn.Linear(6, kept, bias=False), nn.Linear(kept, 3, bias=False)
        self.first.weight.data, self.last.weight.data = first.weight.data[rows], last.weight.data[:, rows]
        self._between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self._between(self.first(x)))
        return out


ROWS = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("weights", ["transfer", "calibrated", "as-is"])
def test_a_network_of_which_no_tensor_keeps_its_shape_is_known_by_what_they_hold(weights: str) -> None:
    found = verify(Masked(torch.relu), Masked(torch.relu, 4), ROWS, weights=weights)
    assert (found.verdict, found.coverage.candidate_share) == ("match", 1.0)


@pytest.mark.parametrize("kept", [4, 8])
def test_an_operator_that_differs_where_channels_are_cut_out_is_looked_at(kept: int) -> None:
    found = verify(Masked(torch.relu), Masked(lambda x: x.clamp(0, 1000.0), kept), ROWS, weights="as-is")
    assert found.verdict == "diverged"  # on numbers that were not given


def test_what_a_cut_layer_writes_is_no_match_unseen() -> None:
    """In training mode its statistics have other shapes, and are not compared."""
    faulty = cut(blocks()).train()
    faulty[2].bn1.momentum = 0.5
    assert verify(blocks().train(), faulty, X, weights="as-is").verdict != "match"


def test_probes_of_a_network_with_channels_cut_out_find_nothing() -> None:
    found = verify(blocks(), cut(blocks()), X, weights="as-is", probe=True)
    assert found.verdict == "match"
    assert not [each for each in found.probes if each.verdict == "diverged"]
