"""torchvision's residual networks, each with one fault."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet, resnet18, resnet50


def other_eps() -> Any:
    model = resnet50()
    model.layer2[1].bn2.eps = 1e-3
    return model


class _WithoutRelu(resnet.BasicBlock):  # type: ignore[misc] # torchvision has no types
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        out += x
        return torch.relu_(out)


def relu_removed() -> Any:
    model = resnet18()
    model.layer2[1].__class__ = _WithoutRelu
    return model


class _ReluBeforeAdd(resnet.Bottleneck):  # type: ignore[misc] # torchvision has no types
    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.relu(self.bn3(self.conv3(out)))
        out += self.downsample(x)
        return out  # type: ignore[no-any-return] # the same


def relu_before_add() -> Any:
    model = resnet50()
    model.layer3[0].__class__ = _ReluBeforeAdd
    return model


def max_pool_unpadded() -> Any:
    model = resnet18()
    model.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)  # the output's shape is right
    return model


def weights_perturbed() -> Any:
    model = resnet18()
    with torch.no_grad():
        weight = model.layer3[1].conv1.weight
        weight += 1e-4 * weight.abs().mean() * torch.randn_like(weight)
    return model


def mean_shifted() -> Any:
    model = resnet18()
    model.layer3[0].downsample[1].running_mean += 1e-3
    return model


def left_training() -> Any:
    model = resnet18().eval()
    model.layer1[1].bn1.train()
    return model
