"""Residual networks for 32 x 32 images: those of the paper's section 4.2, and the large ones with a smaller stem.

The paper's: a 3x3 stem and three stages of basic blocks with 16, 32 and 64 channels; depth is 6n + 2 with n
blocks a stage. The paper uses the shortcut without parameters (option A): that is what the plain names mean. A
name that ends in `_b` has 1x1 projections (option B) instead.

`resnet18_cifar` and its kin are the networks for 224 x 224 images with a 3x3 stem that keeps height and width, no max
pooling, and ten classes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import nn

from reference_models.blocks import BasicBlock, Bottleneck, ConvNorm, initialise, projection, zero_padding
from reference_models.registry import register
from reference_models.resnet import ResNet

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from reference_models.blocks import Shortcut

    Registering = Callable[[Callable[..., ResNet]], Callable[..., ResNet]]

PAPER = "https://arxiv.org/abs/1512.03385"
SIZE = 32  # pixels: the images of CIFAR-10, and what the pooling over 8 x 8 positions asks for
CHANNELS = (16, 32, 64)
SHORTCUTS: dict[str, Shortcut] = {"A": zero_padding, "B": projection}

# Depth; parameters with option A and with option B, of which the paper prints the former: 0.27M to 19.4M; the same
# in 1e9 multiply-adds of one image; sites, with either.
TABLE = (
    (20, 269_722, 272_474, 0.041, 0.041, 73),
    (32, 464_154, 466_906, 0.069, 0.069, 115),
    (44, 658_586, 661_338, 0.097, 0.097, 157),
    (56, 853_018, 855_770, 0.125, 0.126, 199),
    (110, 1_727_962, 1_730_714, 0.253, 0.253, 388),
    (1202, 19_421_274, 19_424_026, 2.829, 2.829, 4_210),
)


class CifarResNet(nn.Module):
    """A 3x3 stem, three stages of `blocks` basic blocks each, the mean over 8 x 8 positions, a linear classifier.

    Every stage but the first halves height and width, so that images have to be 32 to 35 pixels high and wide.
    Initial values are those of `ResNet`.
    """

    def __init__(self, blocks: int, *, option: Literal["A", "B"] = "A", num_classes: int = 10) -> None:
        """`option` names the shortcut where the shape changes: zeros for new channels, or a projection."""
        super().__init__()
        channels = CHANNELS[0]
        self.stem = ConvNorm(3, channels, kernel_size=3)
        self.stages = nn.Sequential()
        for planes in CHANNELS:
            stage = nn.Sequential()
            for position in range(blocks):
                halve = planes != CHANNELS[0] and position == 0
                stage.append(BasicBlock(channels, planes, 2 if halve else 1, shortcut=SHORTCUTS[option]))
                channels = planes
            self.stages.append(stage)
        self.head = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) normalised images to (B, num_classes) logits."""
        x = F.relu(self.stem(images))
        x = self.stages(x)
        x = F.avg_pool2d(x, kernel_size=8)
        logits: Tensor = self.head(torch.flatten(x, 1))
        return logits


def cifar_resnet(depth: int, *, option: Literal["A", "B"] = "A", num_classes: int = 10) -> CifarResNet:
    """The network of this depth; a depth is 6n + 2.

    Raises:
        ValueError: The depth is none of those.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"a CIFAR ResNet has 6n + 2 layers, such as 20 or 110, not {depth}")
    return CifarResNet(blocks, option=option, num_classes=num_classes)


for _depth, _plain, _projected, _cost, _cost_projected, _sites in TABLE:
    register(
        name=f"cifar_resnet{_depth}",
        family="cifar_resnet",
        depth=_depth,
        baseline=f"baseline:cifar_resnet{_depth}",
        parameters=_plain,
        gflops=_cost,
        sites=_sites,
        image_size=SIZE,
        small_size=SIZE,
        source=f"{PAPER}, section 4.2, option A",
    )(partial(cifar_resnet, _depth))
    register(
        name=f"cifar_resnet{_depth}_b",
        family="cifar_resnet",
        depth=_depth,
        baseline=f"baseline:cifar_resnet{_depth}_b",
        parameters=_projected,
        gflops=_cost_projected,
        sites=_sites,
        image_size=SIZE,
        small_size=SIZE,
        source=f"{PAPER}, section 4.2, with option B",
    )(partial(cifar_resnet, _depth, option="B"))


def _large(
    depth: int, parameters: int, gflops: float, sites: int
) -> Callable[[Callable[..., ResNet]], Callable[..., ResNet]]:
    return register(
        family="resnet_cifar",
        depth=depth,
        baseline=f"baseline:resnet{depth}_cifar",
        parameters=parameters,
        gflops=gflops,
        sites=sites,
        image_size=SIZE,
        small_size=SIZE,
        source="an article on ResNets for CIFAR-10, with all depths of the paper",
    )


@_large(18, 11_173_962, gflops=0.555, sites=68)
def resnet18_cifar(num_classes: int = 10) -> ResNet:
    """ResNet-18 for 32 x 32 images."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes, small_images=True)


@_large(34, 21_282_122, gflops=1.159, sites=124)
def resnet34_cifar(num_classes: int = 10) -> ResNet:
    """ResNet-34 for 32 x 32 images."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes=num_classes, small_images=True)


@_large(50, 23_520_842, gflops=1.298, sites=174)
def resnet50_cifar(num_classes: int = 10) -> ResNet:
    """ResNet-50 for 32 x 32 images."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes=num_classes, small_images=True)


@_large(101, 42_512_970, gflops=2.51, sites=344)
def resnet101_cifar(num_classes: int = 10) -> ResNet:
    """ResNet-101 for 32 x 32 images."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes=num_classes, small_images=True)


@_large(152, 58_156_618, gflops=3.722, sites=514)
def resnet152_cifar(num_classes: int = 10) -> ResNet:
    """ResNet-152 for 32 x 32 images."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes=num_classes, small_images=True)
