"""Readings of ONNX's operators that reduce a dimension, or run along one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from verifier.forms.calls import Call, Readings, Value, as_tensor, at, number, numbers
from verifier.forms.onnx.node import OnnxNode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REDUCTIONS = Readings[OnnxNode]()


@REDUCTIONS.of("CumSum")
def _cumsum(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if node.get("exclusive", 0) or node.get("reverse", 0) or not isinstance(given[1], np.ndarray):
        return None
    return Call("cumsum", torch.cumsum, [given[0], int(number(given[1]))], _in_its_own(as_tensor(given[0])))


def _in_its_own(x: Tensor) -> dict[str, torch.dtype]:
    """Sums of integers in the dtype these have; torch makes them wider unless told otherwise."""
    return {} if x.is_floating_point() or x.dtype == torch.int64 else {"dtype": x.dtype}


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin,
}  # fmt: skip


@REDUCTIONS.of(*_REDUCTIONS)
def _reduction(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, axes = as_tensor(given[0]), node.get("axes")
    if axes is None and at(given, 1) is not None:
        if not isinstance(given[1], np.ndarray):
            return None
        axes = numbers(given[1])
    if not axes:
        if node.get("noop_with_empty_axes", 0):
            return Call("clone", torch.clone, [x])
        axes = range(x.dim())
    function, keep = _REDUCTIONS[node.op], bool(node.get("keepdims", 1))
    if x.dtype == torch.bool or not x.numel() or (function is torch.mean and not x.is_floating_point()):
        return None
    more = _in_its_own(x) if function is torch.sum else {}
    return Call(function.__name__, function, [x, tuple(axes)], {"keepdim": keep, **more})


@REDUCTIONS.of("ArgMax", "ArgMin")
def _arg(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if node.get("select_last_index", 0):
        return None
    function = torch.argmax if node.op == "ArgMax" else torch.argmin
    return Call(
        function.__name__,
        function,
        [given[0], node.get("axis", 0)],
        {"keepdim": bool(node.get("keepdims", 1))},
    )


@REDUCTIONS.of("TopK")
def _topk(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if not isinstance(at(given, 1), np.ndarray):
        return None
    settings = {"largest": bool(node.get("largest", 1)), "sorted": bool(node.get("sorted", 1))}
    # Of equal numbers ONNX takes the first ones, and torch does not say which: none of its can be told wrong.
    return Call("topk", torch.topk, [given[0], int(number(given[1])), node.get("axis", -1)], settings)
