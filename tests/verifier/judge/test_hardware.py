"""Whether a device computes as its cell's dtype promises is asked of the baseline, apart from the candidate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reports import sentences
from tests.cuda import needs_cuda
from verifier import environment, verify
from verifier.cells import Cell
from verifier.judge import STRICT, hardware, judge_again
from verifier.judge.budgets import arithmetic
from verifier.records import Verdict


class Net(nn.Module):
    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()  # type: ignore[no-any-return]


@pytest.fixture
def rounding_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's edge: float32 convolutions take operands of ten bits."""
    plain = nn.Conv2d._conv_forward

    def rounded(tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.float32:
            return tensor
        bits = tensor.detach().numpy().view(np.int32)
        return torch.from_numpy(((bits + 0x1000) & ~0x1FFF).view(np.float32))

    def forward(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with torch._C.DisableTorchFunction():
            x, weight = rounded(x), rounded(weight)
        found: Tensor = plain(self, x, weight, bias)
        return found

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", forward)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_this_machine_computes_as_its_dtypes_promise(dtype: str) -> None:
    result = verify(Net(), Net(), torch.randn(4, 3, 16, 16), cells=[f"cpu/{dtype}"])
    found = result.cells[-1].hardware
    assert found is not None
    assert found.verdict is Verdict.MATCH
    assert (found.compared, found.beyond) == (1, 0)
    assert 0 < found.distance <= found.allowed


@pytest.mark.usefixtures("rounding_convolutions")
def test_a_device_that_rounds_operands_unasked_is_named_and_the_candidate_is_not_blamed() -> None:
    result = verify(Net(), Net(), torch.randn(4, 3, 16, 16))
    assert result.verdict == "match"
    found = result.cells[-1].hardware
    assert found is not None
    assert found.verdict is Verdict.DIVERGED
    assert found.site == "conv"
    assert 1e-4 < found.distance < 2**-10
    assert sentences.exactness(result.cells[-1]).startswith("less exact than its dtype")
    again = judge_again(result, STRICT)
    assert again.cells[-1].hardware == found
    tolerant = judge_again(result, type(STRICT)(name="tolerant", hardware=1e5)).cells[-1].hardware
    assert tolerant is not None
    assert tolerant.verdict is Verdict.MATCH


class Cancelling(Net):
    """Sums that nearly vanish, numbers beyond the range, means of what has none: no device could do better."""

    def __init__(self) -> None:
        super().__init__()
        self.ordinary = nn.Conv2d(64, 64, 1)
        self.laplace = nn.Conv2d(3, 3, 3, bias=False)
        self.norm = nn.LayerNorm(14)
        self.beyond = nn.Linear(14, 4)
        with torch.no_grad():
            self.laplace.weight[:] = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
            self.beyond.weight.fill_(6e4)

    def forward(self, x: Tensor) -> Tensor:
        edges = self.laplace(100 + 0.01 * x)
        means = self.norm(edges).mean(-1)
        plain = self.ordinary(self.conv(x))
        found: Tensor = self.beyond(plain.relu()).sum((1, 2, 3)) + means.sum((1, 2))
        return found


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_cancels_or_overflows_is_not_the_devices_fault(dtype: str) -> None:
    result = verify(Cancelling(), Cancelling(), torch.randn(4, 3, 16, 16), cells=[f"cpu/{dtype}"])
    found = result.cells[-1].hardware
    assert found is not None
    assert found.compared >= 3
    assert found.verdict is Verdict.MATCH


@needs_cuda
@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_in_a_float32_cell_is_found_by_what_it_does(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verifier.bench.numerics.tf32", lambda **_: environment.tf32(allowed=allowed))
    # So many channels that the device takes an algorithm that can use TF32.
    result = verify(Net(64), Net(64), torch.randn(4, 64, 32, 32), cells=["cuda/float32", "cuda/tf32"])
    assert result.verdict == "match"
    found = {cell.name: cell.hardware.verdict for cell in result.cells if cell.hardware is not None}
    assert found == {"cuda/float32": "diverged" if allowed else "match", "cuda/tf32": "match"}


def test_what_rounding_explains_is_what_rounded_sums_are_off_by() -> None:
    """Against numpy: products of float32 numbers, summed one by one in float32."""
    random = np.random.default_rng(0)
    for terms in (1, 16, 256, 4096):
        a = random.standard_normal((400, terms)).astype(np.float32)
        exact = a.astype(np.float64).sum(1)
        found = np.zeros(400, np.float32)
        for column in a.T:
            found = found + column
        off = math.sqrt(((found - exact) ** 2).sum() / (exact**2).sum())
        explained = arithmetic(STRICT, 2.0**-24, terms) / STRICT.hardware
        assert off <= 1.5 * explained
        assert terms == 1 or off >= 0.3 * explained


def test_cells_without_a_measurement_say_nothing() -> None:
    assert hardware(STRICT, Cell("cpu", "float32"), []) is None
