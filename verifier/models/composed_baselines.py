"""Baselines for networks that torchvision does not have: its own blocks, composed here.

torchvision publishes ResNets for 224 x 224 images: none for CIFAR's 32 x 32, none with squeeze-and-excitation.
What it does publish is what they are made of, and that is trusted: `torchvision.models.resnet.BasicBlock` and
`Bottleneck` with whatever shortcut they are handed as `downsample`, and `torchvision.ops.SqueezeExcitation`.
What is written here is the little around them. The baseline of the small five-class network, which nobody
publishes, is plain functional calls on named tensors. Nothing here shares code with `reference_models`.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import SqueezeExcitation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Downsample = Callable[[int, int, int], nn.Module]


class SubsampleAndPad(nn.Module):
    """Option A of the paper: every second position, zeros for the channels that are new."""

    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        """Channels of zeros are put behind the `inplanes` there are, up to `planes`."""
        super().__init__()
        self.stride = stride
        self.pad = nn.ConstantPad3d((0, 0, 0, 0, 0, planes - inplanes), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inplanes, H, W) to (B, planes, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.pad(x[:, :, :: self.stride, :: self.stride])
        return y


def projected(inplanes: int, planes: int, stride: int) -> nn.Sequential:
    """Option B of the paper, as torchvision writes it: a 1x1 convolution and its norm."""
    return nn.Sequential(
        nn.Conv2d(inplanes, planes, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(planes)
    )


class Composed(nn.Module):
    """torchvision's blocks between a stem and a classifier, laid out and named as in torchvision's `ResNet`."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        *,
        width: int = 64,
        downsample: Downsample = projected,
        imagenet: bool = False,
        pool: nn.Module | None = None,
        num_classes: int = 10,
        squeeze: int | None = None,
    ) -> None:
        """`layers` blocks to a stage.

        `width` channels in the first and twice as many in each that follows. `imagenet` has the stem for 224 x 224
        images, else it is a 3x3 convolution; `squeeze` is how many times narrower a squeeze-and-excitation at the
        end of each main path is.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(
            3,
            width,
            kernel_size=7 if imagenet else 3,
            stride=2 if imagenet else 1,
            padding=3 if imagenet else 1,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if imagenet else None
        inplanes = width
        for index, blocks in enumerate(layers):
            planes = width * 2**index
            stage = nn.Sequential()
            for position in range(blocks):
                stride = 2 if index and not position else 1
                outplanes = planes * block.expansion
                same = stride == 1 and inplanes == outplanes
                shortcut = None if same else downsample(inplanes, outplanes, stride)
                unit = block(inplanes, planes, stride, shortcut)
                if squeeze is not None:
                    _add_excitation(unit, squeeze)
                stage.append(unit)
                inplanes = outplanes
            self.add_module(f"layer{index + 1}", stage)
        self.stages = len(layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1)) if pool is None else pool
        self.fc = nn.Linear(inplanes, num_classes)
        draw(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        if self.maxpool is not None:
            x = self.maxpool(x)
        for index in range(self.stages):
            x = self.get_submodule(f"layer{index + 1}")(x)
        x = torch.flatten(self.avgpool(x), 1)
        y: Tensor = self.fc(x)
        return y


def _add_excitation(block: BasicBlock | Bottleneck, squeeze: int) -> None:
    """Put torchvision's squeeze-and-excitation behind the norm that ends the block's main path."""
    name = "bn3" if isinstance(block, Bottleneck) else "bn2"
    norm = block.get_submodule(name)
    channels = norm.num_features
    setattr(block, name, nn.Sequential(norm, SqueezeExcitation(channels, channels // squeeze)))


def draw(network: nn.Module) -> None:
    """Initial values as torchvision's `ResNet` draws them, module by module."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 1)
            nn.init.constant_(module.bias, 0)


class SmallResNet18(nn.Module):
    """The five-class network as functional calls: convolution, norm and addition written out, tensor by tensor."""

    CHANNELS = (16, 32, 64, 128, 256)
    STRIDES = (3, 3, 2, 2)

    def __init__(self) -> None:
        """Initial values as torch's own layers draw them."""
        super().__init__()
        self._convolution("stem", 3, 16, 3)
        for index, (before, after) in enumerate(pairwise(self.CHANNELS), 1):
            self._convolution(f"block{index}_a", before, after, 3)
            self._convolution(f"block{index}_b", after, after, 3)
            self._convolution(f"block{index}_shortcut", before, after, 1)
        self._weight_and_bias("head", (5, 256 * 3 * 3))

    def _convolution(self, name: str, before: int, after: int, kernel: int) -> None:
        self._weight_and_bias(name, (after, before, kernel, kernel))
        self.register_parameter(f"{name}_gamma", nn.Parameter(torch.ones(after)))
        self.register_parameter(f"{name}_beta", nn.Parameter(torch.zeros(after)))
        self.register_buffer(f"{name}_mean", torch.zeros(after))
        self.register_buffer(f"{name}_variance", torch.ones(after))

    def _weight_and_bias(self, name: str, shape: tuple[int, ...]) -> None:
        weight, bias = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape[0]))
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        nn.init.uniform_(bias, -bound, bound)
        self.register_parameter(f"{name}_weight", weight)
        self.register_parameter(f"{name}_bias", bias)

    def _convolved(self, name: str, x: Tensor, stride: int, padding: int) -> Tensor:
        tensors = {**self._parameters, **self._buffers}
        x = F.conv2d(
            x, self.get_parameter(f"{name}_weight"), self.get_parameter(f"{name}_bias"), stride, padding
        )
        return F.batch_norm(
            x,
            tensors[f"{name}_mean"],
            tensors[f"{name}_variance"],
            tensors[f"{name}_gamma"],
            tensors[f"{name}_beta"],
            training=self.training,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 224, 224) to (B, 5)."""
        x = F.relu(self._convolved("stem", x, 3, 0))
        for index, stride in enumerate(self.STRIDES, 1):
            y = F.relu(self._convolved(f"block{index}_a", x, stride, 1))
            y = self._convolved(f"block{index}_b", y, 1, 1)
            x = F.relu(self._convolved(f"block{index}_shortcut", x, stride, 0) + y)
        return F.linear(
            torch.flatten(x, 1), self.get_parameter("head_weight"), self.get_parameter("head_bias")
        )


def _cifar(blocks: int, downsample: Downsample) -> Composed:
    return Composed(BasicBlock, (blocks,) * 3, width=16, downsample=downsample, pool=nn.AvgPool2d(8))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"cifar_resnet{6 * blocks + 2}{suffix}": partial(_cifar, blocks, downsample)
        for blocks in (3, 5, 7, 9, 18, 200)
        for suffix, downsample in (("", SubsampleAndPad), ("_b", projected))
    },
    **{
        f"resnet{depth}_cifar": partial(Composed, block, layers)
        for depth, block, layers in (
            (18, BasicBlock, (2, 2, 2, 2)),
            (34, BasicBlock, (3, 4, 6, 3)),
            (50, Bottleneck, (3, 4, 6, 3)),
            (101, Bottleneck, (3, 4, 23, 3)),
            (152, Bottleneck, (3, 8, 36, 3)),
        )
    },
    "se_resnet18": partial(Composed, BasicBlock, (2, 2, 2, 2), imagenet=True, num_classes=1000, squeeze=16),
    "se_resnet50": partial(Composed, Bottleneck, (3, 4, 6, 3), imagenet=True, num_classes=1000, squeeze=16),
    "small_resnet18": SmallResNet18,
}
"""What `baseline:NAME` can name, and what builds it, freshly initialised and in training mode."""
