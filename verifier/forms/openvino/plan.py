"""What an OpenVINO model says: its operators in order, what it has learnt, where each node comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from verifier.errors import SourceError
from verifier.forms.openvino.alone import evaluated
from verifier.forms.openvino.joining import Part, joined
from verifier.forms.openvino.node import OpenvinoNode
from verifier.forms.openvino.steps import NodeStep
from verifier.forms.paths import module_of, placed
from verifier.graph.traced import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.graph.interpreted import Node

_STATIC = 64  # elements: shorter lists of integers are shapes and settings, longer ones tables

# Operators that a single number may be given to in no dimension.
_SPREADING = frozenset(
    {"Add", "Divide", "Equal", "FloorMod", "Greater", "GreaterEqual", "Less", "LessEqual", "Maximum", "Minimum",
     "Mod", "Multiply", "NotEqual", "Power", "Select", "SquaredDifference", "Subtract"}
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a model's file says, read once and shared by every copy of the program.

    Attributes:
        inputs: Names of what the model is given.
        outputs: Names of what it returns.
        called: What the file calls that.
        steps: Its nodes in order, each with where it comes from and the values that are read by none after it.
        tensors: What it has learnt, by the names of values.
        constants: Other constants: shapes, settings, numbers.
        native: The dtype of the floating-point numbers in it.
        paths: What the file calls `tensors`.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    called: tuple[str, ...]
    steps: tuple[tuple[NodeStep, Node, tuple[str, ...]], ...]
    tensors: Mapping[str, np.ndarray]
    constants: Mapping[str, np.ndarray]
    native: torch.dtype
    paths: Mapping[str, str]

    @classmethod
    def of(
        cls,
        inputs: Sequence[str],
        outputs: Sequence[str],
        called: Sequence[str],
        steps: Sequence[tuple[NodeStep, Node]],
        tensors: Mapping[str, np.ndarray],
        constants: Mapping[str, np.ndarray],
        paths: Mapping[str, str],
    ) -> Plan:
        """The plan of a graph; arguments are its attributes, but for what follows from them."""
        last = {name: k for k, (step, _) in enumerate(steps) for name in step.node.inputs}
        kept = {*outputs}
        floats = [array.dtype for array in tensors.values() if array.dtype.kind == "f"]
        return cls(
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            called=tuple(called),
            steps=tuple(
                (
                    step,
                    place,
                    tuple(name for name in {*step.node.inputs} if last[name] == k and name not in kept),
                )
                for k, (step, place) in enumerate(steps)
            ),
            tensors=tensors,
            constants=constants,
            native=torch.from_numpy(np.zeros(1, floats[0] if floats else np.float32)).dtype,
            paths=paths,
        )

    def __deepcopy__(self, _memo: object) -> Plan:
        return self


def plan_of(model: Any, file: str) -> Plan:
    """What a model says.

    Args:
        model: The model.
        file: Its file's name, for where a node is written.

    Raises:
        SourceError: It keeps state from call to call, or draws random numbers.
    """
    drawing = next((op for op in model.get_ops() if op.get_type_name() in _DRAWS), None)
    if drawing is not None:
        raise SourceError(
            f"the OpenVINO model draws random numbers in {drawing.get_friendly_name()}, in an order of the runtime's "
            "own, so that no two runs can be compared. Convert it without."
        )
    if model.get_variables():
        raise SourceError(
            "the OpenVINO model keeps state from call to call, which cannot be looked into yet: give it without, as "
            "it is before openvino's stateful transformations."
        )
    # The nodes are taken out of their graph one by one, so it is one of our own; it shares its constants.
    return _Reader(model.clone(), file).plan


_DRAWS = frozenset({"Multinomial", "RandomUniform"})


class _Reader:
    def __init__(self, model: Any, file: str) -> None:
        self._keys: dict[Any, str] = {}
        self._held: dict[str, np.ndarray] = {}
        self._names: dict[str, str] = {}
        self._numbers: dict[str, np.ndarray] = {}
        parameters = {each.get_node(): _name(each) for each in model.inputs}
        found: list[Part] = []
        for place, handle in enumerate(model.get_ordered_ops()):
            self._read(place, handle, parameters, found)
        results = [self._key(each.get_source_output()) for each in (r.input(0) for r in model.get_results())]
        found = joined(found, self._held, self._names)
        nodes = [part.node for part in found]
        used = {name for node in nodes for name in node.inputs} | {*results}
        held = {name: array for name, array in self._held.items() if name in used}
        tensors = {name: array for name, array in held.items() if _is_learnt(array)}
        constants = {name: array for name, array in held.items() if name not in tensors} | self._numbers
        origins = [Origin(module_of(node.name), leaf=False) for node in nodes]
        steps = [NodeStep(part, tensors | constants) for part in found]
        self.plan = Plan.of(
            [*parameters.values()],
            results,
            [_name(each) for each in model.outputs],
            [*zip(steps, placed(origins, [node.name for node in nodes], file), strict=True)],
            tensors,
            constants,
            {name: self._names[name] for name in tensors},
        )

    def _read(
        self,
        place: int,
        handle: Any,
        parameters: dict[Any, str],
        found: list[Part],
    ) -> None:
        op, name = handle.get_type_name(), handle.get_friendly_name()
        # Outputs that nobody reads behind the last that somebody does, such as the places of maxima.
        read = [k for k, each in enumerate(handle.outputs()) if each.get_target_inputs()]
        outputs = tuple(f"{place}:{k}" for k in range(max(read, default=0) + 1))
        if op == "Result":
            return
        if op == "Parameter":
            outputs = (parameters[handle],)
        self._keys |= {_place(each): key for each, key in zip(handle.outputs(), outputs, strict=False)}
        inputs = tuple(self._key(each.get_source_output()) for each in handle.inputs())
        if op == "Parameter":
            return
        if op == "Constant":
            self._hold(outputs, [np.array(handle.data)], name)
        elif inputs and all(each in self._held for each in inputs) and not op.startswith("Random"):
            self._hold(outputs, evaluated(handle, [self._held[each] for each in inputs]), name)
        else:
            if op in _SPREADING:
                inputs = self._with_numbers(handle, inputs)
            node = OpenvinoNode(
                op=op,
                name=name,
                inputs=inputs,
                outputs=outputs,
                attributes={key: _plain(value) for key, value in handle.get_attributes().items()},
                opset=handle.get_type_info().version_id,
                kinds=tuple(each.get_element_type().get_type_name() for each in handle.outputs()),
                place=place,
            )
            found.append(Part(node, (handle,), tuple((0, k) for k in range(len(inputs)))))

    def _key(self, output: Any) -> str:
        return self._keys[_place(output)]

    def _hold(self, outputs: Sequence[str], arrays: Sequence[np.ndarray], name: str) -> None:
        for k, (key, array) in enumerate(zip(outputs, arrays, strict=False)):
            self._held[key] = array
            learnt = name.removeprefix("self.").removesuffix("_compressed")
            self._names[key] = learnt if k == 0 else f"{learnt}_{k}"

    def _with_numbers(self, handle: Any, inputs: tuple[str, ...]) -> tuple[str, ...]:
        """The inputs with numbers in the place of tensors of one element that give the result no dimension."""
        ranks = [each.get_partial_shape().rank for each in handle.inputs()]
        if any(rank.is_dynamic for rank in ranks):
            return inputs
        highest = max(
            rank.get_length() for each, rank in zip(inputs, ranks, strict=True) if each not in self._held
        )
        found = []
        for each, rank in zip(inputs, ranks, strict=True):
            array = self._held.get(each)
            if array is not None and array.size == 1 and rank.get_length() <= highest:
                self._numbers[f"{each} alone"] = array.reshape(())
                found.append(f"{each} alone")
            else:
                found.append(each)
        return tuple(found)


def _place(output: Any) -> tuple[int, int]:
    return output.get_node().get_instance_id(), output.get_index()


def _name(output: Any) -> str:
    names = output.get_names()
    return str(min(names)) if names else str(output.get_node().get_friendly_name())


def _is_learnt(array: np.ndarray) -> bool:
    """Whether a constant is a tensor that the program computes with, and no setting or number of it."""
    return array.size > 1 if array.dtype.kind == "f" else array.size > _STATIC


def _plain(value: Any) -> Any:
    """An attribute with lists as Python's own."""
    return value if isinstance(value, str) or not hasattr(value, "__iter__") else [*value]
