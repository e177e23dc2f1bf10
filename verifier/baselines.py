"""Baselines for networks that torchvision does not have: its own blocks, composed here.

torchvision publishes the networks for 224 x 224 images, none for CIFAR's 32 x 32. What it does publish is their
blocks, and these are trusted: `torchvision.models.resnet.BasicBlock` with whatever shortcut it is handed as
`downsample`. What is written here is the little around them. It shares no code with `reference_models`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class SubsampleAndPad(nn.Module):
    """Option A of the paper: every second position, zeros for the channels that are new."""

    def __init__(self, new: int) -> None:
        """`new` channels of zeros are put behind those of the input."""
        super().__init__()
        self.pad = nn.ConstantPad3d((0, 0, 0, 0, 0, new), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C + new, ceil(H / 2), ceil(W / 2))."""
        y: Tensor = self.pad(x[:, :, ::2, ::2])
        return y


class CifarResNet(nn.Module):
    """The network of section 4.2 of the paper, laid out as torchvision lays out its ResNet."""

    def __init__(self, blocks: int, option: Literal["A", "B"]) -> None:
        """`blocks` to a stage; `option` is what the shortcut does where the shape changes."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._make_layer(16, 16, blocks, 1, option)
        self.layer2 = self._make_layer(16, 32, blocks, 2, option)
        self.layer3 = self._make_layer(32, 64, blocks, 2, option)
        self.avgpool = nn.AvgPool2d(8)
        self.fc = nn.Linear(64, 10)
        draw(self)

    @staticmethod
    def _make_layer(inplanes: int, planes: int, blocks: int, stride: int, option: str) -> nn.Sequential:
        downsample: nn.Module | None = None
        if stride != 1:
            downsample = (
                SubsampleAndPad(planes - inplanes)
                if option == "A"
                else nn.Sequential(
                    nn.Conv2d(inplanes, planes, kernel_size=1, stride=stride, bias=False),
                    nn.BatchNorm2d(planes),
                )
            )
        first = BasicBlock(inplanes, planes, stride, downsample)
        return nn.Sequential(first, *(BasicBlock(planes, planes) for _ in range(1, blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 32, 32) to (B, 10)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = torch.flatten(self.avgpool(x), 1)
        y: Tensor = self.fc(x)
        return y


def draw(network: nn.Module) -> None:
    """Initial values as torchvision's `ResNet` draws them, module by module."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 1)
            nn.init.constant_(module.bias, 0)


def _cifar() -> dict[str, Callable[[], nn.Module]]:
    depths = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18, 1202: 200}
    plain = {f"cifar_resnet{depth}": partial(CifarResNet, blocks, "A") for depth, blocks in depths.items()}
    projected = {
        f"cifar_resnet{depth}_b": partial(CifarResNet, blocks, "B") for depth, blocks in depths.items()
    }
    return {**plain, **projected}


BUILDERS: dict[str, Callable[[], nn.Module]] = _cifar()
"""What `baseline:NAME` can name, and what builds it, freshly initialised and in training mode."""
