"""What residual networks are made of: relu(main path + shortcut).

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015 (https://arxiv.org/abs/1512.03385).

All tensors are (batch, channels, height, width). Within a block the main path is defined and computed first,
then the shortcut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class ConvNorm(nn.Module):
    """A convolution and the batch norm after it.

    The convolution has no bias: the norm would subtract it again. Its padding keeps height and width at
    stride 1.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel_size: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        """`kernel_size` is odd, so that the padding can be symmetric."""
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in,
            channels_out,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.norm(self.conv(x))
        return y


def projection(channels_in: int, channels_out: int, stride: int) -> ConvNorm | None:
    """A block's shortcut (the paper's option B): a 1x1 convolution where the shape changes, else nothing."""
    if channels_in == channels_out and stride == 1:
        return None
    return ConvNorm(channels_in, channels_out, kernel_size=1, stride=stride)


class ZeroChannels(nn.Module):
    """Every `stride`-th position of the input, and channels of zeros behind its own. No parameters.

    The paper says that zeros are padded, not where. Behind is where its authors' later code puts them
    (https://github.com/facebookarchive/fb.resnet.torch, models/resnet.lua, shortcut type A).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        """`channels_out` - `channels_in` channels are added."""
        super().__init__()
        self.added = channels_out - channels_in
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, ceil(H / stride), ceil(W / stride))."""
        seen = x[:, :, :: self.stride, :: self.stride]
        return F.pad(seen, (0, 0, 0, 0, 0, self.added))


def zero_padding(channels_in: int, channels_out: int, stride: int) -> ZeroChannels | None:
    """A block's shortcut (the paper's option A): zeros for new channels where the shape changes, else nothing."""
    if channels_in == channels_out and stride == 1:
        return None
    return ZeroChannels(channels_in, channels_out, stride)


Shortcut: TypeAlias = "Callable[[int, int, int], nn.Module | None]"
"""Makes a block's shortcut from channels in, channels out and stride; None where it is the input itself."""


class ResidualBlock(nn.Module):
    """What all blocks share. Each defines a main path, a shortcut, and which norm ends the main path."""

    channels_out: int
    shortcut: nn.Module | None

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The last norm of the main path: with gamma = 0 there, the block starts as relu(shortcut)."""
        raise NotImplementedError

    def main_path(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H / stride, W / stride), not yet rectified."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H / stride, W / stride)."""
        main = self.main_path(x)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(main + shortcut)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions: the block of ResNet-18 and ResNet-34, and of those for CIFAR."""

    def __init__(
        self, channels_in: int, planes: int, stride: int = 1, *, shortcut: Shortcut = projection
    ) -> None:
        """`planes` is the number of channels after either convolution, `stride` that of the first."""
        super().__init__()
        self.channels_out = planes
        self.first = ConvNorm(channels_in, planes, kernel_size=3, stride=stride)
        self.second = ConvNorm(planes, planes, kernel_size=3)
        self.shortcut = shortcut(channels_in, self.channels_out, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm after the second convolution."""
        return self.second.norm

    def main_path(self, x: Tensor) -> Tensor:
        """3x3, then 3x3."""
        y: Tensor = self.second(F.relu(self.first(x)))
        return y


class Bottleneck(ResidualBlock):
    """1x1 down, 3x3, 1x1 up: the block of ResNet-50 and deeper, and of ResNeXt and Wide ResNet.

    The 3x3 convolution is `groups * group_width` channels wide where `planes` is 64, and grows with `planes`:
    (1, 64) is the plain block, (1, 128) a wide one (https://arxiv.org/abs/1605.07146), and (32, 4) the
    aggregated transformations of ResNeXt-50 32x4d (https://arxiv.org/abs/1611.05431).

    The paper strides at the first 1x1, which drops three of four positions unseen. Striding at the 3x3 (known
    as v1.5) sees them all, costs a little more and is more accurate; today it is what "ResNet-50" means.
    """

    EXPANSION = 4

    def __init__(
        self,
        channels_in: int,
        planes: int,
        stride: int = 1,
        *,
        groups: int = 1,
        group_width: int = 64,
        stride_at: Literal["reduce", "spatial"] = "spatial",
    ) -> None:
        """The output has 4 * `planes` channels; `stride_at` names the convolution that takes the stride."""
        super().__init__()
        width = planes * group_width // 64 * groups
        self.channels_out = planes * self.EXPANSION
        self.reduce = ConvNorm(
            channels_in, width, kernel_size=1, stride=stride if stride_at == "reduce" else 1
        )
        self.spatial = ConvNorm(
            width, width, kernel_size=3, stride=stride if stride_at == "spatial" else 1, groups=groups
        )
        self.expand = ConvNorm(width, self.channels_out, kernel_size=1)
        self.shortcut = projection(channels_in, self.channels_out, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm after the second 1x1 convolution."""
        return self.expand.norm

    def main_path(self, x: Tensor) -> Tensor:
        """1x1, 3x3, 1x1."""
        x = F.relu(self.reduce(x))
        x = F.relu(self.spatial(x))
        y: Tensor = self.expand(x)
        return y


def initialise(network: nn.Module, *, zero_init_residual: bool = False) -> None:
    """Draw the convolutions and reset the norms of `network`, in order of definition; all else keeps its values.

    Convolutions are drawn from a normal distribution of variance 2 / fan-out (He et al., 2015,
    https://arxiv.org/abs/1502.01852), with biases of 0; norms get gamma = 1 and beta = 0. With `zero_init_residual`
    the norm that ends each main path has gamma = 0 (https://arxiv.org/abs/1706.02677).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    if zero_init_residual:
        for module in network.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.last_norm.weight)
