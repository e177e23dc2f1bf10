"""Residual networks for 32 x 32 images: those of the paper's section 4.2.

A 3x3 stem and three stages of basic blocks with 16, 32 and 64 channels; depth is 6n + 2 with n blocks a stage. The
paper uses the shortcut without parameters (option A): that is what the plain names mean. A name that ends in `_b`
has 1x1 projections (option B) instead.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import nn

from reference_models.blocks import BasicBlock, ConvNorm, initialise, projection, zero_padding
from reference_models.registry import register

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "https://arxiv.org/abs/1512.03385"
SIZE = 32  # pixels: the images of CIFAR-10, and what the pooling over 8 x 8 positions asks for
CHANNELS = (16, 32, 64)
SHORTCUTS = {"A": zero_padding, "B": projection}

# Depth; parameters with option A and with option B. The paper prints the former: 0.27M to 19.4M.
TABLE = (
    (20, 269_722, 272_474),
    (32, 464_154, 466_906),
    (44, 658_586, 661_338),
    (56, 853_018, 855_770),
    (110, 1_727_962, 1_730_714),
    (1202, 19_421_274, 19_424_026),
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


for _depth, _plain, _projected in TABLE:
    register(
        name=f"cifar_resnet{_depth}",
        family="cifar_resnet",
        depth=_depth,
        baseline=f"baseline:cifar_resnet{_depth}",
        parameters=_plain,
        image_size=SIZE,
        source=f"{PAPER}, section 4.2, option A",
    )(partial(cifar_resnet, _depth))
    register(
        name=f"cifar_resnet{_depth}_b",
        family="cifar_resnet",
        depth=_depth,
        baseline=f"baseline:cifar_resnet{_depth}_b",
        parameters=_projected,
        image_size=SIZE,
        source=f"{PAPER}, section 4.2, with option B",
    )(partial(cifar_resnet, _depth, option="B"))
