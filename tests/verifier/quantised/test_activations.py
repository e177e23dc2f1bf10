"""Activations that a converter leaves to rounding: told from none, and from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.verifier.quantised.quantising import drawn, exported, pictures, quantised
from verifier import verify
from verifier.judge import Policy
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Two(nn.Module):
    """Two convolutions with activations, and a mean; (N, 3, 16, 16) to (N, 8)."""

    def __init__(self, first: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3)
        self.first = first
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(4)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to numbers."""
        found: Tensor = self.conv2(self.first(self.conv1(x))).relu().mean((2, 3))
        return found


class Plain(nn.Module):
    """Two linear layers, of which the first gives nothing below 0 for what is not; (N, 16) or (N, 5, 16)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 8)
        with torch.no_grad():
            self.a.weight.abs_()
            self.a.bias.fill_(0.05)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to numbers."""
        found: Tensor = self.b(self.a(x))
        return found


@pytest.mark.parametrize(
    ("right", "wrong"), [(F.relu6, F.relu), (F.relu, F.relu6)], ids=["no ceiling", "ceiling"]
)
def test_another_activation_is_told_though_rounding_stands_for_it(
    right: Callable[[Tensor], Tensor], wrong: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    x = pictures(16)
    file = quantised(exported(Two(wrong).eval(), x, tmp_path / "float.onnx"), tmp_path / "net.onnx", x)
    found = verify(Two(right).eval(), str(file), x)
    assert found.quantisation is not None
    assert found.quantisation.undone is Verdict.DIVERGED
    told = next(row for row in found.culprits if row.stage == "translation")
    assert (told.baseline, told.cause and told.cause.code) == (right.__name__, "activation-different")


@pytest.mark.parametrize("size", [0.2, 1.0], ids=["not reached", "reached"])
def test_a_ceiling_that_calibration_need_not_have_reached_is_no_fault(size: float, tmp_path: Path) -> None:
    model, x = Two(F.relu6).eval(), pictures(16)
    with torch.no_grad():
        assert (float(model.conv1(x * size).max()) > 6) == (size == 1)
    file = quantised(exported(model, x, tmp_path / "float.onnx"), tmp_path / "net.onnx", x * size)
    found = verify(model, str(file), x)
    assert found.quantisation is not None
    assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())


@pytest.mark.parametrize("shape", [(16, 16), (16, 5, 16)], ids=["rows", "tokens"])
@pytest.mark.parametrize("below", [0.0, 0.6], ids=["never", "now"])
def test_what_was_above_0_in_calibration_is_no_activation(
    below: float, shape: tuple[int, ...], tmp_path: Path
) -> None:
    model, generator = Plain().eval(), torch.Generator().manual_seed(3)
    calibration, x = (torch.rand(shape, generator=generator) for _ in range(2))
    file = quantised(exported(model, x, tmp_path / "float.onnx"), tmp_path / "net.onnx", calibration)
    x[0] -= below
    with torch.no_grad():
        assert (float(model.a(x).min()) < 0) == (below > 0)
    found = verify(model, str(file), x)
    assert found.quantisation is not None
    assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())
    assert {row.stage for row in found.culprits} == {"quantisation"}


class Layers(nn.Module):
    """Two linear layers and an activation; (N, 5, 16) to (N, 5, 6)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to numbers."""
        found: Tensor = self.b(self.a(x).relu())
        return found


class Written(Layers):
    """The same, written out."""

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to numbers."""
        return (x @ self.a.weight.T + self.a.bias).relu() @ self.b.weight.T + self.b.bias


class Foreign(Layers):
    """The same, computed by another library."""

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to numbers."""
        kind = {torch.float32: np.float32, torch.float64: np.float64}[x.dtype]
        a, c, b, d = (each.detach().numpy().astype(kind) for each in self.parameters())
        found: np.ndarray = np.maximum(x.numpy() @ a.T + c, 0) @ b.T + d
        return torch.from_numpy(found)


@pytest.mark.parametrize("baseline", [Layers, Written, Foreign])
def test_an_activation_is_found_however_the_baseline_is_written(
    baseline: type[Layers], tmp_path: Path
) -> None:
    x = torch.randn(16, 5, 16, generator=torch.Generator().manual_seed(0))
    file = quantised(exported(Layers().eval(), x, tmp_path / "float.onnx"), tmp_path / "net.onnx", x)
    found = verify(baseline().eval(), str(file), x)
    assert found.quantisation is not None
    assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())


class Joined(nn.Module):
    """Two branches that are added or multiplied, with or without a ReLU behind; (N, 3, 16, 16) to (N, 10)."""

    def __init__(self, joins: Callable[[Tensor, Tensor], Tensor], *, act: bool) -> None:
        super().__init__()
        self.joins, self.act = joins, act
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to class scores."""
        x = self.conv1(x)
        x = self.joins(x, self.conv2(x.relu()))
        found: Tensor = self.fc((x.relu() if self.act else x).mean((2, 3)))
        return found


@pytest.mark.parametrize("joins", [torch.add, torch.mul])
def test_an_activation_behind_an_operator_without_weights_is_no_clamp_of_a_quantiser(
    joins: Callable[[Tensor, Tensor], Tensor], tmp_path: Path
) -> None:
    model = drawn(Joined(joins, act=True))
    file = quantised(exported(model, pictures(), tmp_path / "float.onnx"), tmp_path / "net.onnx", pictures())
    lenient = Policy(name="lenient", task_decides=True, top1_agreement=0.0, kl_mean=1e9, logit_error=1e9)
    assert verify(model, str(file), pictures(), policy=lenient).verdict is Verdict.MATCH
    found = verify(drawn(Joined(joins, act=False)), str(file), pictures(), policy=lenient)
    assert found.verdict is Verdict.DIVERGED
    assert "mean is wrong beside what is quantised" in found.reason
    assert [(row.stage, row.cause and row.cause.code) for row in found.cells[0].culprits] == [
        ("translation", "relu-extra")
    ]
