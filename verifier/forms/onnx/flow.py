"""Nodes that hold graphs or lists: branches, loops and sequences, run as Python runs them.

What is inside is met node by node, as often as it runs. Meanings are those of the specification,
https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from verifier.forms.calls import as_tensor, at, number, numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.forms.onnx.node import OnnxNode
    from verifier.forms.onnx.plan import Body

Run = Callable[["Body", "Sequence[Any]"], "list[Any]"]
"""Runs a graph inside a node on what it is given."""

Flow = Callable[["OnnxNode", "Mapping[str, Body]", Run, "Sequence[Any]"], "list[Any]"]


def flow_of(node: OnnxNode) -> Flow | None:
    """How a node is run that holds graphs or lists; None for any other."""
    return None if node.op == "Scan" and node.opset < _BATCHED_SCAN else _FLOW.get(node.op)


_BATCHED_SCAN = 9  # until then it went through samples besides


def _if(_node: OnnxNode, bodies: Mapping[str, Body], run: Run, given: Sequence[Any]) -> list[Any]:
    return run(bodies["then_branch" if _true(given[0]) else "else_branch"], [])


def _loop(node: OnnxNode, bodies: Mapping[str, Body], run: Run, given: Sequence[Any]) -> list[Any]:
    own = [*given[: len(node.proto.input)], None]
    most = None if own[0] is None else int(own[0])
    go, carried, body = own[1], own[2:-1], bodies["body"]
    rows: list[list[Any]] = []
    turn = 0
    while (most is None or turn < most) and (go is None or _true(go)):
        going = np.array(True) if go is None else go
        found, *values = run(body, [np.array(turn), going, *carried])
        go = None if go is None and isinstance(found, np.ndarray) and found.all() else found
        carried = values[: len(carried)]
        rows.append(values[len(carried) :])
        turn += 1
    count = len(body.outputs) - 1 - len(carried)
    return [*carried, *(_stacked([row[k] for row in rows], 0) for k in range(count))]


def _scan(node: OnnxNode, bodies: Mapping[str, Body], run: Run, given: Sequence[Any]) -> list[Any]:
    body, count = bodies["body"], node.get("num_scan_inputs")
    own = given[: len(node.proto.input)]
    carried, walked = list(own[:-count]), [as_tensor(value) for value in own[-count:]]
    axes = node.get("scan_input_axes") or [0] * count
    backwards = node.get("scan_input_directions") or [0] * count
    turns = walked[0].shape[axes[0]]
    rows: list[list[Any]] = []
    for turn in range(turns):
        now = [
            torch.select(value, axis, turns - 1 - turn if back else turn)
            for value, axis, back in zip(walked, axes, backwards, strict=True)
        ]
        values = run(body, [*carried, *now])
        carried = values[: len(carried)]
        rows.append(values[len(carried) :])
    count = len(body.outputs) - len(carried)
    axes = node.get("scan_output_axes") or [0] * count
    backwards = node.get("scan_output_directions") or [0] * count
    return [
        *carried,
        *(
            _stacked([row[k] for row in (reversed(rows) if backwards[k] else rows)], axes[k])
            for k in range(count)
        ),
    ]


def _true(value: Any) -> bool:
    """Whether a condition holds. Of a tensor that is read as Python reads one."""
    return bool(value)


def _stacked(values: Sequence[Any], axis: int) -> Any:
    """Tensors of all turns side by side; of none there is nothing."""
    if not values:
        return torch.zeros(0)
    if all(isinstance(value, np.ndarray) for value in values):
        return np.stack(values, axis)
    return torch.stack([as_tensor(value) for value in values], axis)


def _at(given: Sequence[Any]) -> list[Any]:
    return [given[0][int(number(given[1]))]]


def _inserted(given: Sequence[Any]) -> list[Any]:
    held = list(given[0])
    held.insert(len(held) if at(given, 2) is None else _place(held, given[2]), given[1])
    return [held]


def _erased(given: Sequence[Any]) -> list[Any]:
    held = list(given[0])
    held.pop(-1 if at(given, 1) is None else int(number(given[1])))
    return [held]


def _place(held: Sequence[Any], value: Any) -> int:
    place = int(number(value))
    return place + len(held) if place < 0 else place


def _split(node: OnnxNode, given: Sequence[Any]) -> list[Any]:
    x, sizes, axis = as_tensor(given[0]), at(given, 1), node.get("axis", 0)
    if sizes is None:
        parts = torch.split(x, 1, axis)
        return [list(parts) if node.get("keepdims", 1) else list(torch.unbind(x, axis))]
    each = numbers(sizes) if isinstance(sizes, np.ndarray) else sizes.tolist()
    whole = np.ndim(sizes) == 0 if isinstance(sizes, np.ndarray) else sizes.dim() == 0
    return [list(torch.split(x, int(np.asarray(each).reshape(-1)[0]) if whole else each, axis))]


def _joined(node: OnnxNode, given: Sequence[Any]) -> list[Any]:
    tensors = [as_tensor(value) for value in given[0]]
    return [(torch.stack if node.get("new_axis", 0) else torch.cat)(tensors, node.get("axis"))]


def _plainly(function: Callable[[Sequence[Any]], list[Any]]) -> Flow:
    return lambda _node, _bodies, _run, given: function(given)


def _by_settings(function: Callable[[OnnxNode, Sequence[Any]], list[Any]]) -> Flow:
    return lambda node, _bodies, _run, given: function(node, given)


_FLOW: dict[str, Flow] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "ConcatFromSequence": _by_settings(_joined),
    "SequenceAt": _plainly(_at),
    "SequenceConstruct": _plainly(lambda given: [list(given)]),
    "SequenceEmpty": _plainly(lambda _: [[]]),
    "SequenceErase": _plainly(_erased),
    "SequenceInsert": _plainly(_inserted),
    "SequenceLength": _plainly(lambda given: [np.array(len(given[0]))]),
    "SplitToSequence": _by_settings(_split),
    "Optional": _plainly(lambda given: [given[0] if given else None]),
    "OptionalGetElement": _plainly(lambda given: [given[0]]),
    "OptionalHasElement": _plainly(lambda given: [np.array(at(given, 0) is not None)]),
}
