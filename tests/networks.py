"""Small networks that tests share: quick to run, with the traps of real ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """A residual block with one in-place ReLU called twice and an in-place add, as torchvision writes them."""

    def __init__(self, width: int, *, project: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)) if project else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out)
        return result


class Rewritten(nn.Module):
    """The same function as `Block`: other names, functional operators, shortcut first, operands swapped."""

    def __init__(self, width: int, *, project: bool = False) -> None:
        super().__init__()
        self.skip = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)) if project else None
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleDict({"b": nn.BatchNorm2d(width), "a": nn.BatchNorm2d(width)})

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        shortcut = x if self.skip is None else self.skip(x)
        x = torch.relu(self.norms["a"](self.first(x)))
        return F.relu(shortcut + self.norms["b"](self.second(x)))


def network(block: type[nn.Module] = Block, *, seed: int = 0) -> Any:
    """Three blocks of width 4 between a stem and a head, in eval mode."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        block(4),
        block(4, project=True),
        block(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    ).eval()


def images(batch: int = 2, size: int = 8, seed: int = 0) -> Tensor:
    """Standard normal images, (batch, 3, size, size)."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))
