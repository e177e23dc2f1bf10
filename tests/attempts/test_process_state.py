"""What a program keeps in its process, beside its modules, is after every pass as a pass leaves it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from verifier import Verdict, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = [0]


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Counts how deep a program is in; without `finally`, as many are."""
    DEPTH[0] += 1
    yield
    DEPTH[0] -= 1


class Net(nn.Module):
    """Converts within, and goes a faster way outside."""

    fault = within = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        with exact():
            h = torch.relu(self.first(x).float() * (1 + self.within))
        y: Tensor = torch.sigmoid(self.second(h))
        return y if DEPTH[0] else y * (1 + self.fault)


class Faulty(Net):
    fault = 0.01


class WrongWithin(Net):
    """Another fault, where the depth is not 0: causes are looked for there, and pictures taken."""

    within = 0.01


class Telling(Net):
    """Tells any failure by its stage."""

    def forward(self, x: Tensor) -> Any:
        try:
            return super().forward(x)
        except BaseException as error:
            raise RuntimeError(f"stage failed: {error!r}") from error


def two(candidate: type[Net], baseline: type[Net] = Net) -> tuple[Net, Net]:
    torch.manual_seed(0)
    made = baseline(), candidate()
    made[1].load_state_dict(made[0].state_dict())
    return made


def test_a_counter_is_where_it_was_and_the_way_behind_it_is_seen() -> None:
    for candidate in (Faulty, WrongWithin, Faulty):
        assert verify(*two(candidate), torch.randn(4, 8)).verdict is Verdict.DIVERGED
        assert DEPTH == [0]


def test_a_model_that_makes_other_errors_of_all_is_not_interrupted() -> None:
    assert verify(*two(Telling, Telling), torch.randn(4, 8)).verdict is Verdict.MATCH


WORKSPACE: dict[object, Tensor] = {}


class InOneMemory(nn.Module):
    """Computes in memory that all its copies share, as engines do."""

    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for k, layer in enumerate(self.layers):
            y = torch.tanh(layer(x))
            key = type(self), k, y.shape, y.dtype
            x = torch.mul(y, self.gain if k == 1 else 1.0, out=WORKSPACE.setdefault(key, torch.empty_like(y)))
        return x


class GainInOneMemory(InOneMemory):
    gain = 1.01


def test_totals_are_those_of_the_free_run_where_runs_share_memory() -> None:
    torch.manual_seed(0)
    baseline, candidate = InOneMemory(), GainInOneMemory()
    candidate.load_state_dict(baseline.state_dict())
    x = torch.randn(2, 8)
    found = verify(baseline, candidate, x)
    with torch.no_grad():
        error = (baseline(x).clone() - candidate(x)).double().square().mean()
    assert found.verdict is Verdict.DIVERGED
    assert found.output is not None
    assert found.output.mse == pytest.approx(float(error), rel=1e-4)
    assert [each.baseline for each in found.culprits] == ["mul_1"]
