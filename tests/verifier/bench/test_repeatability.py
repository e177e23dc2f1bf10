"""Models that give other numbers when they are run again."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from verifier import verify
from verifier.judge import STRICT, judge_again


class Restless(nn.Module):
    """Adds less than a rounding error, another every time; nothing in float64."""

    def forward(self, x: Tensor) -> Tensor:
        size = 0.0 if x.dtype is torch.float64 else torch.finfo(x.dtype).eps / 4
        return x + size * random.SystemRandom().random()


def network(middle: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), middle, nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 4, 3)).eval()


def test_models_that_repeat_say_in_how_many_runs() -> None:
    one, two = (
        network(nn.Identity()).train(),
        network(nn.Identity()).train(),
    )  # dropout: the draws are repeated
    cells = ("cpu/float32", "cpu/bfloat16")
    result = verify(one, two, torch.randn(4, 3, 16, 16), cells=cells, repeat=4)
    found = [cell.repeatable for cell in result.cells if cell.role == "numerics"]
    assert [(each.runs, each.baseline, each.candidate) for each in found if each] == [(4, None, None)] * 2
    assert result.verdict == "match"


@pytest.mark.parametrize("runs", [2, 3])
def test_the_first_site_that_does_not_repeat_is_named_and_the_verdict_left_open(runs: int) -> None:
    result = verify(network(Restless()), network(Restless()), torch.randn(4, 3, 16, 16), repeat=runs)
    cell = next(cell for cell in result.cells if cell.role == "numerics")
    assert cell.repeatable is not None
    assert cell.repeatable.baseline is not None
    assert cell.repeatable.baseline.startswith("1.")
    assert cell.repeatable.baseline == cell.repeatable.candidate
    assert result.verdict == "inconclusive"
    assert "not repeatable" in result.reason
    assert judge_again(result, STRICT).verdict == "inconclusive"


def test_it_is_not_looked_for_unless_asked() -> None:
    result = verify(network(nn.Identity()), network(nn.Identity()), torch.randn(4, 3, 16, 16))
    assert all(cell.repeatable is None for cell in result.cells)
