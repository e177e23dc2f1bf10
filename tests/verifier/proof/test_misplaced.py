"""One fault in a region that is written otherwise is seen at one site; two faults stay two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verifier import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier import Verification

WIDTH = 6


class Net(nn.Module):
    """A norm with a region behind it, between two layers."""

    def __init__(self, region: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.before, self.after = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
            self.conv, self.norm = nn.Conv1d(WIDTH, WIDTH, 1), nn.BatchNorm1d(WIDTH)
            self.norm.running_var = torch.rand(WIDTH) / 10
            self.weight, self.bias = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(WIDTH))
        self.region = region

    def forward(self, x: Tensor) -> Any:
        return self.after(self.region(self, self.before(x)))


def compared(baseline: Any, candidate: Any) -> Verification:
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))
    return verify(Net(baseline).eval(), Net(candidate).eval(), x, weights="as-is")


def normed(m: Any, x: Tensor) -> Any:
    return m.norm(m.conv(x.mT)).mT


def normed_by_hand(eps: float = 1e-5) -> Callable[[Any, Tensor], Any]:
    def run(m: Any, x: Tensor) -> Any:
        scale = m.norm.weight * torch.rsqrt(m.norm.running_var + eps)
        return m.conv(x.mT).mT * scale + (m.norm.bias - m.norm.running_mean * scale)

    return run


def test_a_tensor_that_is_only_laid_out_behind_a_region_is_not_to_blame() -> None:
    assert compared(normed, normed_by_hand()).verdict == "match"
    (culprit,) = compared(normed, normed_by_hand(eps=1e-3)).culprits
    assert culprit.cause is not None
    assert culprit.cause.confirmed
    assert "1e-05" in culprit.cause.summary


def gated(m: Any, x: Tensor) -> Any:
    return F.rms_norm(x * F.silu(m.before(x)), (WIDTH,), m.weight, 1e-5)


def gated_by_hand(*, first: bool = True) -> Callable[[Any, Tensor], Any]:
    def run(m: Any, x: Tensor) -> Any:
        gate = m.before(x)
        gate = gate * torch.sigmoid(gate)
        h = x * gate if first else x
        h = m.weight * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5))
        return h if first else h * gate

    return run


def test_a_gate_that_turns_up_elsewhere_is_not_to_blame_for_where_it_is_applied() -> None:
    assert compared(gated, gated_by_hand()).verdict == "match"
    (culprit,) = compared(gated, gated_by_hand(first=False)).culprits
    assert culprit.baseline not in {"sigmoid", "silu"}


def attended(m: Any, x: Tensor) -> Any:
    return (x @ x.mT / 3).softmax(-1) @ F.gelu(x * m.weight)


def attended_with_faults(m: Any, x: Tensor) -> Any:
    return (x @ x.mT / 2).softmax(-1) @ F.relu(x * m.weight)


def test_two_faults_stay_two() -> None:
    assert [each.baseline for each in compared(attended, attended_with_faults).culprits] == ["div", "gelu"]
