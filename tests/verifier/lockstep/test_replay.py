"""On CUDA further batches run as one recorded launch, and give what they would have given live."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.cuda import MARKS
from verifier import verify
from verifier.bench import measuring
from verifier.lockstep import Replay

pytestmark = MARKS


class Net(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu_()
        x = x.add_(self.scale)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Asking(Net):
    """Reads a number, which no recording allows."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum().item() > 1e30:
            raise AssertionError
        return super().forward(x)


def batches(seed: int = 0) -> Tensor:
    return torch.randn(
        22, 3, 24, 24, generator=torch.Generator().manual_seed(seed)
    )  # the last batch is smaller


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Replay | str]:
    """What came of every attempt to record a run."""
    found: list[Replay | str] = []
    plain = measuring.recorded

    def telling(*args: Any) -> Replay | str:
        found.append(plain(*args))
        return found[-1]

    monkeypatch.setattr(measuring, "recorded", telling)
    return found


@pytest.mark.parametrize("cell", ["cuda/float32", "cuda/bfloat16/channels_last", "cuda/float16/autocast"])
@pytest.mark.parametrize("localise", ["never", "always"])
@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_replayed_batches_give_what_live_ones_give(
    scale: float, localise: str, cell: str, made: list[Replay | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compared() -> list[object]:
        result = verify(
            Net().eval(),
            Net(scale).eval(),
            batches(),
            cells=[cell],
            localise=localise,
            semantics=False,
            batch_size=4,
        )
        assert (result.verdict == "match") == (scale == 1.0)
        return [(row.total, row.intrinsic, row.status) for row in result.cells[0].layers]

    replayed = compared()
    assert made
    assert all(isinstance(replay, Replay) for replay in made)
    monkeypatch.setattr(measuring, "_REPLAYED", 99)
    assert replayed == compared()


def test_a_model_that_reads_its_numbers_is_compared_live(made: list[Replay | str]) -> None:
    before = torch.cuda.current_stream()
    result = verify(Asking().eval(), Asking().eval(), batches(), cells=["cuda/float32"], batch_size=4)
    assert result.verdict == "match"
    assert result.cells[-1].batch_size == 22
    (why,) = made
    assert isinstance(why, str)
    assert any(why in note for note in result.cells[-1].notes)
    assert torch.cuda.current_stream() == before
    assert torch.randn(3, device="cuda").isfinite().all()
