"""The baseline against itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from verifier import verify
from verifier.bench.bench import Bench
from verifier.bench.noise_floor import noise_floor
from verifier.bench.pairing import pair
from verifier.bench.side import Side
from verifier.cells import Cell
from verifier.inputs import tensors

if TYPE_CHECKING:
    from verifier.records import NoiseFloor


class Threads(nn.Module):
    """Is wrong by a thousandth for each thread."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.get_num_threads() / 1000)


class Positions(nn.Module):
    """Is wrong by a thousandth for each sample before."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.arange(len(x), dtype=x.dtype) / 1000).view(-1, 1, 1, 1)


def floor(middle: nn.Module) -> NoiseFloor:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), middle, nn.ReLU()).eval()
    inputs = tensors(torch.randn(2, 3, 16, 16))
    baseline, candidate = Side.of("baseline", model, 0), Side.of("candidate", model, 0)
    subject = pair(baseline, candidate, inputs, weights="transfer", known={})
    return noise_floor(Bench(subject, inputs, Cell("cpu", "float32")))


def test_it_is_run_where_an_error_comes_near_its_budget() -> None:
    torch.manual_seed(0)
    baseline, candidate = (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval() for _ in range(2))
    x = torch.randn(2, 3, 16, 16)
    same = verify(baseline, candidate, x, semantics=False).cells[0]
    other = verify(baseline, candidate, x, semantics=False, weights="as-is").cells[0]
    assert same.noise_floor is None
    assert other.noise_floor is not None
    assert other.noise_floor.position is not None


def test_a_plain_network_differs_from_itself_by_rounding_alone() -> None:
    found = floor(nn.Identity())
    assert all(each is not None and each < 1e-6 for each in (found.threads, found.layout, found.position))


def test_each_circumstance_is_told_from_the_others() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        threads, positions = floor(Threads()), floor(Positions())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads.threads is not None
    assert positions.position is not None
    assert abs(threads.threads - 0.001 / 1.002) < 1e-6
    assert positions.position > 5e-4
    assert max(threads.layout or 0, threads.position or 0) < 1e-6
    assert max(positions.layout or 0, positions.threads or 0) < 1e-6
