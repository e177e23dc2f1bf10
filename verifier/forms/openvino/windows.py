"""Readings of OpenVINO's operators that look through a window: convolutions and pools."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.nn import functional as F

from verifier.forms.calls import Call, Readings, Value, as_tensor, at, both_ends, each_end
from verifier.forms.openvino.node import OpenvinoNode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

WINDOWS = Readings[OpenvinoNode]()

_CONV: dict[int, Callable[..., Any]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Any]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
_MAX: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _padding(
    node: OpenvinoNode, sizes: Sequence[int], kernel: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is added before and after in each dimension."""
    kind, count = node.get("auto_pad", "explicit"), len(kernel)
    if kind in ("explicit", "notset"):
        return tuple(node.get("pads_begin")), tuple(node.get("pads_end"))
    if kind == "valid":
        return (0,) * count, (0,) * count
    before, after = [], []
    dilations = node.get("dilations", [1] * count)
    for size, k, s, d in zip(sizes, kernel, node.get("strides"), dilations, strict=True):
        more = max(0, (math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size)
        small, large = more // 2, more - more // 2
        before.append(large if kind == "same_lower" else small)
        after.append(small if kind == "same_lower" else large)
    return tuple(before), tuple(after)


def _as_padding(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    return before if before == after else tuple(both_ends(before, after))


@WINDOWS.of("Convolution", "GroupConvolution")
def _convolution(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, weight, bias = as_tensor(given[0]), as_tensor(given[1]), at(given, 2)
    count = x.dim() - 2
    if count not in _CONV or (node.op != "Convolution" and "groups" not in node.attributes):
        return None
    before, after = _padding(node, x.shape[2:], weight.shape[2:])
    settings = {
        "stride": tuple(node.get("strides")),
        "padding": _as_padding(before, after),
        "dilation": tuple(node.get("dilations")),
        "groups": node.get("groups", 1),
    }
    function = _CONV[count] if before == after else _padded
    return Call(f"conv{count}d", function, [x, weight, bias], settings)


def _padded(
    input: Tensor,  # noqa: A002 - torch's name for it
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    count = input.dim() - 2
    made: Tensor = _CONV[count](
        F.pad(input, each_end(padding, count)), weight, bias, stride, 0, dilation, groups
    )
    return made


@WINDOWS.of("ConvolutionBackpropData", "GroupConvolutionBackpropData")
def _transposed(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, weight = as_tensor(given[0]), as_tensor(given[1])
    count = x.dim() - 2
    # A third input may be the shape that is wanted; a bias is kept in another shape than it has here.
    bias = given[2] if len(given) == 3 and 2 in node.shapes else None
    known = bias is not None or len(given) == 2
    if (
        not known
        or count not in _TRANSPOSED
        or node.get("auto_pad", "explicit") not in ("explicit", "notset")
    ):
        return None
    if node.get("pads_begin") != node.get("pads_end"):
        return None
    if node.op != "ConvolutionBackpropData" and "groups" not in node.attributes:
        return None
    settings = {
        "stride": tuple(node.get("strides")),
        "padding": tuple(node.get("pads_begin")),
        "output_padding": tuple(node.get("output_padding") or (0,) * count),
        "groups": node.get("groups", 1),
        "dilation": tuple(node.get("dilations")),
    }
    return Call(f"conv_transpose{count}d", _TRANSPOSED[count], [x, weight, bias], settings)


@WINDOWS.of("MaxPool")
def _max_pool(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, kernel = as_tensor(given[0]), node.get("kernel")
    count = len(kernel)
    rounding = str(node.get("rounding_type", "floor")).lower()
    if count not in _MAX or not x.is_floating_point() or rounding == "ceil" or len(node.outputs) > 1:
        return None
    before, after = _padding(node, x.shape[2:], kernel)
    settings = {
        "kernel_size": tuple(kernel),
        "stride": tuple(node.get("strides")),
        "padding": before,
        "dilation": tuple(node.get("dilations", [1] * count)),
        "ceil_mode": rounding == "ceil_torch",
    }
    if before == after and all(2 * each <= size for each, size in zip(before, kernel, strict=True)):
        return Call(f"max_pool{count}d", _MAX[count], [x], settings)
    if settings["ceil_mode"]:
        return None
    return Call(f"max_pool{count}d", _padded_max, [x], {**settings, "padding": _as_padding(before, after)})


def _padded_max(
    input: Tensor,  # noqa: A002
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> Tensor:
    ends = each_end(padding, input.dim() - 2)
    wide = F.pad(input, ends, value=-math.inf)
    made: Tensor = _MAX[input.dim() - 2](wide, kernel_size, stride, 0, dilation, ceil_mode)
    return made


@WINDOWS.of("AvgPool")
def _avg_pool(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, kernel = as_tensor(given[0]), node.get("kernel")
    count = len(kernel)
    rounding = str(node.get("rounding_type", "floor")).lower()
    if count not in _MEAN or rounding == "ceil":
        return None
    before, after = _padding(node, x.shape[2:], kernel)
    if before != after or any(2 * each > size for each, size in zip(before, kernel, strict=True)):
        return None
    settings = {
        "kernel_size": tuple(kernel),
        "stride": tuple(node.get("strides")),
        "padding": before,
        "ceil_mode": rounding == "ceil_torch",
        "count_include_pad": not node.get("exclude-pad"),
    }
    return Call(f"avg_pool{count}d", _MEAN[count], [x], settings)


@WINDOWS.of("AdaptiveAvgPool")
def _adaptive_pool(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, size = as_tensor(given[0]), given[1]
    function = _WHOLE.get(x.dim() - 2)
    if function is None or not isinstance(size, np.ndarray):
        return None
    return Call(f"adaptive_avg_pool{x.dim() - 2}d", function, [x, tuple(size.tolist())])


_WHOLE: dict[int, Callable[..., Any]] = {
    1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d
}  # fmt: skip
