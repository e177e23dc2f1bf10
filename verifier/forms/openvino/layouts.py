"""Readings of OpenVINO's operators that lay tensors out anew, cut, pad and resize them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.forms.calls import Call, Readings, Value, as_tensor, at, both_ends, number, numbers
from verifier.forms.openvino.node import OpenvinoNode, axes

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYOUTS = Readings[OpenvinoNode]()
"""What only lays out or cuts: its numbers are those that it is given, in whatever way it is run."""

RESIZES = Readings[OpenvinoNode]()


@LAYOUTS.of("Reshape")
def _reshape(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, wanted = as_tensor(given[0]), given[1]
    if not isinstance(wanted, np.ndarray):
        return None
    shape = [
        x.shape[k] if size == 0 and node.get("special_zero") and k < x.dim() else size
        for k, size in enumerate(numbers(wanted))
    ]
    return Call("reshape", torch.reshape, [x, tuple(shape)])


@LAYOUTS.of("Transpose")
def _transpose(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, order = as_tensor(given[0]), given[1]
    if not isinstance(order, np.ndarray):
        return None
    return Call("permute", torch.permute, [x, tuple(numbers(order) or range(x.dim())[::-1])])


@LAYOUTS.of("Squeeze")
def _squeeze(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    if len(given) < 2:
        return Call("squeeze", torch.squeeze, [x])
    along = axes(given[1], x.dim())
    return None if along is None else Call("squeeze", torch.squeeze, [x, tuple(along)])


@LAYOUTS.of("Unsqueeze")
def _unsqueeze(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    if not isinstance(given[1], np.ndarray):
        return None
    along = axes(given[1], x.dim() + given[1].size) or []
    if len(along) == 1:
        return Call("unsqueeze", torch.unsqueeze, [x, along[0]])
    sizes = iter(x.shape)
    shape = tuple(1 if k in along else next(sizes) for k in range(x.dim() + len(along)))
    return Call("reshape", torch.reshape, [x, shape])


@LAYOUTS.of("Concat")
def _concat(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    return Call("cat", torch.cat, [[as_tensor(value) for value in given], node.get("axis")])


@LAYOUTS.of("Split", "VariadicSplit")
def _split(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    axis = axes(given[1], x.dim())
    if axis is None:
        return None
    if node.op == "Split":
        sizes = [x.shape[axis[0]] // node.get("num_splits")] * node.get("num_splits")
    elif isinstance(given[2], np.ndarray):
        sizes = numbers(given[2])
        left = x.shape[axis[0]] - sum(size for size in sizes if size >= 0)
        sizes = [left if size < 0 else size for size in sizes]
    else:
        return None
    return Call("split", torch.split, [x, sizes, axis[0]])


@LAYOUTS.of("Slice")
def _slice(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    if not all(isinstance(value, np.ndarray) for value in given[1:]):
        return None
    starts, stops, steps = (numbers(value) for value in given[1:4])
    along = axes(given[4], x.dim()) if len(given) > 4 else [*range(len(starts))]
    if along is None or any(step < 0 for step in steps):
        return None
    cut = [slice(None)] * x.dim()
    for start, stop, step, axis in zip(starts, stops, steps, along, strict=True):
        cut[axis] = _part(start, stop, step, x.shape[axis])
    return Call("getitem", Tensor.__getitem__, [x, tuple(cut)])


def _part(start: int | None, stop: int | None, step: int, size: int) -> slice:
    """A part of a dimension, without bounds where these are its own."""
    return slice(
        None if start in (None, 0) else start,
        None if stop is None or stop >= size else stop,
        None if step == 1 else step,
    )


@LAYOUTS.of("StridedSlice")
def _strided_slice(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    if not all(isinstance(value, np.ndarray) for value in given[1:]) or any(node.get("ellipsis_mask", [])):
        return None
    starts, stops = numbers(given[1]), numbers(given[2])
    steps = numbers(given[3]) if len(given) > 3 else [1] * len(starts)
    if any(step < 0 for step in steps):
        return None

    def told(mask: str, place: int) -> bool:
        values = node.get(mask, [])
        return place < len(values) and bool(values[place])

    cut: list[slice | int | None] = []
    dim = 0
    for k, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        if told("new_axis_mask", k):
            cut.append(None)
            continue
        if told("shrink_axis_mask", k):
            cut.append(start)
        else:
            first = None if told("begin_mask", k) else start
            last = None if told("end_mask", k) else stop
            cut.append(_part(first, last, step, x.shape[dim]))
        dim += 1
    return Call("getitem", Tensor.__getitem__, [x, tuple(cut)])


@LAYOUTS.of("Gather")
def _gather(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, indices = as_tensor(given[0]), given[1]
    axis = axes(given[2], x.dim())
    if axis is None or node.get("batch_dims"):
        return None
    if isinstance(indices, np.ndarray) and indices.ndim == 0:
        return Call("select", torch.select, [x, axis[0], int(number(indices))])
    indices = as_tensor(indices)
    if axis[0] == 0 and x.dim() == 2 and isinstance(x, torch.nn.Parameter):
        return Call("embedding", F.embedding, [indices, x])
    return Call("index_select" if indices.dim() == 1 else "index", _taken, [x, axis[0], indices])


def _taken(input: Tensor, dim: int, index: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
    index = torch.where(index < 0, index + input.shape[dim], index).to(torch.int64)
    flat = torch.index_select(input, dim, index.reshape(-1))
    return flat.reshape(*input.shape[:dim], *index.shape, *input.shape[dim + 1 :])


@LAYOUTS.of("GatherElements")
def _gather_elements(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    x = as_tensor(given[0])
    return Call("gather", _gathered, [x, node.get("axis") % x.dim(), as_tensor(given[1])])


def _gathered(input: Tensor, dim: int, index: Tensor) -> Tensor:  # noqa: A002
    index = torch.where(index < 0, index + input.shape[dim], index)
    return torch.gather(input, dim, index.to(torch.int64))


@LAYOUTS.of("Broadcast")
def _broadcast(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, wanted = as_tensor(given[0]), given[1]
    if not isinstance(wanted, np.ndarray) or node.get("mode") not in ("numpy", "bidirectional"):
        return None
    shape = tuple(np.broadcast_shapes(tuple(x.shape), tuple(numbers(wanted))))
    return Call("expand", Tensor.expand, [x, shape])


@LAYOUTS.of("Tile")
def _tile(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    if not isinstance(given[1], np.ndarray):
        return None
    return Call("tile", torch.tile, [as_tensor(given[0]), tuple(numbers(given[1]))])


@LAYOUTS.of("Pad")
def _pad(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, mode, value = as_tensor(given[0]), node.get("pad_mode"), at(given, 3)
    if not all(isinstance(each, np.ndarray) for each in given[1:]):
        return None
    ends = both_ends(numbers(given[1]), numbers(given[2]))
    while len(ends) > 2 and ends[-2:] == [0, 0]:
        ends = ends[:-2]
    if mode == "constant":
        return Call("pad", F.pad, [x, tuple(ends)], {"value": 0.0 if value is None else number(value)})
    mode = {"edge": "replicate", "reflect": "reflect"}.get(mode, "")
    within = 2 <= x.dim() <= 5 and len(ends) <= 2 * (x.dim() - 2) and min(ends) >= 0
    if not mode or not within or not x.is_floating_point():
        return None
    return Call("pad", F.pad, [x, tuple(ends)], {"mode": mode})


@LAYOUTS.of("DepthToSpace")
def _depth_to_space(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    if node.get("mode") != "depth_first" or as_tensor(given[0]).dim() != 4:
        return None
    return Call("pixel_shuffle", F.pixel_shuffle, [given[0], node.get("block_size")])


@RESIZES.of("Interpolate")
def _interpolate(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, mode = as_tensor(given[0]), node.get("mode")
    how, nearest = node.get("coordinate_transformation_mode"), node.get("nearest_mode")
    newest = node.opset == "opset11"
    amounts = given[1] if newest or node.get("shape_calculation_mode") == "sizes" else at(given, 2)
    along = at(given, 2 if newest else 3)
    padded = any((*node.get("pads_begin", []), *node.get("pads_end", [])))
    if x.dim() != 4 or padded or node.get("antialias") or not isinstance(amounts, np.ndarray):
        return None
    if (axes(along, 4) if along is not None else [*range(4)]) != [2, 3]:
        return None
    settings: dict[str, object] = {}
    size = numbers(amounts)
    if node.get("shape_calculation_mode") == "scales":
        scales, size = size, [math.floor(n * s + 1e-6) for n, s in zip(x.shape[2:], size, strict=True)]
        if any(abs(n * s - m) > 1e-6 * m for n, s, m in zip(x.shape[2:], scales, size, strict=True)):
            return None  # the scale itself is used, not that of the sizes
    settings["size"] = tuple(int(each) for each in size)
    if mode == "nearest":
        whole = all(m % n == 0 for n, m in zip(x.shape[2:], size, strict=True))
        if (how == "asymmetric" and nearest == "floor") or (whole and how.endswith("half_pixel")):
            return Call("interpolate", F.interpolate, [x], {**settings, "mode": "nearest"})
        return None
    if mode not in _SMOOTH or (mode == "cubic" and node.get("cube_coeff", -0.75) != -0.75):
        return None
    corners = how == "align_corners"
    if not corners and how not in ("half_pixel", "pytorch_half_pixel"):
        return None
    if how == "pytorch_half_pixel" and 1 in size:
        return None
    return Call(
        "interpolate", F.interpolate, [x], {**settings, "mode": _SMOOTH[mode], "align_corners": corners}
    )


_SMOOTH = {"linear_onnx": "bilinear", "linear": "bilinear", "cubic": "bicubic"}
