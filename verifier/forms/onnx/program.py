"""An ONNX model as a program that runs node after node."""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.inliner
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from verifier.errors import InputError
from verifier.forms.onnx.node import OnnxNode, Value, meant
from verifier.forms.onnx.steps import NodeStep
from verifier.graph.interpreted import NOWHERE, Interpreter, Node
from verifier.graph.tensors import tensors_in
from verifier.graph.traced import CONTAINERS, Origin
from verifier.records import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_STATIC = 64  # elements: shorter lists of integers are shapes and settings, longer ones tables


class Plan:
    """What a model's file says, read once and shared by every copy of the program.

    Attributes:
        inputs: Names of what the model is given.
        outputs: Names of what it returns.
        steps: Its nodes in order, each with where it comes from and the values that are read by none after it.
        tensors: What it has learnt, by the names of values.
        constants: Other constants: shapes, settings, numbers.
        wide: The same, with the numbers in double precision that those in single are the rounding of.
        native: The dtype of the floating-point numbers in it.
    """

    def __init__(self, model: onnx.ModelProto, file: str) -> None:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        graph = model.graph
        held = {each.name: _array(each) for each in graph.initializer}
        nodes: list[OnnxNode] = []
        for proto in graph.node:
            if proto.op_type == "Constant" and proto.domain in ("", "ai.onnx"):
                held[proto.output[0]] = _constant(proto)
            else:
                nodes.append(_node(proto, model, len(nodes)))
        self.inputs = tuple(each.name for each in graph.input if each.name not in held)
        self.outputs = tuple(each.name for each in graph.output)
        named = {each.name for each in graph.initializer}
        self.tensors = {
            name: array for name, array in held.items() if _is_learnt(name, array, given=name in named)
        }
        self.constants = {name: array for name, array in held.items() if name not in self.tensors}
        self.wide = {name: _wide(array) for name, array in self.constants.items()}
        floats = [array.dtype for array in self.tensors.values() if array.dtype.kind == "f"]
        self.native = torch.from_numpy(np.zeros(1, floats[0] if floats else np.float32)).dtype
        last = {name: k for k, node in enumerate(nodes) for name in node.inputs}
        kept = {*self.outputs}
        self.steps = [
            (
                NodeStep(node, model, self.tensors),
                place,
                tuple(name for name in {*node.inputs} if last[name] == k and name not in kept),
            )
            for k, (node, place) in enumerate(zip(nodes, _places(nodes, file), strict=True))
        ]

    def __deepcopy__(self, _memo: object) -> Plan:
        return self


class OnnxProgram(Interpreter):
    """A model whose nodes run one after the other, each by the runtime's own kernel in the model's own dtype.

    Parameters have the names that the file gives its initialisers.

    Args:
        plan: What the file says.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self._paths: dict[str, tuple[str, str]] = {}
        for name, array in plan.tensors.items():
            self._paths[name] = _registered(self, name, torch.from_numpy(array))
        self._first = next((name for name, array in plan.tensors.items() if array.dtype.kind == "f"), None)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns: a tensor, or a tuple of its outputs in order.

        Args:
            args: Tensors in the order of the model's inputs, in any nesting.
            kwargs: Further ones, by the inputs' names; others in the order that is left.

        Raises:
            InputError: They are not as many as the model takes.
        """
        values: dict[str, Value] = dict(self.bound(args, kwargs))
        for name, (owner, leaf) in self._paths.items():
            values[name] = getattr(self.get_submodule(owner), leaf)
        dtype = torch.get_default_dtype() if self._first is None else _float_of(values[self._first])
        native = dtype == self.plan.native
        values |= self.plan.constants if native else self.plan.wide
        state = vars(self)
        for step, place, done in self.plan.steps:
            given = [values.get(name) if name else None for name in step.node.inputs]
            found = self._static(step, given, wide=not native)
            if found is None:
                state["running"] = place
                call = step.begin([_widened(value, dtype) for value in given], native=native)
                result = call.function(*call.args, **call.kwargs)
                found = list(result) if isinstance(result, tuple | list) else [result]
            values |= zip((name for name in step.node.outputs if name), found, strict=False)
            for name in done:
                values.pop(name, None)
        state["running"] = NOWHERE
        outputs = tuple(
            torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
            for value in map(values.get, self.plan.outputs)
        )
        return outputs[0] if len(outputs) == 1 else outputs

    def _static(self, step: NodeStep, given: Sequence[Value], *, wide: bool) -> list[np.ndarray] | None:
        """What a node gives that depends on no number of the inputs'; None for any other node."""
        node = step.node
        if node.op in ("Shape", "Size") and isinstance(given[0], Tensor):
            shape = given[0].shape
            if node.op == "Size":
                return [np.array(shape.numel())]
            return [np.array(shape[node.get("start", 0) : node.get("end")], dtype=np.int64)]
        if all(value is None or isinstance(value, np.ndarray) for value in given) and not node.op.startswith(
            "Random"
        ):
            return step.constant(given, wide=wide)
        return None

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """What a model is given, by its inputs' names; arguments and errors are those of `forward`."""
        names = list(self.plan.inputs)
        by_name = {
            name: value for name, value in kwargs.items() if name in names and isinstance(value, Tensor)
        }
        unnamed = [value for name, value in kwargs.items() if name not in by_name]
        rest = [*tensors_in((*args, *unnamed))]
        left = [name for name in names if name not in by_name]
        if len(rest) != len(left):
            raise InputError(
                f"the ONNX model takes {len(names)} tensors ({', '.join(names)}), and was given "
                f"{len(rest) + len(by_name)}. Give as many, by name if some are left out."
            )
        yield from by_name.items()
        yield from zip(left, rest, strict=True)


