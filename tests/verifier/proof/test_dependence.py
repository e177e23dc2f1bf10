"""Regions of many operators beside one: compared where what is compared depends on them, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from verifier import Verification, verify

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, STEPS = 4, 30


def signal(width: int = WIDTH) -> Tensor:
    """Standard normal numbers, (2, STEPS, width)."""
    return torch.randn(2, STEPS, width, generator=torch.Generator().manual_seed(1))


def summed(x: Tensor, factor: float = 1.0) -> Tensor:
    """`cumsum` along dimension 1 in a loop; with a `factor` each sum is a little off."""
    total = torch.zeros_like(x[:, 0])
    found = []
    for t in range(x.shape[1]):
        total = factor * total + x[:, t]
        found.append(total)
    return torch.stack(found, 1)


def written_in(x: Tensor) -> Tensor:
    """The same into memory that is there before."""
    out, total = x.new_zeros(x.shape), torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        total = total + x[:, t]
        out[:, t] = total
    return out


class Between(nn.Module):
    """A function between two linear layers; what it gives is multiplied by `gate`, and by a parameter if `gain`."""

    def __init__(self, function: Callable[[Tensor], Tensor], *, gain: bool = False) -> None:
        super().__init__()
        self.function = function
        self.before, self.after = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.gain = nn.Parameter(torch.zeros(WIDTH)) if gain else None

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """(N, T, WIDTH) and what multiplies to (N, T, 3)."""
        y = self.before(x)
        found = self.function(y) * (gate if self.gain is None else self.gain)
        return self.after(y + found)  # type: ignore[no-any-return]


class Convolved(nn.Module):
    """A convolution in time, by one call or step by step; `turned` is a fault."""

    def __init__(self, *, steps: bool = False, turned: bool = False) -> None:
        super().__init__()
        self.steps, self.turned = steps, turned
        self.conv, self.after = nn.Conv1d(WIDTH, WIDTH, 3, padding=1), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, WIDTH) to (N, T, 3)."""
        if not self.steps:
            return self.after(torch.relu(self.conv(x.mT).mT))  # type: ignore[no-any-return]
        padded = nn.functional.pad(x, (0, 0, 1, 1))
        found = []
        for t in range(x.shape[1]):
            window = padded[:, t : t + 3]
            window = window.flip(1) if self.turned else window
            bias = self.conv.bias
            assert bias is not None
            found.append(torch.einsum("nki,oik->no", window, self.conv.weight) + bias)
        return self.after(torch.relu(torch.stack(found, 1)))  # type: ignore[no-any-return]


class Suppressed(nn.Module):
    """Boxes and scores of a linear layer, of overlapping ones the best; by torchvision's call or by hand."""

    def __init__(self, *, by_hand: bool = False, limit: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.by_hand, self.limit, self.head = by_hand, limit, nn.Linear(4, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 4) to the boxes and scores that are kept."""
        found = self.head(x)
        centre, size = found[:, :2] * 0.3, found[:, 2:4].abs() * 0.2 + 0.5
        boxes, scores = torch.cat([centre - size / 2, centre + size / 2], 1), found[:, 4].sigmoid()
        keep = self.kept(boxes, scores) if self.by_hand else _nms(boxes, scores, self.limit)
        return boxes[keep], scores[keep]

    def kept(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Indices, the best score first."""
        order, found = scores.argsort(descending=True), []
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        while order.numel():
            best, rest = order[0], order[1:]
            found.append(best)
            low = torch.maximum(boxes[best, :2], boxes[rest, :2])
            high = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
            common = (high - low).clamp(min=0).prod(1)
            order = rest[common / (area[best] + area[rest] - common) <= self.limit]
        return torch.stack(found)


def _nms(boxes: Tensor, scores: Tensor, limit: float) -> Tensor:
    from torchvision.ops import nms  # takes long, and one test needs it

    found: Tensor = nms(boxes, scores, limit)
    return found


def compared(baseline: nn.Module, candidate: nn.Module, *inputs: Tensor) -> Verification:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for model in (baseline, candidate):
            for name, parameter in model.named_parameters():
                if name != "gain":
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return verify(baseline.eval(), candidate.eval(), inputs)


def total(x: Tensor) -> Tensor:
    return x.cumsum(1)


@pytest.mark.parametrize("loop", [summed, written_in])
@pytest.mark.parametrize("first", ["call", "loop"])
def test_a_loop_of_many_steps_is_compared_with_one_call(loop: Callable[[Tensor], Tensor], first: str) -> None:
    functions = (total, loop) if first == "call" else (loop, total)
    result = compared(Between(functions[0]), Between(functions[1]), signal(), torch.ones(1))
    assert result.verdict == "match", result.reason
    assert (result.coverage.baseline_share, result.coverage.candidate_share) == (1, 1)


def test_a_fault_in_a_loop_of_many_steps_is_found_there() -> None:
    result = compared(Between(total), Between(lambda x: summed(x, 0.999)), signal(), torch.ones(1))
    assert result.verdict == "diverged"
    assert [each.baseline for each in result.culprits] == ["cumsum"]


@pytest.mark.parametrize("factor", [1.0, 0.999])
def test_a_region_that_is_multiplied_by_zero_is_not_compared(factor: float) -> None:
    result = compared(Between(total), Between(lambda x: summed(x, factor)), signal(), torch.zeros(1))
    assert result.verdict == "inconclusive"
    assert result.coverage.hidden


def test_a_region_that_a_parameter_of_zeros_hides_is_not_compared() -> None:
    candidate = Between(lambda x: summed(x, 0.999), gain=True)
    result = compared(Between(total, gain=True), candidate, signal(), torch.ones(1))
    assert result.verdict == "inconclusive"


def test_a_convolution_is_compared_with_its_steps() -> None:
    assert compared(Convolved(), Convolved(steps=True), signal()).verdict == "match"
    wrong = compared(Convolved(), Convolved(steps=True, turned=True), signal())
    assert [each.baseline for each in wrong.culprits] == ["conv"]


def test_what_chooses_by_comparing_is_compared_with_one_call() -> None:
    boxes = torch.randn(20, 4, generator=torch.Generator().manual_seed(3))
    baseline, by_hand, wrong = Suppressed(), Suppressed(by_hand=True), Suppressed(by_hand=True, limit=0.05)
    for each in (by_hand, wrong):  # other weights, other steps
        each.load_state_dict(baseline.state_dict())
    assert verify(baseline, by_hand, boxes).verdict == "match"
    result = verify(baseline, wrong, boxes)
    assert result.verdict == "diverged"
    assert result.first_divergence is not None
    assert result.first_divergence.baseline == "nms"
