"""Biases that a compiler moves behind a factor, and factors that it moves into weights, make no difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openvino
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from verifier import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verifier.records import PairResult

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Normed(nn.Sequential):
    """A norm behind a linear layer, which OpenVINO leaves as a product, a factor and a shift."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))
        norm: Any = self[1]
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)


class Factored(nn.Module):
    """A factor that is learnt, behind a linear layer with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 16), nn.Linear(16, 5)
        self.factor = nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last((self.first(x) * self.factor).relu())
        return y


class Frozen(nn.Module):
    """A norm written by hand, as it is made: its factor is 1 but for its eps, its shift 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3), FrozenBatchNorm2d(8), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(self.first(x)).relu())
        return y


class Written(nn.Module):
    """Numbers of the program behind a linear layer with a bias, or one that is learnt among them."""

    def __init__(self, then: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.then = nn.Linear(12, 16), nn.Linear(16, 5), then
        self.learnt = nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.then(self.first(x), self.learnt).relu())
        return y


def written(net: Written, then: Callable[[Tensor, Tensor], Tensor]) -> None:
    net.then = then


THEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a factor": lambda y, _: y * 0.3,
    "a factor and a shift": lambda y, _: y * 0.3 + 0.1,
    "a shift and a factor": lambda y, _: 0.5 * (1 + y),
    "a number less that": lambda y, _: 0.1 - y * 0.3,
    "a number and what is learnt": lambda y, t: y * 0.3 + t,
    "what is learnt and a number": lambda y, t: y * t + 0.1,
}


def compared(
    make: Callable[[], nn.Module],
    folder: Path,
    fault: Callable[[Any], object] = lambda _: None,
    *,
    mirrored: bool = False,
) -> tuple[str, tuple[PairResult, ...]]:
    """The verdict on a file that OpenVINO makes of the network with a fault, and the culprits in float64."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 10, 10) if make is Frozen else torch.randn(8, 12)
    models = []
    for _ in range(2):
        torch.manual_seed(1)
        models.append(make().eval())
    with torch.no_grad():
        fault(models[1])
        made = openvino.convert_model(models[1], example_input=x)
    openvino.save_model(made, folder / "net.xml", compress_to_fp16=False)
    file = folder / "net.xml"
    found = verify(file, models[0], x) if mirrored else verify(models[0], file, x)
    return found.verdict, found.cells[0].culprits


@pytest.mark.parametrize("make", [Normed, Factored, Frozen])
def test_what_is_moved_through_a_factor_is_no_difference(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    assert compared(make, tmp_path)[0] == "match"


def changed(tensor: Tensor) -> None:
    tensor[3] += 0.1


FAULTS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], object], str, str]] = {
    "a channel of the norm": (Normed, lambda net: changed(net[1].weight), "1", "weight-perturbed"),
    "a mean of the norm": (Normed, lambda net: changed(net[1].running_mean), "1", "bias-perturbed"),
    "the eps": (Normed, lambda net: setattr(net[1], "eps", 0.1), "1", "weight-perturbed"),
    "a bias that is moved": (Normed, lambda net: net[0].bias.zero_(), "1", "bias-perturbed"),
    "a weight behind it": (Normed, lambda net: changed(net[3].weight), "3", "weight-perturbed"),
    "the factor": (Factored, lambda net: changed(net.factor), "mul", "region-different"),
    "a bias before the factor": (Factored, lambda net: changed(net.first.bias), "mul", "region-different"),
    "a weight behind the factor": (
        Factored,
        lambda net: changed(net.last.weight),
        "last",
        "weight-perturbed",
    ),
    "a weight behind a frozen norm": (
        Frozen,
        lambda net: changed(net.last.weight),
        "last",
        "weight-perturbed",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_there_is_all_that_is_told(fault: str, tmp_path: Path) -> None:
    make, plant, site, code = FAULTS[fault]
    verdict, culprits = compared(make, tmp_path, plant)
    assert verdict == "diverged"
    assert [(row.baseline, row.cause and row.cause.code) for row in culprits] == [(site, code)]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("then", THEN)
def test_a_bias_that_is_moved_through_numbers_of_the_program_is_no_difference(
    then: str, mirrored: bool, tmp_path: Path
) -> None:
    assert compared(lambda: Written(THEN[then]), tmp_path, mirrored=mirrored)[0] == "match"


NUMBERS: dict[str, Callable[[Any], object]] = {
    "the factor": lambda net: written(net, lambda y, _: y * 0.3000005 + 0.1),
    "the shift": lambda net: written(net, lambda y, _: y * 0.3 + 0.100002),
    "their order": lambda net: written(net, lambda y, _: (y + 0.1) * 0.3),
    "the bias": lambda net: net.first.bias[3].add_(1e-5),
    "the weight": lambda net: net.first.weight[3, 1].add_(1e-5),
}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("fault", NUMBERS)
def test_a_small_fault_before_numbers_of_the_program_is_told(
    fault: str, mirrored: bool, tmp_path: Path
) -> None:
    verdict, culprits = compared(
        lambda: Written(THEN["a factor and a shift"]), tmp_path, NUMBERS[fault], mirrored=mirrored
    )
    assert verdict == "diverged"
    assert culprits[-1].baseline == "add"


@pytest.mark.parametrize("then", ["a factor and a shift", "a number and what is learnt"])
def test_a_bias_that_never_was_behind_a_factor_is_missing(then: str, tmp_path: Path) -> None:
    _, culprits = compared(
        lambda: Written(THEN[then]), tmp_path, lambda net: setattr(net.first, "bias", None)
    )
    assert [(row.baseline, row.cause and row.cause.code) for row in culprits] == [("first", "bias-missing")]
