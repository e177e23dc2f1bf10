"""The account of a verification: each phase is there, its forward passes are counted, and nothing stays changed."""

from __future__ import annotations

import time

import torch
from torch import nn

from tests.benchmarks.account import ELSE, Account, Forward
from tests.benchmarks.subjects import Given
from verifier.bench import measuring, numerics


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(torch.relu(self.first(x)))
        return out


def test_the_books_hold_every_phase_and_all_forward_passes() -> None:
    given = Given("small", Net, Net, torch.randn(8, 4))
    measure = measuring.measure
    started = time.perf_counter()
    with Account({Net: "baseline"}) as books:
        assert given.verify().verdict == "match"
    seconds = time.perf_counter() - started
    spent = books.spent
    assert {"as given", "recording", "weights", "against the oracle", "passes", ELSE} <= set(spent)
    assert 0 < sum(each.seconds for each in spent.values()) <= seconds
    assert spent["recording"].forwards == {Forward("baseline", "float32", 2): 2}
    assert {forward.dtype for forward in spent["passes"].forwards} >= {"float32"}
    assert measuring.measure is vars(numerics)["measure"] is measure
