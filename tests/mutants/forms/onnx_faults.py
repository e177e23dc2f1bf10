"""Faults of ONNX models: a node says something else, reads something else, or computes with other numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence

Shapes = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of every value, by its name."""


@dataclass
class Draft:
    """A copy of a model that is about to get a fault, with the random numbers to draw it from."""

    model: onnx.ModelProto
    shapes: Shapes
    rng: random.Random

    @property
    def nodes(self) -> Any:
        return self.model.graph.node

    def of(self, *ops: str) -> onnx.NodeProto | None:
        """Some node of these operators, if there is any."""
        found = [node for node in self.nodes if node.op_type in ops]
        return self.rng.choice(found) if found else None

    def named(self, name: str) -> onnx.NodeProto:
        found: onnx.NodeProto = next(node for node in self.nodes if node.name == name)
        return found

    def held(self) -> dict[str, onnx.TensorProto]:
        """Constants by name, however they are written."""
        found = {each.name: each for each in self.model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                found[node.output[0]] = node.attribute[0].t
        return found

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if name in node.input]

    def weights(self) -> Iterator[tuple[onnx.NodeProto, onnx.TensorProto]]:
        """Tensors of several numbers, each with the first node that reads it."""
        for name, tensor in self.held().items():
            array = numpy_helper.to_array(tensor)
            readers = self.readers(name)
            if readers and array.dtype == np.float32 and array.size > 4 and readers[0].op_type != "Resize":
                yield readers[0], tensor


Fault = "Callable[[Draft], onnx.NodeProto | None]"
FAULTS: dict[str, Callable[[Draft], onnx.NodeProto | None]] = {}


def fault(function: Callable[[Draft], onnx.NodeProto | None]) -> Callable[[Draft], onnx.NodeProto | None]:
    """Register a kind of fault: it gives the node that is wrong then, or None where it cannot be planted."""
    FAULTS[function.__name__] = function
    return function


def attribute(node: onnx.NodeProto, name: str, usual: Any = None) -> Any:
    for each in node.attribute:
        if each.name == name:
            return helper.get_attribute_value(each)
    return usual


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def overwrite(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), tensor.name))


def first_of(nodes: Sequence[Any]) -> onnx.NodeProto:
    node: onnx.NodeProto = nodes[0]
    return node


