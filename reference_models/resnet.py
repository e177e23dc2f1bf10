"""Residual networks for 224 x 224 images: ResNet, ResNeXt, Wide ResNet.

Each builder takes the keywords of `ResNetOptions`. Parameter counts and costs are those torchvision publishes
with its weights; `resnet50_v1` the paper describes and torchvision does not have.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import nn

from reference_models.blocks import BasicBlock, Bottleneck, ConvNorm, ResidualBlock, initialise
from reference_models.registry import register

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

PAPER = "https://arxiv.org/abs/1512.03385"
TORCHVISION = "torchvision weight metadata"


class ResNetOptions(TypedDict, total=False):
    """What every builder below accepts."""

    num_classes: int
    zero_init_residual: bool


class ResNet(nn.Module):
    """A stem, four stages of residual blocks, and a linear classifier on the mean over all positions.

    `block(channels_in, planes, stride)` builds one block; `depths` says how many each stage has. Planes start
    at 64 and double from stage to stage; every stage but the first halves height and width. The stem is a 7x7
    convolution that halves them, and a max pooling that does so again; for `small_images` it is a 3x3 convolution
    that does not. With `bias` the stem's convolution has one.

    Initial values are `blocks.initialise`'s, the classifier's as torch draws them.
    """

    def __init__(
        self,
        block: Callable[[int, int, int], ResidualBlock],
        depths: Sequence[int],
        *,
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        small_images: bool = False,
        bias: bool = False,
    ) -> None:
        """Build the network, initialised and in training mode."""
        super().__init__()
        channels = 64
        self.small_images = small_images
        self.stem = ConvNorm(
            3, channels, kernel_size=3 if small_images else 7, stride=1 if small_images else 2, bias=bias
        )
        self.stages = nn.Sequential()
        for index, depth in enumerate(depths):
            stage = nn.Sequential()
            for position in range(depth):
                halve = index > 0 and position == 0
                unit = block(channels, 64 * 2**index, 2 if halve else 1)
                channels = unit.channels_out
                stage.append(unit)
            self.stages.append(stage)
        self.head = nn.Linear(channels, num_classes)
        initialise(self, zero_init_residual=zero_init_residual)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), normalised images of any size, to (B, num_classes) logits."""
        x = F.relu(self.stem(images))
        if not self.small_images:
            x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        x = self.stages(x)
        x = F.adaptive_avg_pool2d(x, 1)
        logits: Tensor = self.head(torch.flatten(x, 1))
        return logits


@register(
    family="resnet",
    depth=18,
    baseline="torchvision:resnet18",
    parameters=11_689_512,
    gflops=1.814,
    source=TORCHVISION,
    sites=69,
)
def resnet18(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-18: two basic blocks a stage."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **options)


@register(
    family="resnet",
    depth=34,
    baseline="torchvision:resnet34",
    parameters=21_797_672,
    gflops=3.664,
    source=TORCHVISION,
    sites=125,
)
def resnet34(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-34: sixteen basic blocks."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **options)


@register(
    family="resnet",
    depth=50,
    baseline="torchvision:resnet50",
    parameters=25_557_032,
    gflops=4.089,
    source=TORCHVISION,
    sites=175,
)
def resnet50(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-50: sixteen bottlenecks that stride at the 3x3 (v1.5)."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **options)


@register(
    family="resnet", depth=50, parameters=25_557_032, gflops=3.858, source=f"{PAPER}, table 1", sites=175
)
def resnet50_v1(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-50 as the paper has it: the stride is at the first 1x1 convolution."""
    return ResNet(partial(Bottleneck, stride_at="reduce"), (3, 4, 6, 3), **options)


@register(
    family="resnet",
    depth=101,
    baseline="torchvision:resnet101",
    parameters=44_549_160,
    gflops=7.801,
    source=TORCHVISION,
    sites=345,
)
def resnet101(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-101: 23 bottlenecks in the third stage."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **options)


@register(
    family="resnet",
    depth=152,
    baseline="torchvision:resnet152",
    parameters=60_192_808,
    gflops=11.514,
    source=TORCHVISION,
    sites=515,
)
def resnet152(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-152: 8 bottlenecks in the second stage, 36 in the third."""
    return ResNet(Bottleneck, (3, 8, 36, 3), **options)


@register(
    family="resnext",
    depth=50,
    baseline="torchvision:resnext50_32x4d",
    parameters=25_028_904,
    gflops=4.23,
    source=TORCHVISION,
    sites=175,
)
def resnext50_32x4d(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNeXt-50: 32 groups, 4 channels wide in the first stage."""
    return ResNet(partial(Bottleneck, groups=32, group_width=4), (3, 4, 6, 3), **options)


@register(
    family="resnext",
    depth=101,
    baseline="torchvision:resnext101_32x8d",
    parameters=88_791_336,
    gflops=16.414,
    source=TORCHVISION,
    sites=345,
)
def resnext101_32x8d(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNeXt-101: 32 groups, 8 channels wide in the first stage."""
    return ResNet(partial(Bottleneck, groups=32, group_width=8), (3, 4, 23, 3), **options)


@register(
    family="resnext",
    depth=101,
    baseline="torchvision:resnext101_64x4d",
    parameters=83_455_272,
    gflops=15.46,
    source=TORCHVISION,
    sites=345,
)
def resnext101_64x4d(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNeXt-101: 64 groups, 4 channels wide in the first stage."""
    return ResNet(partial(Bottleneck, groups=64, group_width=4), (3, 4, 23, 3), **options)


@register(
    family="wide_resnet",
    depth=50,
    baseline="torchvision:wide_resnet50_2",
    parameters=68_883_240,
    gflops=11.398,
    source=TORCHVISION,
    sites=175,
)
def wide_resnet50_2(**options: Unpack[ResNetOptions]) -> ResNet:
    """Wide ResNet-50-2: twice the channels at every 3x3."""
    return ResNet(partial(Bottleneck, group_width=128), (3, 4, 6, 3), **options)


@register(
    family="wide_resnet",
    depth=101,
    baseline="torchvision:wide_resnet101_2",
    parameters=126_886_696,
    gflops=22.753,
    source=TORCHVISION,
    sites=345,
)
def wide_resnet101_2(**options: Unpack[ResNetOptions]) -> ResNet:
    """Wide ResNet-101-2: twice the channels at every 3x3."""
    return ResNet(partial(Bottleneck, group_width=128), (3, 4, 23, 3), **options)