def _float_of(value: Value) -> torch.dtype:
    return value.dtype if isinstance(value, Tensor) else torch.get_default_dtype()


def _widened(value: Value, dtype: torch.dtype) -> Value:
    """A constant table in the dtype of the run; single numbers stay numbers."""
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind == "f":
        return torch.from_numpy(np.array(value)).to(dtype)
    return value


def _array(proto: onnx.TensorProto) -> np.ndarray:
    return np.array(numpy_helper.to_array(proto))  # which may be read-only


def _constant(proto: onnx.NodeProto) -> np.ndarray:
    attribute = proto.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return _array(value)
    kind = np.float32 if attribute.name.startswith("value_float") else np.int64
    return np.array(value, dtype=kind if not attribute.name.startswith("value_string") else object)


def _is_learnt(name: str, array: np.ndarray, *, given: bool) -> bool:
    """Whether a constant is a tensor that the program computes with, and no setting or number of it."""
    if array.dtype.kind != "f":
        return array.size > _STATIC
    return array.size > 1 or (array.ndim > 0 and given and not re.fullmatch(_MADE_UP, name))


# What exporters call values that the model has no name for.
_MADE_UP = r"val_\d+|.*::.*|/.*"


def _wide(array: np.ndarray) -> np.ndarray:
    """A number in single precision as the one that it is the rounding of; tables as they are."""
    if array.dtype not in (np.float32, np.float16) or array.size != 1:
        return array
    return np.full(array.shape, meant(array.reshape(-1)[0]))


def _node(proto: onnx.NodeProto, model: onnx.ModelProto, number: int) -> OnnxNode:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    opset = next((each.version for each in model.opset_import if each.domain in (proto.domain, domain)), 0)
    own = tuple(proto.input)
    return OnnxNode(
        proto=proto,
        op=f"{domain}.{proto.op_type}" if domain else proto.op_type,
        name=proto.name or (proto.output[0] if proto.output else f"node {number}"),
        inputs=own + tuple(name for name in dict.fromkeys(_outer(proto)) if name not in own),
        outputs=tuple(proto.output),
        attributes={each.name: _value(each) for each in proto.attribute},
        opset=opset,
    )


def _value(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.FLOAT:
        return meant(np.float32(value))
    if attribute.type == onnx.AttributeProto.FLOATS:
        return [meant(np.float32(each)) for each in value]
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if attribute.type == onnx.AttributeProto.INTS else value


def _outer(proto: onnx.NodeProto) -> Iterator[str]:
    """Values that the graphs inside a node read from around it."""
    for attribute in proto.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            inside = {each.name for each in (*graph.input, *graph.initializer)}
            inside |= {name for node in graph.node for name in node.output}
            for node in graph.node:
                yield from (name for name in (*node.input, *_outer(node)) if name and name not in inside)
            yield from (each.name for each in graph.output if each.name not in inside)


def _registered(program: nn.Module, name: str, tensor: Tensor) -> tuple[str, str]:
    """Keep a tensor under the name a file gives it: the module that holds it, and its name there."""
    *path, leaf = [part or "_" for part in name.split(".")]
    owner = program
    for k, part in enumerate(path):
        free = part if part in owner._modules or not hasattr(owner, part) else f"{part}_"
        child = owner._modules.get(free) or nn.Module()
        owner._modules[free] = child
        path[k], owner = free, child
    while hasattr(owner, leaf):
        leaf += "_"
    if tensor.is_floating_point():
        owner.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    else:
        owner.register_buffer(leaf, tensor)
    return ".".join(path), leaf


def _places(nodes: Sequence[OnnxNode], file: str) -> list[Node]:
    """Where each node comes from: what the exporter wrote of it, else what its name says."""
    found = [_told(node) or _from_name(node) for node in nodes]
    alone = Counter(origin.module for origin in found)
    return [
        Node(
            Origin(origin.module, leaf=origin.leaf or (bool(origin.module) and alone[origin.module] == 1)),
            Source(file=file, line=k + 1, function=node.name),
        )
        for k, (origin, node) in enumerate(zip(found, nodes, strict=True))
    ]


def _told(node: OnnxNode) -> Origin | None:
    """What torch's exporter tells of a node in its metadata."""
    kept = {each.key: each.value for each in node.proto.metadata_props}
    try:
        scopes = ast.literal_eval(kept["pkg.torch.onnx.name_scopes"])[:-1]
        kinds = ast.literal_eval(kept["pkg.torch.onnx.class_hierarchy"])[:-1]
    except (KeyError, SyntaxError, ValueError):
        return None
    if not scopes:
        return None
    kind = kinds[-1] if kinds else ""
    leaf = kind.startswith("torch.nn.") and kind.rpartition(".")[2] not in CONTAINERS
    return Origin(str(scopes[-1]), leaf)


def _from_name(node: OnnxNode) -> Origin:
    """What torch's older exporter writes: `/layer1/layer1.0/conv1/Conv`."""
    if not re.fullmatch(r"(/[^/]+)+", node.name):
        return Origin("", leaf=False)
    module, before = "", ""
    for part in node.name.split("/")[1:-1]:
        inner = part.startswith(f"{before}.") and before
        module = f"{module}{part[len(before) :]}" if inner else f"{module}.{part}" if module else part
        before = part
    return Origin(module, leaf=False)
