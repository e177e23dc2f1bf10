"""Two ways to one result are no fault, though tensors on the way differ; what is only hidden is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from verifier import verify

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 6


class Net(nn.Module):
    """A region between layers that are the same for all; `gain` multiplies what it gives, and the rest goes on."""

    def __init__(self, region: Callable[[Any, Tensor], Tensor], *, gain: float = 0.7) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.before = nn.Sequential(
                *(layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh()))
            )
            self.after = nn.Sequential(
                *(layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh()))
            )
            self.weight, self.bias = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(WIDTH))
            self.gain = nn.Parameter(torch.full((WIDTH,), gain))
        self.region = region

    def forward(self, x: Tensor) -> Any:
        x = self.before(x)
        return self.after(self.region(self, x) * self.gain + x.mean(1, keepdim=True))


def shifted(factor: float = 1.0) -> Callable[[Any, Tensor], Any]:
    """The same product twice: with what is added inside it, or behind."""
    return lambda m, x: x * m.weight * x.abs() + x * factor + m.bias


def inside(m: Any, x: Tensor) -> Any:
    return m.bias + (m.weight * x.abs() + 1) * x


def averaged(last: int = 3) -> Callable[[Any, Tensor], Any]:
    return lambda m, x: x[:, :last].mean(1, keepdim=True)


def masked(m: Any, x: Tensor) -> Any:
    seen = (torch.arange(x.shape[1]) < 3).to(x.dtype)[:, None]
    return (x * seen).sum(1, keepdim=True) / seen.sum().clamp(min=1e-9)


def tokens() -> Tensor:
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))


def test_a_gain_of_ones_hides_nothing() -> None:
    b, c = (Net(region, gain=1.0) for region in (inside, shifted()))
    assert verify(b, c, tokens(), weights="as-is").verdict == "match"


@pytest.mark.parametrize(("baseline", "candidate"), [(inside, shifted()), (masked, averaged())])
def test_what_is_multiplied_out_or_cut_instead_of_masked_is_a_match(baseline: Any, candidate: Any) -> None:
    for regions in ((baseline, candidate), (candidate, baseline)):
        found = verify(Net(regions[0]), Net(regions[1]), tokens(), weights="as-is")
        assert found.verdict == "match", found.reason


@pytest.mark.parametrize(("baseline", "candidate"), [(inside, shifted(0.5)), (masked, averaged(4))])
def test_the_same_with_a_fault_is_found(baseline: Any, candidate: Any) -> None:
    for regions in ((baseline, candidate), (candidate, baseline)):
        assert verify(Net(regions[0]), Net(regions[1]), tokens(), weights="as-is").verdict == "diverged"


def test_a_difference_that_a_gain_of_zero_hides_is_not_taken_for_another_way() -> None:
    b, c = (Net(region, gain=0.0) for region in (inside, shifted(0.5)))
    assert verify(b, c, tokens(), weights="as-is").verdict != "match"
