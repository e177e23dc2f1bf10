"""What is told of a certificate that takes another's place."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from tests.verifier.certificates.nets import Net, Renamed, images
from verifier import Certificate, record
from verifier.certificates.successor import changed


def recorded(model: nn.Module, x: Tensor | None = None, weights: str = "as-is") -> Certificate:
    return record(model, images(2) if x is None else x, weights=weights)


def test_of_the_same_model_nothing_has_changed() -> None:
    assert changed(recorded(Net()), recorded(Net())) == "nothing that is recorded has changed"


def test_settings_tensors_and_numbers_are_told() -> None:
    other = Net(eps=1e-3)
    with torch.no_grad():
        other.head.bias.add_(1)
    said = changed(recorded(Net()), recorded(other))
    numbers, settings, tensors = said.split("; ")
    assert re.fullmatch(r"8 of 9 sites give other numbers, first norm, relative error \S+", numbers)
    assert settings == "settings: norm (eps 0.001, before 1e-05)"
    assert tensors == f"1 of {len(other.state_dict())} tensors hold other values: head.bias"


def test_names_that_are_gone_and_new_are_told() -> None:
    said = changed(recorded(Net()), recorded(Renamed()))
    assert "gone: first (conv2d), norm (batch_norm), second (conv2d), and " in said
    assert "; new: a.0 (conv2d), a.1 (batch_norm), " in said
    assert "tensors that are gone: first.weight, " in said


def test_on_other_inputs_no_numbers_are_compared() -> None:
    said = changed(recorded(Net()), recorded(Net(), images(3), weights="calibrated"))
    assert said.startswith("weights calibrated, before as-is; other inputs, so that no number ")
    assert "relative error" not in said