@fault
def other_padding(draft: Draft) -> onnx.NodeProto | None:
    """One more before and one less behind: the shape stays."""
    node = draft.of("Conv", "MaxPool", "AveragePool")
    pads = list(attribute(node, "pads", [])) if node else []
    if node is None or not pads or not pads[-1]:
        return None
    set_attribute(
        node,
        "pads",
        [each + 1 for each in pads[: len(pads) // 2]] + [each - 1 for each in pads[len(pads) // 2 :]],
    )
    return node


@fault
def other_stride(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of("Conv", "MaxPool", "AveragePool")
    if node is None:
        return None
    strides = list(attribute(node, "strides", [1, 1]))
    set_attribute(node, "strides", [3 - each if each < 3 else 1 for each in strides])
    return node


@fault
def other_dilation(draft: Draft) -> onnx.NodeProto | None:
    """With as much more padding, so that the shape stays."""
    node = draft.of("Conv")
    kernel = attribute(node, "kernel_shape", [1]) if node else [1]
    if node is None or kernel[0] < 3:
        return None
    before = attribute(node, "dilations", [1, 1])[0]
    after = 3 - before
    pads = [each + (after - before) * (kernel[0] - 1) // 2 for each in attribute(node, "pads", [0] * 4)]
    if min(pads) < 0:
        return None
    set_attribute(node, "dilations", [after, after])
    set_attribute(node, "pads", pads)
    return node


@fault
def padding_counts(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of("AveragePool")
    if node is None:
        return None
    set_attribute(node, "pads", [1, 1, 1, 1])
    set_attribute(node, "count_include_pad", 1 - attribute(node, "count_include_pad", 0))
    set_attribute(node, "strides", [2, 2])
    return node


@fault
def rounded_up(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of("MaxPool", "AveragePool")
    if node is None:
        return None
    set_attribute(node, "ceil_mode", 1 - attribute(node, "ceil_mode", 0))
    return node


@fault
def other_axis(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of("Softmax", "LogSoftmax", "LayerNormalization", "CumSum", "Concat")
    if node is None:
        return None
    if node.op_type == "CumSum":
        node.op_type = "Identity"
        del node.input[1:]
        return node
    rank = len(draft.shapes[node.output[0]][0])
    axis = attribute(node, "axis", -1) % rank
    if node.op_type == "Concat":
        node.input[:] = [*node.input[1:], node.input[0]]  # what comes first comes last
        return node
    set_attribute(node, "axis", draft.rng.choice([k for k in range(rank) if k != axis]))
    return node


@fault
def other_epsilon(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of("LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization")
    if node is None:
        return None
    set_attribute(node, "epsilon", attribute(node, "epsilon", 1e-5) * draft.rng.choice([0.1, 10.0, 100.0]))
    return node


@fault
def other_slope(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of("LeakyRelu", "Elu", "Celu", "HardSigmoid")
    if node is None:
        return None
    set_attribute(node, "alpha", attribute(node, "alpha", 0.01 if node.op_type == "LeakyRelu" else 1.0) * 1.1)
    return node


@fault
def other_order(draft: Draft) -> onnx.NodeProto | None:
    """Two dimensions of one size have changed places."""
    node = draft.of("Transpose")
    if node is None:
        return None
    perm, shape = list(attribute(node, "perm", [])), draft.shapes[node.output[0]][0]
    pairs = [(i, j) for i in range(len(perm)) for j in range(i) if shape[i] == shape[j] > 1]
    if not pairs:
        return None
    i, j = draft.rng.choice(pairs)
    perm[i], perm[j] = perm[j], perm[i]
    set_attribute(node, "perm", perm)
    return node


@fault
def other_bound(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of("Clip")
    held = draft.held()
    names = [name for name in node.input[1:] if name in held] if node else []
    if node is None or not names:
        return None
    return _number(draft, draft.rng.choice(names), lambda value: value * 0.5 + 0.1)


@fault
def other_number(draft: Draft) -> onnx.NodeProto | None:
    """A number that the program computes with is some percent larger."""
    found = [
        name
        for name, tensor in draft.held().items()
        if numpy_helper.to_array(tensor).dtype == np.float32 and numpy_helper.to_array(tensor).size == 1
        if draft.readers(name)
    ]
    return _number(draft, draft.rng.choice(found), lambda value: value * 1.02) if found else None


def _number(draft: Draft, name: str, change: Callable[[Any], Any]) -> onnx.NodeProto | None:
    """Another number in the place of one, for the first of those that read it."""
    node = draft.readers(name)[0]
    array = change(numpy_helper.to_array(draft.held()[name])).astype(np.float32)
    if np.array_equal(array, numpy_helper.to_array(draft.held()[name])):
        return None
    draft.model.graph.initializer.append(numpy_helper.from_array(array, f"{name}_changed"))
    node.input[list(node.input).index(name)] = f"{name}_changed"
    return node


@fault
def other_sampling(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of("Resize")
    if node is None:
        return None
    mode = attribute(node, "coordinate_transformation_mode", b"half_pixel").decode()
    others = [each for each in ("half_pixel", "asymmetric", "align_corners") if each != mode]
    set_attribute(node, "coordinate_transformation_mode", draft.rng.choice(others))
    return node


@fault
def other_gelu(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of("Gelu")
    if node is None:
        return None
    set_attribute(node, "approximate", "tanh")
    return node


@fault
def other_sizes(draft: Draft) -> onnx.NodeProto | None:
    """A slice starts and ends one further, or one index is another."""
    node = draft.of("Slice", "Gather")
    held = draft.held()
    if node is None or node.input[1] not in held:
        return None
    for k in (1, 2) if node.op_type == "Slice" else (1,):
        array = numpy_helper.to_array(held[node.input[k]]) if node.input[k] in held else None
        if array is None or (k == 2 and array.max() > 1000):
            return None
        name = f"{node.input[k]}_moved{k}"
        draft.model.graph.initializer.append(numpy_helper.from_array(np.array(array + 1), name))
        node.input[k] = name
    return node


@fault
def other_operator(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of(*_OTHERS)
    if node is None:
        return None
    node.op_type = draft.rng.choice(_OTHERS[node.op_type])
    del node.attribute[:]
    return node


_OTHERS = {
    "Relu": ("LeakyRelu", "Elu", "Softplus"), "LeakyRelu": ("Relu", "Elu"), "Elu": ("Selu", "LeakyRelu"),
    "Celu": ("Selu", "Relu"), "Sigmoid": ("HardSigmoid", "Tanh"), "Tanh": ("Softsign", "Erf"),
    "HardSwish": ("Mish", "Relu"), "HardSigmoid": ("Sigmoid",), "Gelu": ("Relu", "Mish"), "Erf": ("Tanh",),
    "Add": ("Sub", "Mul"), "Mul": ("Add",), "Sub": ("Add",), "Softmax": ("LogSoftmax", "Hardmax"),
    "GlobalAveragePool": ("GlobalMaxPool",), "Exp": ("Softplus",), "Reciprocal": ("Sqrt",), "Sqrt": ("Softplus",),
}  # fmt: skip


@fault
def other_reduction(draft: Draft) -> onnx.NodeProto | None:
    node = draft.of("ReduceMean", "ReduceMax", "ReduceSum")
    if node is None:
        return None
    node.op_type = draft.rng.choice(sorted({"ReduceMean", "ReduceMax", "ReduceMin"} - {node.op_type}))
    return node


@fault
def dropped(draft: Draft) -> onnx.NodeProto | None:
    """A node of one tensor is gone; what reads it reads what it read. The reader is the one to blame."""
    shapes = draft.shapes
    found = [
        node
        for node in draft.nodes
        if node.input
        and len(node.output) == 1
        and shapes.get(node.input[0], ((), "x")) == shapes.get(node.output[0])
        and draft.readers(node.output[0])
        and node.op_type not in ("Identity", "Dropout", "Cast")
    ]
    if not found:
        return None
    node = draft.rng.choice(found)
    readers = draft.readers(node.output[0])
    for reader in readers:
        reader.input[:] = [node.input[0] if name == node.output[0] else name for name in reader.input]
    draft.nodes.remove(node)
    return first_of(readers)


@fault
def shortcut_dropped(draft: Draft) -> onnx.NodeProto | None:
    """A sum of two tensors of one shape is one of them."""
    held = draft.held()
    found = [
        node
        for node in draft.nodes
        if node.op_type == "Add"
        and not {*node.input} & held.keys()
        and draft.shapes[node.input[0]] == draft.shapes[node.input[1]]
        and draft.readers(node.output[0])
    ]
    if not found:
        return None
    node = draft.rng.choice(found)
    kept = draft.rng.choice(list(node.input))
    readers = draft.readers(node.output[0])
    for reader in readers:
        reader.input[:] = [kept if name == node.output[0] else name for name in reader.input]
    draft.nodes.remove(node)
    return first_of(readers)


@fault
def rewired(draft: Draft) -> onnx.NodeProto | None:
    """An input comes from another node above, of the same shape."""
    made: list[str] = []
    places = []
    for node in draft.nodes:
        if node.op_type != "Constant":
            for k, name in enumerate(node.input):
                others = [
                    each for each in made if draft.shapes[each] == draft.shapes.get(name) and each != name
                ]
                if name in made and others:
                    places.append((node, k, others))
        made += [name for name in node.output if name in draft.shapes and draft.shapes[name][1] == "float32"]
    if not places:
        return None
    node, k, others = draft.rng.choice(places)
    node.input[k] = draft.rng.choice(others)
    return first_of([node])


@fault
def operands_exchanged(draft: Draft) -> onnx.NodeProto | None:
    found = [
        node
        for node in draft.nodes
        if node.op_type in ("Sub", "Div", "MatMul")
        and draft.shapes.get(node.input[0]) == draft.shapes.get(node.input[1])
    ]
    if not found:
        return None
    node = draft.rng.choice(found)
    node.input[:] = list(node.input)[::-1]
    return first_of([node])


def _on_weight(change: Callable[[np.ndarray, random.Random], np.ndarray | None]) -> Callable[[Draft], Any]:
    def planted(draft: Draft) -> onnx.NodeProto | None:
        found = list(draft.weights())
        if not found:
            return None
        node, tensor = draft.rng.choice(found)
        before = np.array(numpy_helper.to_array(tensor))
        after = change(before.copy(), draft.rng)
        if after is None or np.array_equal(before, after):
            return None
        overwrite(tensor, after)
        return node

    return planted


def _channel_zeroed(array: np.ndarray, rng: random.Random) -> np.ndarray | None:
    if array.ndim < 2:
        return None
    array[rng.randrange(len(array))] = 0
    return array


def _permuted(array: np.ndarray, rng: random.Random) -> np.ndarray | None:
    order = list(range(len(array)))
    rng.shuffle(order)
    return array[order]


def _one_off(array: np.ndarray, rng: random.Random) -> np.ndarray:
    array.reshape(-1)[rng.randrange(array.size)] += np.abs(array).max()
    return array


def _turned(array: np.ndarray, _: random.Random) -> np.ndarray | None:
    square = array.ndim >= 2 and array.shape[-1] == array.shape[-2] > 1
    return np.ascontiguousarray(array.swapaxes(-1, -2)) if square else None


_WEIGHTS: Mapping[str, Callable[[np.ndarray, random.Random], np.ndarray | None]] = {
    "weight_scaled": lambda array, rng: array * np.float32(rng.choice([0.9, 1.01, 2.0, -1.0])),
    "weight_permuted": _permuted,
    "weight_turned": _turned,
    "weight_in_half": lambda array, _: array.astype(np.float16).astype(np.float32),
    "channel_zeroed": _channel_zeroed,
    "one_number_off": _one_off,
}  # fmt: skip
FAULTS |= {name: _on_weight(change) for name, change in _WEIGHTS.items()}


@fault
def weights_exchanged(draft: Draft) -> onnx.NodeProto | None:
    """Two tensors of one shape; the first that is read is the first that is wrong."""
    found = list(draft.weights())
    pairs = [
        (one, other)
        for k, one in enumerate(found)
        for other in found[:k]
        if list(one[1].dims) == list(other[1].dims) and one[0] is not other[0]
    ]
    if not pairs:
        return None
    one, other = draft.rng.choice(pairs)
    arrays = [np.array(numpy_helper.to_array(each[1])) for each in (one, other)]
    overwrite(one[1], arrays[1])
    overwrite(other[1], arrays[0])
    order = list(draft.nodes)
    return min((one[0], other[0]), key=order.index)


@fault
def through_half(draft: Draft) -> onnx.NodeProto | None:
    """A tensor is rounded to half precision on its way."""
    found = [
        node
        for node in draft.nodes
        if node.output and draft.shapes.get(node.output[0], ((), ""))[1] == "float32"
        if node.op_type in ("Conv", "Gemm", "MatMul", "Add", "LayerNormalization")
        and draft.readers(node.output[0])
    ]
    if not found:
        return None
    node = draft.rng.choice(found)
    name = node.output[0]
    readers = draft.readers(name)
    cast = [
        helper.make_node("Cast", [name], [f"{name}_half"], f"{name}_half", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{name}_half"], [f"{name}_back"], f"{name}_back", to=TensorProto.FLOAT),
    ]
    for reader in readers:
        reader.input[:] = [f"{name}_back" if each == name else each for each in reader.input]
    place = list(draft.nodes).index(node) + 1
    rest = list(draft.nodes)
    del draft.nodes[:]
    draft.nodes.extend([*rest[:place], *cast, *rest[place:]])
    return draft.named(cast[0].name)


@fault
def older_softmax(draft: Draft) -> onnx.NodeProto | None:
    """The model says that it is of an opset in which a softmax went over all that follows its axis."""
    node = draft.of("Softmax", "LogSoftmax")
    if node is None:
        return None
    shape = draft.shapes[node.output[0]][0]
    flat = [
        helper.make_node("Flatten", [node.input[0]], [f"{node.name}_flat"], f"{node.name}_flat", axis=1),
        helper.make_node(
            node.op_type, [f"{node.name}_flat"], [f"{node.name}_soft"], f"{node.name}_soft", axis=-1
        ),
        helper.make_node("Reshape", [f"{node.name}_soft", f"{node.name}_shape"], [node.output[0]], node.name),
    ]
    if len(shape) < 3:
        return None
    sizes = np.array([-1, *shape[1:]], dtype=np.int64)
    draft.model.graph.initializer.append(numpy_helper.from_array(sizes, f"{node.name}_shape"))
    rest = list(draft.nodes)
    place = rest.index(node)
    del draft.nodes[:]
    draft.nodes.extend([*rest[:place], *flat, *rest[place + 1 :]])
    return draft.named(flat[1].name)
