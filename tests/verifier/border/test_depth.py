"""Models that are deep, long, or next to nothing."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from verifier import ModelError, Verdict, verify
from verifier.border.depth import room_for

if TYPE_CHECKING:
    from collections.abc import Callable

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
ONE_CELL = ("cpu/float64",)  # the others are as deep


class Nested(nn.Module):
    """A layer inside so many modules."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.inner = Nested(depth - 1) if depth else nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


@pytest.fixture
def deep_python() -> object:
    """A program that has allowed itself to call itself more deeply."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("weights", ["transfer", "calibrated"])
def test_two_hundred_modules_inside_each_other_are_compared_if_they_run_alone(weights: str) -> None:
    model = Nested(200)
    before = sys.getrecursionlimit()
    assert model(X).shape == (3, 4)

    assert verify(model, Nested(200), X, weights=weights).verdict is Verdict.MATCH

    assert sys.getrecursionlimit() == before


@pytest.mark.usefixtures("deep_python")
def test_more_are_compared_where_python_was_allowed_them() -> None:
    other = Nested(300)
    with torch.no_grad():
        dict(other.named_parameters())["inner." * 300 + "inner.bias"].add_(1)

    result = verify(Nested(300), other, X, weights="as-is", cells=ONE_CELL)

    assert result.verdict is Verdict.DIVERGED
    assert sys.getrecursionlimit() == 20_000


class Endless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self(x)
        return out


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_a_model_that_calls_itself_without_end_is_told_as_the_models_fault(side: str) -> None:
    baseline, candidate = (Endless(), nn.Linear(4, 4)) if side == "baseline" else (nn.Linear(4, 4), Endless())

    with pytest.raises(ModelError, match=rf"the {side} .* deeper than Python allows, also alone"):
        verify(baseline, candidate, X)


def test_the_recursion_limit_is_put_back_after_an_error() -> None:
    before = sys.getrecursionlimit()

    def fail() -> None:
        assert sys.getrecursionlimit() > before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), room_for(nn.Linear(1, 1)):
        fail()

    assert sys.getrecursionlimit() == before


def test_modules_in_a_circle_have_an_end() -> None:
    model = nn.Linear(1, 1)
    model.itself = model
    before = sys.getrecursionlimit()

    with room_for(model):
        assert sys.getrecursionlimit() < before + 1000


class Steps(nn.Module):
    """So many operators one after the other, all of which could prepare an image."""

    def __init__(self, steps: int, wrong: int | None = None) -> None:
        super().__init__()
        self.steps, self.wrong = steps, wrong

    def forward(self, x: Tensor) -> Tensor:
        for k in range(self.steps):
            x = x * 0.999 + (0.002 if k == self.wrong else 0.001)
        return x


def test_a_fault_behind_hundreds_of_operators_is_found_without_recursion() -> None:
    result = verify(Steps(400), Steps(400, wrong=350), X, cells=ONE_CELL)

    assert result.verdict is Verdict.DIVERGED
    assert [row.candidate for row in result.culprits] == ["add_350"]
    assert result.culprits[0].cause is not None
    assert result.culprits[0].cause.confirmed


def test_the_time_of_a_comparison_grows_with_the_number_of_operators_alone() -> None:
    def seconds(steps: int) -> float:
        started = time.process_time()
        verify(Steps(steps), Steps(steps), X, cells=ONE_CELL)
        return time.process_time() - started

    seconds(10)  # kernels are loaded
    assert seconds(600) < 4 * 2.5 * seconds(150)


class Through(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Adding(nn.Module):
    def __init__(self, number: float = 1) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() + self.number


@pytest.mark.parametrize("weights", ["transfer", "as-is", "calibrated", "init"])
@pytest.mark.parametrize("x", [X, torch.tensor(1.5)], ids=["matrix", "scalar"])
def test_models_without_parameters_are_compared(weights: str, x: Tensor) -> None:
    assert verify(Adding(), Adding(), x, weights=weights).verdict is Verdict.MATCH
    assert verify(Adding(), Adding(1.001), x, weights=weights).verdict is Verdict.DIVERGED


@pytest.mark.parametrize("model", [Through, nn.Identity, nn.Sequential])
def test_models_without_operators_are_no_match_since_nothing_could_be_compared(
    model: Callable[[], nn.Module],
) -> None:
    result = verify(model(), model(), X)

    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reason == "neither model computes anything: there is nothing to compare"
