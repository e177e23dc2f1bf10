"""Small networks for tests that need no large one, and ways in which a model can misbehave."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Two convolutions with norms, and a head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.between(self.bn2(self.conv2(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

    def between(self, x: Tensor) -> Tensor:
        """What misbehaving networks do between the second norm and its ReLU."""
        return x


class OfOneSample(Net):
    """Another function of a single sample."""

    def between(self, x: Tensor) -> Tensor:
        return x + 1 if len(x) == 1 else x


def net() -> Net:
    return Net()


def of_one_sample() -> Net:
    return OfOneSample()


def wider() -> Net:
    return Net(width=16)


def other_eps() -> Net:
    model = Net()
    model.bn2.eps = 1e-4
    return model


class Awake(Net):
    """Knows that its first passes are those as it was given and the recording, and the rest the run itself."""

    passes = 0  # of all copies together

    def is_the_run_itself(self) -> bool:
        type(self).passes += 1
        return self.passes > 3


class LosingItsNerve(Awake):
    """Works while it is recorded and fails in the run itself."""

    def between(self, x: Tensor) -> Tensor:
        if self.is_the_run_itself():
            raise ZeroDivisionError("no water\nin the lake")
        return x


class MindingTheBatch(Net):
    """Does something else where a batch has other than two samples."""

    def between(self, x: Tensor) -> Tensor:
        return x if len(x) == 2 else torch.tanh(x)


class Slow(Awake):
    """Takes long between two layers of the run itself, in steps of so many seconds."""

    def __init__(self, steps: int, seconds: float) -> None:
        super().__init__()
        self.steps = steps
        self.seconds = seconds

    def between(self, x: Tensor) -> Tensor:
        running = self.is_the_run_itself()
        for step in range(self.steps):
            if running:
                Path(f"reached-step-{step}").touch()
                time.sleep(self.seconds)
            x = x * 1
        return x


class SlowAtOnce(Net):
    """Takes a minute already when it is recorded."""

    def between(self, x: Tensor) -> Tensor:
        Path("reached-step-0").touch()
        time.sleep(60)
        return x


class Deaf(Awake):
    """Takes long in the run itself, and the first interruption is lost on it."""

    def between(self, x: Tensor) -> Tensor:
        if self.is_the_run_itself():
            Path("reached-step-0").touch()
            with contextlib.suppress(BaseException):
                time.sleep(60)
            time.sleep(60)
        return x


def deaf() -> Net:
    return Deaf()


def losing_its_nerve() -> Net:
    return LosingItsNerve()


def minding_the_batch() -> Net:
    return MindingTheBatch()


def dawdling() -> Net:
    return Slow(steps=600, seconds=0.1)


def stuck() -> Net:
    return Slow(steps=1, seconds=15)


def slow_at_once() -> Net:
    return SlowAtOnce()


def a_state_dict() -> dict[str, Any]:
    return Net().state_dict()


def raising() -> Net:
    raise ValueError("no such width")


def needing(width: int) -> Net:
    return Net(width)


NUMBER = 3
