"""Which nodes of a model each node of the same model makes that ONNX Runtime has optimised: told by dataflow.

Values keep their names where they survive, so what a node makes is what lies between them. Nodes in a blocked layout
(`com.microsoft.nchwc`) give values of their own, and are called by the value that they were made for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import onnx
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.forms.onnx.plan import Body, Plan, Planned

_BLOCKED = re.compile(r"(.+)_nchwc(_token_\d+)?")
_LAYING_OUT = frozenset({"Cast", "ReorderInput", "ReorderOutput"})
_SUMMED = 3  # the input of a convolution that is added to what it gives


class Made(NamedTuple):
    """Nodes in a row of the optimised model, and the numbers of those in the file that they make, in its order."""

    nodes: tuple[onnx.NodeProto, ...]
    lines: tuple[int, ...]

    @property
    def operator(self) -> str:
        """What they compute."""
        return " + ".join(map(operator, self.nodes))

    @property
    def name(self) -> str:
        """What the runtime calls the one that computes."""
        node = self.computing
        return str(node.name or node.output[0])

    @property
    def computing(self) -> onnx.NodeProto:
        """The first that does not only lay out."""
        return next((each for each in self.nodes if each.op_type not in _LAYING_OUT), self.nodes[0])

    @property
    def cast_to(self) -> str:
        """The dtype that what they read is cast to for the one that computes; empty where it is as it was."""
        before = self.nodes[: self.nodes.index(self.computing)]
        kinds = [
            each.i
            for node in before
            if node.op_type == "Cast"
            for each in node.attribute
            if each.name == "to"
        ]
        return str(helper.tensor_dtype_to_np_dtype(kinds[0])) if kinds else ""


def operator(node: onnx.NodeProto) -> str:
    """A node's operator, with its domain where that is not ONNX's own."""
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else str(node.op_type)


def dtypes(model: onnx.ModelProto) -> dict[str, str]:
    """The dtypes of a model's values by name, as torch calls them, as far as it tells."""
    graph = model.graph
    found = {}
    for each in (*graph.input, *graph.value_info, *graph.output):
        kind = each.type.tensor_type.elem_type
        if kind:
            found[each.name] = str(helper.tensor_dtype_to_np_dtype(kind))
    return found


def made_of(plan: Plan, nodes: Sequence[onnx.NodeProto]) -> Iterator[Made]:
    """What each node of an optimised model makes, or several in a row whose values between them have other names.

    Args:
        plan: The model as it is in its file.
        nodes: Those of the optimised one, in the order of execution.
    """
    flow = _Flow(plan)
    waiting: dict[str, tuple[onnx.NodeProto, ...]] = {}
    for node in nodes:
        row = (*(each for name in node.input for each in waiting.pop(name, ())), node)
        ends = [name for name in node.output if name in flow.made] or flow.blocked(node)
        if ends:
            lines = flow.taken(ends)
            if lines:
                yield Made(row, lines)
        else:
            waiting[node.output[0]] = row


class _Flow:
    """Which node of a model makes which value, and which of them a kernel is known to make."""

    def __init__(self, plan: Plan) -> None:
        self._steps = plan.steps
        self.made = {name: k for k, step in enumerate(plan.steps) for name in step.step.node.outputs if name}
        self._readers: dict[str, list[int]] = {}
        for k, step in enumerate(plan.steps):
            for name in step.step.node.inputs:
                self._readers.setdefault(name, []).append(k)
        self._taken: set[int] = set()

    def taken(self, ends: Sequence[str]) -> tuple[int, ...]:
        """The numbers of the nodes that some values are made by, but for those that were taken before."""
        found: set[int] = set()
        waiting = [self.made[name] for name in ends]
        while waiting:
            number = waiting.pop()
            if number in self._taken:
                continue
            self._taken.add(number)
            found.add(number)
            waiting += [self.made[name] for name in self._steps[number].step.node.inputs if name in self.made]
        return tuple(line for number in sorted(found) for line in _lines(self._steps[number]))

    def blocked(self, node: onnx.NodeProto) -> list[str]:
        """The value that a node in a blocked layout gives, by its name and what is computed with it at once."""
        called = _BLOCKED.fullmatch(node.name)
        if called is None or called[1] not in self.made:
            return []
        value = called[1]
        activation = next((each.s.decode() for each in node.attribute if each.name == "activation"), "")
        behind = [*(["Add"] if len(node.input) > _SUMMED and node.input[_SUMMED] else []), activation]
        for op in filter(None, behind):
            readers = self._readers.get(value, [])
            if len(readers) == 1 and self._steps[readers[0]].step.node.op == op:
                value = self._steps[readers[0]].step.node.outputs[0]
        return [value]


def _lines(planned: Planned) -> Iterator[int]:
    """The number of a node, and those of the nodes in graphs inside it."""
    if planned.place.source is not None:
        yield planned.place.source.line
    inside: list[Body] = [*planned.bodies.values()]
    for body in inside:
        for each in body.steps:
            yield from _lines(each)
