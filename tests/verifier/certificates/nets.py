"""Small networks that certificates are made of, and tensors for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Two convolutions with norms around an addition, and a head."""

    def __init__(self, seed: int = 0, eps: float = 1e-5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16, eps=eps)
        self.second = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.end = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(x + self.end(self.second(x)))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Renamed(nn.Module):
    """The same network in other words."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.out = nn.Linear(16, 10)
        self.b = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)])
        self.a = nn.ModuleList([nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)])
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.a[1](self.a[0](x)).relu()
        x = (x + self.b[1](self.b[0](x))).relu()
        return self.out(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def images(count: int = 4, size: int = 24) -> Tensor:
    """Normal numbers."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(9))
