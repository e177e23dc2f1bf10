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


def test_a_branch_on_the_number_of_samples_is_called_one() -> None:
    message = _message(ByBatch, batch_size=3)

    assert "depends on its data or its batch size" in message
    assert "dtype" not in message
