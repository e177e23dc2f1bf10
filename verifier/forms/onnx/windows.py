"""Readings of ONNX's operators that look through a window: convolutions and pools."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from verifier.forms.calls import Call, Readings, Value, as_tensor, at, both_ends
from verifier.forms.onnx.node import OnnxNode
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

WINDOWS = Readings[OnnxNode]()

_WHOLE_MEAN: dict[int, Callable[..., Any]] = {
    1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d
}  # fmt: skip


def _padding(
    node: OnnxNode, sizes: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """What is added before and after in each dimension."""
    count, kind = len(kernel), node.get("auto_pad", "NOTSET")
    pads = list(node.get("pads", [0] * 2 * count))
    if kind == "VALID":
        return [0] * count, [0] * count
    if kind == "NOTSET":
        return pads[:count], pads[count:]
    stride, dilation = node.get("strides", [1] * count), node.get("dilations", [1] * count)
    before, after = [], []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        more = max(0, (math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size)
        small, large = more // 2, more - more // 2
        before.append(large if kind == "SAME_LOWER" else small)
        after.append(small if kind == "SAME_LOWER" else large)
    return before, after


@WINDOWS.of("Conv")
def _conv(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, weight, bias = as_tensor(given[0]), as_tensor(given[1]), at(given, 2)
    count = x.dim() - 2
    if count not in CONVOLUTIONS:
        return None
    padding = _padding(node, x.shape[2:], weight.shape[2:])
    if padding is None:
        return None
    before, after = padding
    function = CONVOLUTIONS[count]
    settings = {
        "stride": tuple(node.get("strides", [1] * count)),
        "padding": tuple(before) if before == after else tuple(both_ends(before, after)),
        "dilation": tuple(node.get("dilations", [1] * count)),
        "groups": node.get("group", 1),
    }
    bias = None if bias is None else as_tensor(bias)
    if before == after:
        return Call(f"conv{count}d", function, [x, weight, bias], settings)
    return Call(f"conv{count}d", padded_convolution, [x, weight, bias], settings)


@WINDOWS.of("ConvTranspose")
def _conv_transpose(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, weight, bias = as_tensor(given[0]), as_tensor(given[1]), at(given, 2)
    count = x.dim() - 2
    if count not in TRANSPOSED or node.get("auto_pad", "NOTSET") != "NOTSET" or node.get("output_shape"):
        return None
    pads = list(node.get("pads", [0] * 2 * count))
    if pads[:count] != pads[count:]:
        return None
    settings = {
        "stride": tuple(node.get("strides", [1] * count)),
        "padding": tuple(pads[:count]),
        "output_padding": tuple(node.get("output_padding", [0] * count)),
        "groups": node.get("group", 1),
        "dilation": tuple(node.get("dilations", [1] * count)),
    }
    bias = None if bias is None else as_tensor(bias)
    return Call(f"conv_transpose{count}d", TRANSPOSED[count], [x, weight, bias], settings)


@WINDOWS.of("MaxPool")
def _max_pool(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, kernel = as_tensor(given[0]), node.get("kernel_shape")
    count = len(kernel)
    padding = _padding(node, x.shape[2:], kernel)
    if count not in MAXIMA or len(node.outputs) > 1 or padding is None or not x.is_floating_point():
        return None
    before, after = padding
    settings = {
        "kernel_size": tuple(kernel),
        "stride": tuple(node.get("strides", [1] * count)),
        "padding": tuple(before),
        "dilation": tuple(node.get("dilations", [1] * count)),
        "ceil_mode": bool(node.get("ceil_mode", 0)),
    }
    if before == after and all(2 * each <= size for each, size in zip(before, kernel, strict=True)):
        return Call(f"max_pool{count}d", MAXIMA[count], [x], settings)
    if settings["ceil_mode"]:
        return None
    settings["padding"] = tuple(both_ends(before, after))
    return Call(f"max_pool{count}d", padded_maximum, [x], settings)


@WINDOWS.of("AveragePool")
def _avg_pool(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, kernel = as_tensor(given[0]), node.get("kernel_shape")
    count = len(kernel)
    padding = _padding(node, x.shape[2:], kernel)
    if count not in MEANS or padding is None or any(each != 1 for each in node.get("dilations", [1])):
        return None
    before, after = padding
    if before != after or any(2 * each > size for each, size in zip(before, kernel, strict=True)):
        return None
    settings = {
        "kernel_size": tuple(kernel),
        "stride": tuple(node.get("strides", [1] * count)),
        "padding": tuple(before),
        "ceil_mode": bool(node.get("ceil_mode", 0)),
        "count_include_pad": bool(node.get("count_include_pad", 0)),
    }
    if settings["ceil_mode"] and settings["count_include_pad"]:
        return None  # runtimes differ on what lies beyond the padding
    return Call(f"avg_pool{count}d", MEANS[count], [x], settings)


@WINDOWS.of("GlobalAveragePool")
def _global_avg_pool(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    count = as_tensor(given[0]).dim() - 2
    if count not in _WHOLE_MEAN:
        return None
    return Call(f"adaptive_avg_pool{count}d", _WHOLE_MEAN[count], [given[0], (1,) * count])


@WINDOWS.of("GlobalMaxPool")
def _global_max_pool(node: OnnxNode, given: Sequence[Value]) -> Call:
    x = as_tensor(given[0])
    return Call("amax", torch.amax, [x, tuple(range(2, x.dim()))], {"keepdim": True})
