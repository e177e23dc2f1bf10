"""What is said of a model whose control flow changes between two of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from verifier import GraphDepartureError, verify

if TYPE_CHECKING:
    from collections.abc import Callable

X = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.between(self.first(x)))
        return out

    def between(self, x: Tensor) -> Tensor:
        return x


class ByDtype(Plain):
    def between(self, x: Tensor) -> Tensor:
        return x if x.dtype == torch.float32 else x + 1


class ByAutocast(Plain):
    def between(self, x: Tensor) -> Tensor:
        return x + 1 if torch.is_autocast_enabled("cpu") else x


class ByCall(Plain):
    calls = 0

    def between(self, x: Tensor) -> Tensor:
        ByCall.calls += 1
        return x if ByCall.calls % 2 else x + 1


class ByBatch(Plain):
    def between(self, x: Tensor) -> Tensor:
        return x if len(x) == 3 else x + 1


@pytest.mark.parametrize("side", ["baseline", "candidate"])
@pytest.mark.parametrize("cell", ["cpu/float32", "cpu/float64", "cpu/bfloat16"])
def test_a_branch_on_the_dtype_is_called_one_with_both_dtypes(side: str, cell: str) -> None:
    baseline, candidate = (ByDtype(), Plain()) if side == "baseline" else (Plain(), ByDtype())

    with pytest.raises(GraphDepartureError, match=rf"the {side} departs.*depends on the dtype") as raised:
        verify(baseline, candidate, X, weights="as-is", cells=[cell])

    assert "data" not in str(raised.value)
    assert "float32 when it was recorded" in str(raised.value)


def _message(model: Callable[[], nn.Module], **options: object) -> str:
    with pytest.raises(GraphDepartureError) as raised:
        verify(Plain(), model(), X, weights="as-is", **options)  # type: ignore[arg-type]
    return str(raised.value)


def test_a_branch_on_autocast_is_called_one() -> None:
    message = _message(ByAutocast, cells=["cpu/bfloat16/autocast"])

    assert "depends on whether autocast is on" in message


def test_a_branch_that_changes_between_calls_blames_no_dtype_and_no_batch_size() -> None:
    message = _message(ByCall)

    assert "something that changes between two calls" in message
    assert "dtype" not in message
    assert "batch size" not in message


def test_batches_that_take_different_ways_are_compared_as_one_and_that_is_told() -> None:
    found = verify(ByBatch(), ByBatch(), X, batch_size=3)
    assert found.verdict == "match"
    assert any("in one batch of 4 samples, not in batches of 3" in note for note in found.notes)


class Experts(nn.Module):
    """Each expert sees the rows that are sent to it, if there are any."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = scale
        self.gate = nn.Linear(4, 4)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.gate(x).argmax(-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]) * self.scale)
        return out


@pytest.mark.parametrize("batch_size", [None, 3])
def test_experts_in_a_loop_are_recorded_on_all_samples(batch_size: int | None) -> None:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
    assert verify(Experts(), Experts(), x, batch_size=batch_size).verdict == "match"
    found = verify(Experts(), Experts(1.01), x, batch_size=batch_size)
    assert found.verdict == "diverged"
    assert {row.op for row in found.culprits} == {"mul"}
