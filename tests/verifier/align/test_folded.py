"""Faults in a network whose batch norms are folded into its convolutions are told at their own sites."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from verifier import verify
from verifier.records import Verdict


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width in (3, 8, 8, 8):
        layers += [nn.Conv2d(width, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    layers.insert(6, nn.MaxPool2d(2))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 16, 4)).eval()
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.running_var = torch.rand(8) + 0.5
    return model


def folded(model: nn.Sequential) -> nn.Sequential:
    made = copy.deepcopy(model)
    for k, module in enumerate(made):
        if isinstance(module, nn.BatchNorm2d):
            made[k - 1] = fuse_conv_bn_eval(made[k - 1], module)  # type: ignore[type-var]
            made[k] = nn.Identity()
    return made


@pytest.mark.parametrize(
    ("place", "instead", "code"),
    [
        (6, nn.AvgPool2d(2), "pooling-different"),
        (5, nn.LeakyReLU(0.1), "activation-different"),
        (9, nn.GELU(), "activation-different"),
    ],
)
def test_another_operator_before_a_folded_norm_is_told_alone(
    place: int, instead: nn.Module, code: str
) -> None:
    model = network()
    candidate = folded(model)
    candidate[place] = instead
    found = verify(model, candidate, torch.randn(3, 3, 8, 8), weights="as-is")
    assert [(row.candidate, row.cause and row.cause.code) for row in found.culprits] == [(str(place), code)]


def test_without_a_fault_it_matches() -> None:
    model = network()
    found = verify(model, folded(model), torch.randn(3, 3, 8, 8), weights="as-is")
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")


def test_a_norm_that_does_nothing_but_for_its_eps_is_folded_as_well() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)
    ).eval()
    candidate = folded(model)
    candidate[0].register_parameter("bias", None)  # which is 0, so that exporters leave it out
    found = verify(model, candidate, torch.randn(3, 3, 8, 8), weights="as-is")
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    candidate[2] = nn.LeakyReLU(0.001)
    found = verify(model, candidate, torch.randn(3, 3, 8, 8), weights="as-is")
    assert [row.candidate for row in found.culprits] == ["2"]
