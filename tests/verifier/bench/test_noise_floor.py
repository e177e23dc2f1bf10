"""The baseline against itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from verifier import verify

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
    result = verify(model, model, torch.randn(2, 3, 16, 16), semantics=False)
    found = result.cells[0].noise_floor
    assert found is not None
    return found


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
