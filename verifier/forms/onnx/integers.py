"""Operators on whole numbers, as those on the numbers that these stand for, with quantisers around them.

`QLinearConv` and its like; what `quantize_dynamic` makes: `DynamicQuantizeLinear`, a product of whole numbers, and
the scales behind it. Meanings are those of https://onnx.ai/onnx/operators and of the runtime's own operators
(`com.microsoft`); the sums are the same but for rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

# For each operator on codes the one that it stands for, and where in its inputs are the triples of codes, scale and
# zero point that it reads; those of its result are the two at the end.
_LINEAR: dict[str, tuple[str, tuple[int, ...]]] = {
    "QLinearConv": ("Conv", (0, 3)),
    "QLinearMatMul": ("MatMul", (0, 3)),
    "QGemm": ("Gemm", (0, 3)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearSigmoid": ("Sigmoid", (0,)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,)),
}
_BIASED = {"QLinearConv": 8, "QGemm": 6}  # where the bias is, in steps of the product of both scales
_GIVEN = {"QLinearConv": 6, "QGemm": 7}  # and where the result's scale is, if not at the end
_WHOLE = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
_HANDS_ON = frozenset({"Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_OWN = frozenset({"channels_last"})  # settings of the runtime's own
_ROUND, _READ, DYNAMIC = "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"


def with_quantisers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with quantisers in place of operators on whole numbers; itself where there are none to be read so."""
    if not on_codes(model):
        return model
    found = onnx.ModelProto()
    found.CopyFrom(model)
    rewriting = _Rewriting(found)
    rewriting.carry_out()
    return found


def on_codes(model: onnx.ModelProto) -> bool:
    """Whether a model computes with whole numbers that stand for others."""
    return any(node.op_type in (*_LINEAR, *_WHOLE) for node in model.graph.node)


class _Rewriting:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.held = {each.name: each for each in self.graph.initializer}
        self.made = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.gone: set[int] = set()
        self.grids: dict[str, tuple[str, str]] = {}  # of codes by name

    def carry_out(self) -> None:
        """Write the graph anew."""
        parts: dict[int, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            if node.op_type == _ROUND and len(node.input) == len(("x", "scale", "zero")):
                self.grids[node.output[0]] = node.input[1], node.input[2]
            instead = self.linear(node) if node.op_type in _LINEAR else self.handed(node)
            instead = instead or (self.whole(node) if node.op_type in _WHOLE else [])
            if instead:
                parts[id(node)] = instead
        nodes = [
            part
            for node in self.graph.node
            if id(node) not in self.gone
            for part in parts.get(id(node), [node])
        ]
        copies = []
        for node in nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copies.append(copy)
        del self.graph.node[:]
        self.graph.node.extend(copies)

    def read(self, of: onnx.NodeProto, codes: str, scale: str, zero: str, axis: int = 0) -> onnx.NodeProto:
        """A node that reads codes."""
        name = f"{of.name or of.output[0]}/{codes}/{_READ}"
        inputs = [codes, scale, zero] if zero else [codes, scale]
        return helper.make_node(_READ, inputs, [name], name, axis=axis)

    def linear(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The parts of an operator that reads and gives codes."""
        op, places = _LINEAR[node.op_type]
        given = [*node.input]
        turned = any(each.name == "transB" and each.i for each in node.attribute)
        axes = [0, 0 if op == "Conv" or turned else 1]
        parts = [
            self.read(node, given[k], given[k + 1], given[k + 2], axis=axes[n]) for n, k in enumerate(places)
        ]
        inputs = [part.output[0] for part in parts]
        bias = _BIASED.get(node.op_type, len(given))
        if bias < len(given) and given[bias]:
            name = f"{given[bias]}/scale"
            if name not in self.held:
                scales = [numpy_helper.to_array(self.held[given[k + 1]]) for k in places]
                self.held[name] = numpy_helper.from_array((scales[0] * scales[1]).astype("float32"), name)
                self.graph.initializer.append(self.held[name])
            parts.append(self.read(node, given[bias], name, ""))
            inputs.append(parts[-1].output[0])
        at = _GIVEN.get(node.op_type, len(given) - 2)
        return [*parts, *self.rounded(node, op, inputs, given[at : at + 2])]

    def handed(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The parts of an operator that lays codes out anew, or picks the largest; none of any other."""
        grid = self.grids.get(node.input[0]) if node.op_type in _HANDS_ON else None
        if grid is None:
            return []
        part = self.read(node, node.input[0], *grid)
        return [part, *self.rounded(node, node.op_type, [part.output[0], *node.input[1:]], grid)]

    def rounded(
        self, of: onnx.NodeProto, op: str, inputs: Sequence[str], grid: Sequence[str]
    ) -> list[onnx.NodeProto]:
        """An operator and what rounds its result, which has the name that its codes had."""
        own = self.plain(of, op, inputs, f"{of.output[0]}/float")
        self.grids[of.output[0]] = (grid[0], grid[1])
        end = helper.make_node(_ROUND, [own.output[0], *grid], [of.output[0]], f"{own.name}/{_ROUND}")
        return [own, end]

    def whole(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The parts of a product of codes with what multiplies it by both scales behind it; none of any other."""
        x, w, *zeros = node.input
        source = self.made.get(x)
        cast = self.only_reader(node.output[0], "Cast")
        scaled = self.only_reader(cast.output[0], "Mul") if cast is not None else None
        if source is None or source.op_type != DYNAMIC or scaled is None or cast is None:
            return []
        other = next(name for name in scaled.input if name != cast.output[0])
        scales = self.made.get(other)
        if scales is None or scales.op_type != "Mul" or source.output[1] not in scales.input:
            return []
        scale = next(name for name in scales.input if name != source.output[1])
        if scale not in self.held or w not in self.held:
            return []
        op = _WHOLE[node.op_type]
        zero = zeros[1] if len(zeros) > 1 else ""
        parts = [
            self.read(node, x, source.output[1], zeros[0] if zeros else ""),
            self.read(node, w, scale, zero, axis=0 if op == "Conv" else 1),
        ]
        inputs, output = [part.output[0] for part in parts], scaled.output[0]
        added = self.only_reader(output, "Add") if op == "Conv" else None
        bias = None if added is None else self.bias(next(name for name in added.input if name != output))
        if added is not None and bias is not None:
            inputs, output = [*inputs, bias], added.output[0]
            self.gone.add(id(added))
        own = self.plain(node, op, inputs, output)
        self.gone |= {id(cast), id(scaled)}
        if len(self.readers[other]) == 1:
            self.gone.add(id(scales))
        return [*parts, own]

    def bias(self, name: str) -> str | None:
        """The bias that is added to a convolution, a number a channel, as it is before it is laid out for that."""
        node = self.made.get(name)
        held = self.held.get(node.input[0]) if node is not None and node.op_type == "Reshape" else None
        return held.name if held is not None and len(held.dims) == 1 else None

    def only_reader(self, name: str, op: str) -> onnx.NodeProto | None:
        """The only node that reads a value, if it is of an operator."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == op else None

    def plain(self, of: onnx.NodeProto, op: str, inputs: Sequence[str], output: str) -> onnx.NodeProto:
        """The operator itself, on the numbers that codes stand for."""
        node = helper.make_node(op, list(inputs), [output], of.name.removesuffix("_quant") or of.output[0])
        node.attribute.extend(each for each in of.attribute if each.name not in _OWN)
        node.metadata_props.extend(of.metadata_props)
        return node
