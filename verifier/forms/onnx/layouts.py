"""Readings of ONNX's operators that lay tensors out anew, cut and pad them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.forms.calls import Call, Readings, Value, as_tensor, at, both_ends, number, numbers
from verifier.forms.onnx.node import OnnxNode

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYOUTS = Readings[OnnxNode]()


@LAYOUTS.of("Flatten")
def _flatten(node: OnnxNode, given: Sequence[Value]) -> Call:
    x = as_tensor(given[0])
    axis = node.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 1 and x.dim() > 1:
        return Call("flatten", torch.flatten, [x, 1])
    return Call("reshape", torch.reshape, [x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))])


@LAYOUTS.of("Reshape")
def _reshape(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, wanted = as_tensor(given[0]), given[1]
    if not isinstance(wanted, np.ndarray):
        return None
    shape = [
        x.shape[k] if size == 0 and not node.get("allowzero", 0) else size
        for k, size in enumerate(numbers(wanted))
    ]
    return Call("reshape", torch.reshape, [x, tuple(shape)])


@LAYOUTS.of("Transpose")
def _transpose(node: OnnxNode, given: Sequence[Value]) -> Call:
    x = as_tensor(given[0])
    return Call("permute", torch.permute, [x, tuple(node.get("perm", range(x.dim())[::-1]))])


def _axes(node: OnnxNode, given: Sequence[Value]) -> list[int] | Tensor | None:
    """The axes a node names in its second input, before opset 13 in an attribute; None where it leaves them out.

    A tensor where it computes them.
    """
    value = at(given, 1)
    if value is None:
        axes: list[int] | None = node.get("axes")
        return axes
    return numbers(value) if isinstance(value, np.ndarray) else value


@LAYOUTS.of("Squeeze")
def _squeeze(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    axes = _axes(node, given)
    if isinstance(axes, Tensor):
        return None
    return Call("squeeze", torch.squeeze, [given[0]] if axes is None else [given[0], tuple(axes)])


@LAYOUTS.of("Unsqueeze")
def _unsqueeze(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, axes = as_tensor(given[0]), _axes(node, given)
    if axes is None or isinstance(axes, Tensor):
        return None
    if len(axes) == 1:
        return Call("unsqueeze", torch.unsqueeze, [x, axes[0]])
    places = {axis % (x.dim() + len(axes)) for axis in axes}
    sizes = iter(x.shape)
    shape = tuple(1 if k in places else next(sizes) for k in range(x.dim() + len(axes)))
    return Call("reshape", torch.reshape, [x, shape])


@LAYOUTS.of("Concat")
def _concat(node: OnnxNode, given: Sequence[Value]) -> Call:
    return Call("cat", torch.cat, [[as_tensor(value) for value in given], node.get("axis")])


@LAYOUTS.of("Split")
def _split(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, axis = as_tensor(given[0]), node.get("axis", 0)
    sizes = node.get("split")
    if sizes is None and at(given, 1) is not None:
        if not isinstance(given[1], np.ndarray):
            return None
        sizes = numbers(given[1])
    if sizes is None:
        each = math.ceil(x.shape[axis] / len(node.outputs))
        sizes = [min(each, x.shape[axis] - k * each) for k in range(len(node.outputs))]
    return Call("split", torch.split, [x, list(sizes), axis])


@LAYOUTS.of("Slice")
def _slice(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    if node.opset < 10:
        starts, ends, axes, steps = node.get("starts"), node.get("ends"), node.get("axes"), None
    else:
        if not all(value is None or isinstance(value, np.ndarray) for value in given[1:]):
            return None
        values = [None if at(given, k) is None else numbers(at(given, k)) for k in range(1, 5)]
        starts, ends, axes, steps = values
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    if any(step < 0 for step in steps):
        return None
    cut = [slice(None)] * x.dim()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        whole = start == 0 and end >= x.shape[axis]
        cut[axis] = slice(None, None, step) if whole else slice(start, None if end >= _END else end, step)
        if whole and step == 1:
            cut[axis] = slice(None)
    return Call("getitem", Tensor.__getitem__, [x, tuple(cut)])


_END = 2**31 - 1  # and beyond: to the end


@LAYOUTS.of("Gather")
def _gather(node: OnnxNode, given: Sequence[Value]) -> Call:
    x, indices, axis = as_tensor(given[0]), given[1], node.get("axis", 0)
    if isinstance(indices, np.ndarray) and indices.ndim == 0:
        return Call("select", torch.select, [x, axis, int(number(indices))])
    indices = as_tensor(indices)
    if axis == 0 and x.dim() == 2 and isinstance(x, torch.nn.Parameter):
        return Call("embedding", _looked_up, [indices, x])
    if indices.dim() == 1:
        return Call("index_select", _selected, [x, axis, indices])
    return Call("index", _taken, [x, axis, indices])


def _looked_up(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
    """Rows of a table, from its end where an index is negative."""
    return F.embedding(torch.where(input < 0, input + weight.shape[0], input), weight)


def _selected(input: Tensor, dim: int, index: Tensor) -> Tensor:  # noqa: A002
    size = input.shape[dim]
    return torch.index_select(input, dim, torch.where(index < 0, index + size, index).to(torch.int64))


def _taken(input: Tensor, dim: int, index: Tensor) -> Tensor:  # noqa: A002
    flat = _selected(input, dim, index.reshape(-1))
    dim = dim % input.dim()
    return flat.reshape(*input.shape[:dim], *index.shape, *input.shape[dim + 1 :])


@LAYOUTS.of("GatherElements")
def _gather_elements(node: OnnxNode, given: Sequence[Value]) -> Call:
    return Call("gather", _gathered, [as_tensor(given[0]), node.get("axis", 0), as_tensor(given[1])])


def _gathered(input: Tensor, dim: int, index: Tensor) -> Tensor:  # noqa: A002
    return torch.gather(input, dim, torch.where(index < 0, index + input.shape[dim], index).to(torch.int64))


@LAYOUTS.of("Expand")
def _expand(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    if not isinstance(given[1], np.ndarray):
        return None
    shape = tuple(np.broadcast_shapes(tuple(x.shape), tuple(numbers(given[1]))))
    return Call("expand", Tensor.expand, [x, shape])


@LAYOUTS.of("Tile")
def _tile(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if not isinstance(given[1], np.ndarray):
        return None
    return Call("repeat", Tensor.repeat, [as_tensor(given[0]), tuple(numbers(given[1]))])


@LAYOUTS.of("Pad")
def _pad(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, mode = as_tensor(given[0]), node.get("mode", "constant")
    pads, value = (
        (node.get("pads"), node.get("value", 0.0)) if node.opset < 11 else (at(given, 1), at(given, 2))
    )
    axes = at(given, 3)
    if not isinstance(pads, np.ndarray | list) or not isinstance(axes, np.ndarray | None):
        return None
    pads = numbers(pads)
    named = [axis % x.dim() for axis in (range(x.dim()) if axes is None else numbers(axes))]
    before, after = [0] * x.dim(), [0] * x.dim()
    for k, axis in enumerate(named):
        before[axis], after[axis] = pads[k], pads[k + len(named)]
    if value is not None and not isinstance(value, np.ndarray | float | int):
        return None
    ends = both_ends(before, after)
    while len(ends) > 2 and ends[-2:] == [0, 0]:
        ends = ends[:-2]
    if mode == "constant":
        return Call("pad", F.pad, [x, tuple(ends)], {"value": 0.0 if value is None else number(value)})
    mode = {"edge": "replicate", "reflect": "reflect"}.get(mode, "")
    within = 2 <= x.dim() <= 5 and len(ends) <= 2 * (x.dim() - 2) and min(ends) >= 0
    within = within and all(
        max(pair) < size for pair, size in zip(zip(before, after, strict=True), x.shape, strict=True)
    )
    return (
        Call("pad", F.pad, [x, tuple(ends)], {"mode": mode})
        if mode and within and x.is_floating_point()
        else None
    )


@LAYOUTS.of("DepthToSpace")
def _depth_to_space(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if node.get("mode", "DCR") != "CRD":
        return None
    return Call("pixel_shuffle", F.pixel_shuffle, [given[0], node.get("blocksize")])


@LAYOUTS.of("Trilu")
def _trilu(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    offset = at(given, 1)
    if offset is not None and not isinstance(offset, np.ndarray):
        return None
    function = torch.triu if node.get("upper", 1) else torch.tril
    return Call(function.__name__, function, [given[0], 0 if offset is None else int(number(offset))])
