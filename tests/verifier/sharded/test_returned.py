"""What each rank returns is compared, or is what a stage hands on, or is told."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from tests.verifier.sharded.teams import compared
from verifier.records import Verdict

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Whole(nn.Module):
    """Two layers of one size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.two(self.one(x))
        return made


class First(Whole):
    """The stage in front, which returns what it hands on."""

    def __init__(self) -> None:
        super().__init__()
        del self.two

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.one(x)
        return made


class Last(Whole):
    """The stage behind it."""

    def __init__(self, handed: Tensor) -> None:
        super().__init__()
        del self.one
        self.handed = handed

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.two(self.handed.to(x.dtype))
        return made


class Foreign(nn.Module):
    """A model that nothing of the whole's is in."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.net = nn.Linear(4, size)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.net(x)
        return made


class Short(Whole):
    """All of it but the last step."""

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.one(x)
        return made


def test_copies_match(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compared(monkeypatch, Whole(), [Whole(), Whole()], X).result.verdict is Verdict.MATCH


def test_what_a_stage_hands_on_is_not_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Whole()
    with torch.no_grad():
        handed = deepcopy(whole).double().one(X.double())
    found = compared(monkeypatch, whole, [First(), Last(handed)], X).result
    assert found.verdict is Verdict.MATCH
    assert [row.placement for row in found.layers] == ["on rank 0", "on rank 1", "on rank 1", "on rank 1"]


@pytest.mark.parametrize("other", [Foreign(4), Short()], ids=["another model", "a copy cut short"])
def test_a_rank_that_returns_something_else_is_a_difference(
    monkeypatch: pytest.MonkeyPatch, other: nn.Module
) -> None:
    found = compared(monkeypatch, Whole(), [Whole(), other], X).result
    assert found.verdict is Verdict.DIVERGED
    cause = found.culprits[-1].cause
    assert found.culprits[-1].baseline == "output"
    assert cause is not None
    assert cause.code == "shard-replicas"
    assert "rank 1" in cause.summary


def test_another_shape_leaves_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(monkeypatch, Whole(), [Whole(), Foreign(7)], X).result
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "rank 1 returns" in found.reason
