"""Backward passes of a pipeline's stages, which start from edges of a graph and not from a loss."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

from verifier.training.sharded.part_batch import PartBatch, PartSteps
from verifier.training.steps import backward_passes_seen


def test_a_pass_that_starts_from_an_edge_has_no_loss_and_its_gradients_are_kept() -> None:
    model = nn.Linear(2, 2)
    watch, kept = PartSteps(model), PartBatch()
    watch.begin(kept)
    with backward_passes_seen([watch]):
        edge = get_gradient_edge(model(torch.ones(1, 2)))
        torch.autograd.backward([edge], grad_tensors=[torch.ones(1, 2)])
    assert math.isnan(kept.losses[0])
    assert torch.equal(kept.gradients["weight"][0], torch.ones(2, 2))
