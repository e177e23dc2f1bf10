"""Readings of OpenVINO's operators that reduce dimensions, or run along one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from verifier.forms.calls import Call, Readings, Value, as_tensor, number
from verifier.forms.openvino.node import OpenvinoNode, axes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REDUCTIONS = Readings[OpenvinoNode]()

_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin,
}  # fmt: skip


@REDUCTIONS.of(*_REDUCTIONS)
def _reduction(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, function = as_tensor(given[0]), _REDUCTIONS[node.op]
    along = axes(given[1], x.dim())
    if not along or x.dtype == torch.bool or (function is torch.mean and not x.is_floating_point()):
        return None
    return Call(function.__name__, function, [x, tuple(along)], {"keepdim": bool(node.get("keep_dims"))})


@REDUCTIONS.of("ReduceL1", "ReduceL2")
def _norm(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    along = axes(given[1], x.dim())
    if not along or not x.is_floating_point():
        return None
    settings = {"dim": tuple(along), "keepdim": bool(node.get("keep_dims"))}
    order = 1 if node.op == "ReduceL1" else 2
    return Call("linalg_vector_norm", torch.linalg.vector_norm, [x, order], settings)


@REDUCTIONS.of("ReduceLogicalAnd", "ReduceLogicalOr")
def _logical(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    along = axes(given[1], x.dim())
    function: Callable[..., Any] = torch.all if node.op == "ReduceLogicalAnd" else torch.any
    if not along:
        return None
    return Call(function.__name__, function, [x, tuple(along)], {"keepdim": bool(node.get("keep_dims"))})


@REDUCTIONS.of("CumSum")
def _cumsum(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    axis = given[1] if len(given) > 1 else np.array(0)
    if node.get("exclusive") or node.get("reverse") or not isinstance(axis, np.ndarray):
        return None
    return Call("cumsum", torch.cumsum, [given[0], int(number(axis))])


@REDUCTIONS.of("TopK")
def _topk(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    if not isinstance(given[1], np.ndarray) or node.get("sort") not in ("value", "none"):
        return None
    x, count, axis = as_tensor(given[0]), int(number(given[1])), node.get("axis", -1)
    if count == 1:  # of equal ones the first, which torch promises here alone
        function: Callable[..., Any] = torch.max if node.get("mode") == "max" else torch.min
        return Call(function.__name__, function, [x, axis], {"keepdim": True})
    settings = {"largest": node.get("mode") == "max", "sorted": node.get("sort") == "value"}
    return Call("topk", torch.topk, [x, count, axis], settings)
