"""Ranges that lie beside what they round, and honest ones that clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from tests.verifier.quantised.quantising import Planting, drawn, exported, quantised
from verifier import verify
from verifier.forms.quantisers import Grid, Rounding
from verifier.judge import Policy
from verifier.quantised.ranges import Met, clipping
from verifier.records import Verdict

if TYPE_CHECKING:
    from pathlib import Path


Data = Callable[[Tensor], Tensor]
SHIFTED: list[tuple[Data, Data]] = [
    (lambda x: x - 0.5, lambda x: x),
    (lambda x: x / 2, lambda x: x / 2 + 0.5),
    (lambda x: x * 2 - 1, lambda x: x * 2 - 0.2),
    (lambda x: x + 0.3, lambda x: x + 1.8),
    (lambda x: x + 0.3, lambda x: x - 1.2),
]


def normal(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def met(name: str, values: Tensor, low: float, high: float, zero: int | None = None) -> Met:
    """Numbers in eight bits without sign, over a range."""
    scale = (high - low) / 255
    zero = round(-low / scale) if zero is None else zero
    grid = Grid(torch.tensor(scale), torch.tensor(zero), 0, 255)
    rounding = Rounding(name, (name,), (name,), grid, grid)
    return Met(rounding, grid, values, float(grid.clipped(values).double().mean()), values.numel())


@pytest.mark.parametrize(("off", "told"), [(0, []), (8, []), (48, ["odd"]), (-48, ["odd"]), (100, ["odd"])])
def test_a_range_that_lies_beside_its_numbers_is_told(off: int, told: list[str]) -> None:
    x = normal(4000)
    low, high = float(x.min()), float(x.max())
    zero = round(-low / (high - low) * 255) + off
    given = [met("odd", x, low, high, zero), met("even", normal(4000, 1), low, high)]
    assert [each.tensor for each in clipping(given)] == told
    assert all(each.code == "quantiser-zero-point" for each in clipping(given))


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01])
def test_percentiles_of_numbers_of_any_skew_are_no_fault(share: float) -> None:
    for x in (normal(4000), normal(4000).exp(), normal(4000) ** 3, nn.functional.silu(normal(4000) * 3)):
        ends = [float(x.double().quantile(q)) for q in (share / 2, 1 - share / 2)]
        assert [*clipping([met("x", x, min(ends[0], 0), ends[1])])] == []


def test_a_range_of_half_the_numbers_is_told_beside_others_that_fit() -> None:
    x = normal(4000)
    given = [met("odd", x, -1.7, 1.7), met("even", x, -4, 4)]
    assert [(each.tensor, each.code) for each in clipping(given)] == [("odd", "quantiser-scale")]


def test_data_that_clip_everywhere_are_no_fault() -> None:
    assert [*clipping([met("one", normal(4000), -1.7, 1.7), met("other", normal(4000, 1), -1.7, 1.7)])] == []


def test_a_few_numbers_say_nothing() -> None:
    assert [*clipping([met("x", normal(100), -1.0, 4.0)])] == []


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    return drawn(nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5)))


@pytest.mark.parametrize("off", [0, 48, -48])
def test_the_zero_point_of_the_input_is_told_over_all_batches(
    off: int, network: nn.Module, tmp_path: Path
) -> None:
    x = normal(20 * 64, 1).reshape(64, 20)
    float_file = exported(network, x, tmp_path / "float.onnx")
    planting = Planting(quantised(float_file, tmp_path / "net.onnx", normal(20 * 96, 7).reshape(96, 20)))
    planting.put("x_zero_point", planting.array("x_zero_point").astype(int) + off)
    found = verify(network, planting.model, x, batch_size=8, policy="int8")
    assert found.quantisation is not None
    told = [(each.tensor, each.code) for each in found.quantisation.faults]
    assert told == ([("x", "quantiser-zero-point")] if off else [])
    clipped = found.quantisation.layers[0].input_clipped
    assert clipped is not None
    if off:
        assert found.verdict is Verdict.DIVERGED
        assert clipped > 0.005


class Convolved(nn.Module):
    """Two convolutions and scores; (N, 3, 16, 16) to (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.c, self.d, self.f = nn.Conv2d(3, 16, 3, 2), nn.Conv2d(16, 16, 3, 2), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to scores."""
        found: Tensor = self.f(torch.relu(self.d(torch.relu(self.c(x)))).mean((2, 3)))
        return found


@pytest.mark.parametrize("which", range(len(SHIFTED)))
def test_a_right_file_on_data_that_nobody_calibrated_on_is_judged_by_what_comes_of_it(
    which: int, tmp_path: Path
) -> None:
    calibrating, run = SHIFTED[which]
    generator, draw = torch.Generator().manual_seed(0), torch.rand if which < 3 else torch.randn
    drawn_as = [draw(16, 3, 16, 16, generator=generator) for _ in range(2)]
    network = Convolved().eval()
    float_file = exported(network, drawn_as[0], tmp_path / "float.onnx")
    file = quantised(float_file, tmp_path / "net.onnx", calibrating(drawn_as[0]))
    lenient = Policy(name="lenient", task_decides=True, top1_agreement=0.0, kl_mean=1e9, logit_error=1e9)
    found = verify(network, str(file), run(drawn_as[1]), policy=lenient)
    assert found.quantisation is not None
    assert found.quantisation.faults == ()
    assert found.verdict is Verdict.MATCH, found.reason
    assert any("of x is clipped: calibrate it on data like these" in note for note in found.notes)
    found = verify(network, str(file), run(drawn_as[1]))
    assert found.verdict is Verdict.DIVERGED
    assert {row.stage for row in found.culprits} == {"quantisation"}
    assert found.culprits[0].cause is not None
    assert any("of x is clipped" in clause for clause in found.culprits[0].cause.evidence)
