"""What readings of several runtimes' windows share: convolutions and pools by their dimensions, and padded ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from verifier.forms.calls import each_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

CONVOLUTIONS: dict[int, Callable[..., Any]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED: dict[int, Callable[..., Any]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
MAXIMA: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEANS: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def padded_convolution(
    input: Tensor,  # noqa: A002 - torch's name for it
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """A convolution with other padding on the two sides of a dimension (`calls.each_end`)."""
    count = input.dim() - 2
    wide = F.pad(input, each_end(padding, count))
    made: Tensor = CONVOLUTIONS[count](wide, weight, bias, stride, 0, dilation, groups)
    return made


def padded_maximum(
    input: Tensor,  # noqa: A002
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> Tensor:
    """A pool of maxima with other padding on the two sides of a dimension, or with more than half its window."""
    count = input.dim() - 2
    wide = F.pad(input, each_end(padding, count), value=-math.inf)
    made: Tensor = MAXIMA[count](wide, kernel_size, stride, 0, dilation, ceil_mode)
    return made
