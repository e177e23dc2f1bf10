"""What the file of an ONNX model says, read once: its nodes in order, what it has learnt, and its settings."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import onnx.inliner
import torch
from onnx import helper, numpy_helper

from verifier.errors import CannotRunError
from verifier.forms.calls import meant
from verifier.forms.onnx.node import OnnxNode
from verifier.forms.onnx.places import places
from verifier.forms.onnx.steps import NodeStep
from verifier.forms.onnx.unfused import unfused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from verifier.graph.interpreted import Node

_STATIC = 64  # elements: shorter lists of integers are shapes and settings, longer ones tables


class Planned(NamedTuple):
    """A node to run.

    Attributes:
        step: The node as a call.
        place: Where it comes from, and its number in the file.
        done: Values that no node behind it reads.
        bodies: Graphs inside it, by the attribute that holds each: branches, the body of a loop.
    """

    step: NodeStep
    place: Node
    done: tuple[str, ...]
    bodies: Mapping[str, Body]


class Body:
    """A graph: that of the model, or one inside a node.

    Attributes:
        inputs: Names of what it is given.
        shapes: Sizes of these, None for any; empty where it says none.
        outputs: Names of what it returns.
        steps: Its nodes in order.
        constants: Constants that are no tensors it computes with: shapes, settings, numbers.
        numbers: Those of them that are one number in single precision, which it is the rounding of.
    """

    def __init__(self, graph: onnx.GraphProto, plan: Plan) -> None:
        held = {each.name: _array(each) for each in graph.initializer}
        named = {*held}
        protos: list[onnx.NodeProto] = []
        for proto in (part for node in graph.node for part in unfused(node)):
            if proto.op_type == "Constant" and proto.domain in ("", "ai.onnx"):
                held[proto.output[0]] = _constant(proto)
            else:
                protos.append(_copied(proto))
        protos = _unpacked(protos, held, {each.name for each in graph.output})
        drawing = next((proto for proto in protos if proto.op_type in _DRAWS), None)
        if drawing is not None:
            raise CannotRunError(
                f"the ONNX model draws random numbers in {drawing.name or drawing.output[0]} ({drawing.op_type}), "
                "in an order of the runtime's own, so that no two runs can be compared. Export it without."
            )
        given = [each for each in graph.input if each.name not in held]
        self.inputs = tuple(each.name for each in given)
        self.shapes = tuple(
            tuple(size.dim_value or None for size in each.type.tensor_type.shape.dim) for each in given
        )
        self.outputs = tuple(each.name for each in graph.output)
        settings = {
            name
            for proto in protos
            for k, name in enumerate(proto.input)
            if k in _SETTINGS.get(proto.op_type, ())
        }
        learnt = {
            name
            for name, array in held.items()
            if name not in settings and _is_learnt(name, array, given=name in named)
        }
        plan.tensors |= {name: held[name] for name in learnt}
        self.constants = {name: array for name, array in held.items() if name not in learnt}
        self.numbers = {
            name: array
            for name, array in self.constants.items()
            if array.size == 1 and array.dtype in (np.float32, np.float16)
        }
        plan.numbers |= self.numbers
        first = plan.count
        plan.count += len(protos)
        read = {*self.outputs, *(name for proto in protos for name in (*proto.input, *outer(proto)))}
        nodes = [_node(proto, plan, read, first + k) for k, proto in enumerate(protos)]
        last = {name: k for k, node in enumerate(nodes) for name in node.inputs}
        self.steps = [
            Planned(
                NodeStep(node, plan.model, plan.tensors, plan.declared),
                place,
                tuple(name for name in {*node.inputs} if last[name] == k and name not in self.outputs),
                {
                    name: Body(value, plan)
                    for name, value in node.attributes.items()
                    if isinstance(value, onnx.GraphProto)
                },
            )
            for k, (node, place) in enumerate(zip(nodes, places(nodes, plan.file, first), strict=True))
        ]


class Plan(Body):
    """What a model's file says, shared by every copy of the program.

    Attributes:
        model: The model, without its graph: what its operators mean.
        file: What it is called in reports.
        tensors: What it has learnt, by the names of values, those inside of its nodes too.
        native: The dtype of the floating-point numbers that it computes with, half precision where it ever does.
        mixed: Whether others are in another one.
        floats: All such, by their numbers in ONNX: a cast to one of these says no more than to compute as usual.
        declared: The dtypes of the floating-point numbers that it takes, by the inputs' names.
        count: One more than the number of its last node; the first is 1.

    Raises:
        CannotRunError: It holds what this verifier does not compute with.
    """

    def __init__(self, model: onnx.ModelProto, file: str) -> None:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        self.model = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
        self.file, self.count = file, 1
        self.tensors: dict[str, np.ndarray] = {}
        self.numbers: dict[str, np.ndarray] = {}
        kinds = [each.data_type for each in model.graph.initializer]
        kinds += [each.type.tensor_type.elem_type for each in model.graph.input]
        inputs = ((each.name, each.type.tensor_type.elem_type) for each in model.graph.input)
        self.declared = {name: _FLOATS[kind] for name, kind in inputs if kind in _FLOATS}
        self.floats = frozenset(kinds) & _FLOATS.keys()
        super().__init__(model.graph, self)
        floats = [array.dtype for array in self.tensors.values() if array.dtype.kind == "f"]
        floats = floats or [*self.declared.values()]
        narrow = _computes_in_half(self, self)
        self.mixed = narrow and any(dtype != np.float16 for dtype in floats)
        wide = next((dtype for dtype in floats if dtype != np.float16), np.float32)
        self.native = torch.from_numpy(np.zeros(1, np.float16 if narrow else wide)).dtype

    def __deepcopy__(self, _memo: object) -> Plan:
        return self


_DRAWS = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"})
_DRAWS |= {"RandomUniformLike"}

_FLOATS: Mapping[int, Any] = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.FLOAT16: np.dtype(np.float16),
    onnx.TensorProto.DOUBLE: np.dtype(np.float64),
}


_MOVES = frozenset(
    {"Cast", "CastLike", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape",
     "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"}
)  # fmt: skip


def _computes_in_half(body: Body, plan: Plan) -> bool:
    """Whether any node does more than move numbers in half precision, or the model takes such."""
    half = {name for name, array in plan.tensors.items() if array.dtype == np.float16}
    if np.float16 in plan.declared.values():
        return True
    for planned in body.steps:
        node, to = (
            planned.step.node,
            {each.name: each.i for each in planned.step.node.proto.attribute}.get("to"),
        )
        if any(_computes_in_half(each, plan) for each in planned.bodies.values()):
            return True
        if node.op == "Cast":
            half |= {*node.outputs} if to == onnx.TensorProto.FLOAT16 else set()
        elif half & {*node.inputs}:
            if node.op not in _MOVES:
                return True
            half |= {*node.outputs}
    return False


def _unpacked(
    protos: Sequence[onnx.NodeProto], held: dict[str, np.ndarray], returned: Collection[str]
) -> list[onnx.NodeProto]:
    """The nodes without those that cast a constant to a wider dtype, in which it is `held` from then on.

    So files keep weights in half precision that compute in single precision.
    """
    inside = {name for proto in protos for name in outer(proto)}
    readers = Counter(name for proto in protos for name in proto.input)
    renamed: dict[str, str] = {}
    left = []
    for proto in protos:
        source = proto.input[0] if proto.input else ""
        wide = (
            _FLOATS.get(helper.get_attribute_value(proto.attribute[0])) if proto.op_type == "Cast" else None
        )
        narrow = source in held and held[source].dtype.kind == "f"
        made = proto.output[0] if proto.output else ""
        alone = readers[source] == 1 and not {source, made} & inside and not {source, made} & set(returned)
        if wide is not None and narrow and alone and held[source].dtype.itemsize < wide.itemsize:
            held[source] = held[source].astype(wide)
            renamed[made] = source
        else:
            left.append(proto)
    return [_reading(proto, renamed) if renamed.keys() & set(proto.input) else proto for proto in left]


def _reading(proto: onnx.NodeProto, renamed: Mapping[str, str]) -> onnx.NodeProto:
    """A node that reads values under other names."""
    made = onnx.NodeProto()
    made.CopyFrom(proto)
    for k, name in enumerate(made.input):
        made.input[k] = renamed.get(name, name)
    return made


def _array(proto: onnx.TensorProto) -> np.ndarray:
    """What a constant of the file holds.

    Raises:
        CannotRunError: It is of a dtype that NumPy and the runtime do not share.
    """
    found = np.array(numpy_helper.to_array(proto))  # which may be read-only
    if found.dtype.kind not in _KINDS:
        raise CannotRunError(
            f"the ONNX model holds {proto.name or 'a constant'} in {found.dtype.name}, which this verifier does not "
            "compute with. Give it in float32 or float16."
        )
    return found


_KINDS = "fiubcOSU"  # of NumPy's own dtypes


def _copied(proto: onnx.NodeProto) -> onnx.NodeProto:
    """A node that stands alone: as a part of a model it would keep all its tensors in memory."""
    found = onnx.NodeProto()
    found.CopyFrom(proto)
    return found


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


# Which inputs of operators are settings, though they are numbers with fractions.
_SETTINGS = {"Resize": (1, 2), "Upsample": (1,)}
# What exporters call values that the model has no name for.
_MADE_UP = r"val_\d+|.*::.*|/.*"


def _node(proto: onnx.NodeProto, plan: Plan, read: Collection[str], number: int) -> OnnxNode:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    imports = plan.model.opset_import
    own = tuple(proto.input)
    attributes = {each.name: _value(each) for each in proto.attribute}
    opset = next((each.version for each in imports if each.domain in (proto.domain, domain)), 0)
    if proto.op_type == "Cast" and attributes.get("to") in plan.floats:
        attributes["to"] = onnx.TensorProto.FLOAT  # which is as wide as what is computed in
    return OnnxNode(
        proto=proto,
        op=f"{domain}.{proto.op_type}" if domain else proto.op_type,
        name=proto.name or (proto.output[0] if proto.output else f"node {number}"),
        inputs=own + tuple(name for name in dict.fromkeys(outer(proto)) if name not in own),
        outputs=tuple(proto.output[: _wanted(proto, domain, opset, read)]),
        attributes=attributes,
        opset=opset,
    )


def _wanted(proto: onnx.NodeProto, domain: str, opset: int, read: Collection[str]) -> int:
    """How many outputs of a node are wanted: to the last that is read, and those that it cannot leave out."""
    last = max((k for k, name in enumerate(proto.output, 1) if name in read), default=1)
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset, domain)
    except onnx.defs.SchemaError:
        return len(proto.output)
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    kinds = [each.option for each in schema.outputs]
    kinds += kinds[-1:] * (len(proto.output) - len(kinds))
    return max(last, sum(kind != optional for kind in kinds[: len(proto.output)]))


def _value(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.FLOAT:
        return meant(np.float32(value))
    if attribute.type == onnx.AttributeProto.FLOATS:
        return [meant(np.float32(each)) for each in value]
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if attribute.type == onnx.AttributeProto.INTS else value


def outer(proto: onnx.NodeProto) -> Iterator[str]:
    """Values that the graphs inside a node read from around it."""
    graphs: Sequence[onnx.GraphProto]
    for attribute in proto.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for graph in graphs:
            inside = {each.name for each in (*graph.input, *graph.initializer)}
            inside |= {name for node in graph.node for name in node.output}
            for node in graph.node:
                yield from (name for name in (*node.input, *outer(node)) if name and name not in inside)
            yield from (each.name for each in graph.output if each.name not in inside)
