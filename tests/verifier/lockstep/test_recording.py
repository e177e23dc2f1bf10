"""What keeps a lockstep run from being recorded once and replayed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from verifier.graph import record
from verifier.lockstep import unreplayable


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Dropout(), "a model draws random numbers"),
        (nn.BatchNorm1d(3), "a model writes into its own state"),
        (nn.Linear(3, 3), ""),
    ],
)
def test_what_has_to_be_done_anew_for_every_batch_is_named(model: nn.Module, why: str) -> None:
    with torch.no_grad():
        graph = record(model.train(), (torch.randn(4, 3),), {})
    assert unreplayable([graph, graph]) == why
