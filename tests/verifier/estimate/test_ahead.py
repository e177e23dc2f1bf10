"""A run that will be long says so once its models are paired, and one that is short does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from verifier import verify
from verifier.border.ahead import heard_by


class Clock:
    """Goes on by a second for every sample that a network is given, and by next to nothing between."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-9
        return self.now


class Slow(nn.Module):
    """Takes a second a sample, on the one clock of all its copies."""

    clock: ClassVar[Clock]

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += len(x)
        y: Tensor = self.linear(x)
        return y


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(Slow, "clock", clock, raising=False)
    for module in ("estimate.rates", "bench.comparing"):
        monkeypatch.setattr(f"verifier.{module}.time", SimpleNamespace(perf_counter=clock))
    return clock


def told(clock: Clock, samples: int, *cells: str) -> tuple[list[float], float]:
    """What is told of a run, and how long that takes from there."""
    heard: list[float] = []
    since = 0.0

    def hear(left: float) -> None:
        nonlocal since
        heard.append(left)
        since = clock.now

    net = Slow().eval()
    with heard_by(hear):
        assert verify(net, net, torch.randn(samples, 4), cells=cells).verdict == "match"
    return heard, clock.now - since


@pytest.mark.parametrize("cells", [("cpu/float32",), ("cpu/float32", "cpu/float64")])
def test_a_long_run_says_how_long_it_will_take(clock: Clock, cells: tuple[str, ...]) -> None:
    heard, took = told(clock, 24, *cells)
    assert heard == [pytest.approx(took, rel=0.01)]


def test_a_short_run_says_nothing(clock: Clock) -> None:
    assert told(clock, 2, "cpu/float32")[0] == []


def test_where_nobody_listens_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("verifier.estimate.rates.Rates.briefly", refuse)
    monkeypatch.setattr("verifier.estimate.ahead.LONG", 0.0)
    net = Slow().eval()
    assert verify(net, net, torch.randn(2, 4)).verdict == "match"
