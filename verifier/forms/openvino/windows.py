"""Readings of OpenVINO's operators that look through a window: convolutions and pools."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.nn import functional as F

from verifier.forms.calls import Call, Readings, Value, as_tensor, at, both_ends
from verifier.forms.openvino.node import OpenvinoNode
from verifier.forms.windows import (
    CONVOLUTIONS,
    MAXIMA,
    MEANS,
    TRANSPOSED,
    padded_convolution,
    padded_maximum,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


WINDOWS = Readings[OpenvinoNode]()


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
    if count not in CONVOLUTIONS or (node.op != "Convolution" and "groups" not in node.attributes):
        return None
    before, after = _padding(node, x.shape[2:], weight.shape[2:])
    settings = {
        "stride": tuple(node.get("strides")),
        "padding": _as_padding(before, after),
        "dilation": tuple(node.get("dilations")),
        "groups": node.get("groups", 1),
    }
    function = CONVOLUTIONS[count] if before == after else padded_convolution
    return Call(f"conv{count}d", function, [x, weight, bias], settings)


@WINDOWS.of("ConvolutionBackpropData", "GroupConvolutionBackpropData")
def _transposed(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, weight = as_tensor(given[0]), as_tensor(given[1])
    count = x.dim() - 2
    # A third input may be the shape that is wanted; a bias is kept in another shape than it has here.
    bias = given[2] if len(given) == 3 and 2 in node.shapes else None
    known = bias is not None or len(given) == 2
    if not known or count not in TRANSPOSED or node.get("auto_pad", "explicit") not in ("explicit", "notset"):
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
    return Call(f"conv_transpose{count}d", TRANSPOSED[count], [x, weight, bias], settings)


@WINDOWS.of("MaxPool")
def _max_pool(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, kernel = as_tensor(given[0]), node.get("kernel")
    count = len(kernel)
    rounding = str(node.get("rounding_type", "floor")).lower()
    if count not in MAXIMA or not x.is_floating_point() or rounding == "ceil" or len(node.outputs) > 1:
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
        return Call(f"max_pool{count}d", MAXIMA[count], [x], settings)
    if settings["ceil_mode"]:
        return None
    return Call(f"max_pool{count}d", padded_maximum, [x], {**settings, "padding": _as_padding(before, after)})


@WINDOWS.of("AvgPool")
def _avg_pool(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, kernel = as_tensor(given[0]), node.get("kernel")
    count = len(kernel)
    rounding = str(node.get("rounding_type", "floor")).lower()
    if count not in MEANS or rounding == "ceil":
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
    return Call(f"avg_pool{count}d", MEANS[count], [x], settings)


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
