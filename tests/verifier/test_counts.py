"""Counts that differ: samples compared and samples looked at again, outputs of the two models, parts of a number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier import verify
from verifier.align import align
from verifier.graph import record
from verifier.lockstep import Comparing, Lane, Plan, run
from verifier.models.copying import copy_with, state_of


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return y


class Leaky(Small):
    """One other operator, which is wrong, and two others, which are right."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.leaky_relu(self.norm(self.conv(x)), 0.01)
        return self.fc(F.adaptive_avg_pool2d(y, 1).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("cells", [("cpu/float32",), ("cpu/float64", "cpu/float32")])
def test_a_region_is_no_culprit_because_it_was_looked_at_with_fewer_samples(cells: tuple[str, ...]) -> None:
    result = verify(Small().eval(), Leaky().eval(), torch.randn(8, 3, 8, 8), cells=cells)
    assert result.verdict == "diverged"
    assert [row.baseline for row in result.culprits] == ["relu"]


class Outputs(Small):
    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return y, y.softmax(1)


@pytest.mark.parametrize("models", [(Outputs, Small), (Small, Outputs)])
def test_another_number_of_outputs_is_a_difference_and_no_crash(models: tuple[type[nn.Module], ...]) -> None:
    ours, theirs = (kind().eval() for kind in models)
    assert verify(ours, theirs, torch.randn(2, 3, 8, 8)).verdict == "diverged"


class Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


def copied(model: nn.Module) -> nn.Module:
    return copy_with(model, state_of(model), lambda tensor: tensor, role="model")


def test_complex_numbers_that_are_real_count_their_parts() -> None:
    """They hold the numbers of a real tensor, and are as far from a third in their mean square over twice as many."""
    models, x = [Cast(torch.float64), Cast(torch.complex64), Cast(torch.float32)], torch.randn(2, 3)
    graphs = [record(copied(model), (x,), {}) for model in models]
    alignments = [align(graphs[0], graph) for graph in graphs]
    assert all(alignment.pairs for alignment in alignments)

    def lanes() -> list[Lane]:
        return [
            Lane(
                "model",
                copied(model),
                graph,
                (x + 0.1 * (k == 0),),
                {},
                [0],
            )
            for k, (model, graph) in enumerate(zip(models, graphs, strict=True))
        ]

    together = run(lanes(), Plan([[0]] * 3, [Comparing(1, 2), Comparing(0, 1), Comparing(0, 2)]))
    alone = run(lanes(), Plan([[0]] * 3, [Comparing(0, 2)]))
    assert together.meetings[0][0].moments is not None
    assert together.meetings[0][0].moments.identical
    assert together.meetings[2][0].moments == alone.meetings[0][0].moments


def test_a_layer_of_another_size_is_not_told_to_load_weights_that_do_not_fit() -> None:
    theirs = Small().eval()
    theirs.fc = nn.Linear(8, 10)
    (culprit,) = verify(Small().eval(), theirs, torch.randn(2, 3, 8, 8), weights="as-is").culprits
    assert culprit.baseline == "fc"
    assert culprit.cause is not None
    assert "build the layer with a weight of shape (5, 8)" in culprit.cause.remedy
