"""What a pass leaves in buffers is compared, and put back."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from tests.verifier.sharded.teams import compared
from verifier.records import Verdict
from verifier.sharded.states import watched

if TYPE_CHECKING:
    from collections.abc import Callable

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))


def cut(rank: int) -> nn.Sequential:
    """Half of the columns."""
    whole, part = net(), nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for own, held in zip(part.state_dict().values(), whole.state_dict().values(), strict=True):
            own.copy_(held.chunk(2)[rank] if held.dim() else held)
    return part


def momentum(model: nn.Sequential) -> None:
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    norm.momentum = 0.2


def frozen(model: nn.Sequential) -> None:
    norm: Any = model[1]
    norm.running_mean, norm.running_var, norm.num_batches_tracked = None, None, None


def test_buffers_that_both_write_alike_match_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(monkeypatch, net(), [cut(0), cut(1)], X).result
    assert found.verdict is Verdict.MATCH
    placements = {row.baseline: row.placement for row in found.layers if row.op == "state"}
    assert placements == {
        "1.running_mean": "shard(0)",
        "1.running_var": "shard(0)",
        "1.num_batches_tracked": "replica",
    }


@pytest.mark.parametrize("ranks", [(0, 1), (1,)], ids=["all", "one"])
def test_buffers_that_are_written_otherwise_are_a_difference(
    monkeypatch: pytest.MonkeyPatch, ranks: tuple[int, ...]
) -> None:
    parts = [net(), net()]
    for rank in ranks:
        momentum(parts[rank])
    found = compared(monkeypatch, net(), parts, X).result
    assert found.verdict is Verdict.DIVERGED
    assert [row.baseline for row in found.culprits] == ["1.running_mean"]
    assert found.culprits[0].op == "state"
    cause = found.culprits[0].cause
    assert cause is not None
    assert cause.code == "batchnorm-momentum"


def test_what_a_layer_in_front_does_is_not_blamed_on_the_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [net(), net()]
    for part in parts:
        with torch.no_grad():
            next(iter(part.parameters())).add_(1)
    found = compared(monkeypatch, net(), parts, X).result
    assert [row.baseline for row in found.culprits] == ["0"]


def test_buffers_that_nobody_has_leave_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [net(), net()]
    for part in parts:
        frozen(part)
    found = compared(monkeypatch, net(), parts, X).result
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "1.running_mean" in found.reason


@pytest.mark.parametrize("change", [nn.Module.train, nn.Module.eval])
def test_a_pass_leaves_buffers_as_they_were(change: Callable[[nn.Module], nn.Module]) -> None:
    model = change(net())
    before = deepcopy(model.state_dict())
    found = watched(model, (X,), {})
    assert bool(found.written) == model.training
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
