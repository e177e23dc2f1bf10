"""What an ONNX model with quantisers (QDQ) rounds, and what it keeps in few bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from verifier.forms.onnx.integers import DYNAMIC, on_codes
from verifier.forms.quantisers import Grid, Layer, Rounding, Stored

if TYPE_CHECKING:
    from collections.abc import Sequence


Running = (
    "Callable[[onnx.ModelProto, str], Callable[[Sequence[Any], Mapping[str, Any]], Sequence[np.ndarray]]]"
)

_ROUND, _READ = "QuantizeLinear", "DequantizeLinear"
# Converters that round what a quantised node makes as well as what it reads, by what they sign files with.
_ROUNDS_RESULTS = frozenset({"onnx.quantize"})
_BIAS = 2  # the input of a product that is added to it
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators of which no result is below 0, and those that only hand on what they read.
_POSITIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"})
_HANDS_ON = frozenset(
    {
        "AveragePool",
        "Concat",
        "Dropout",
        "Flatten",
        "Gather",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
    }
) | {"MaxPool", "ReduceMean", "ReduceMax", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}


class RoundedOnnx:
    """A model with quantisers: its layers, weights and roundings, and where in the graph they are.

    Args:
        model: The model.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        graph = model.graph
        self._held = {each.name: each for each in graph.initializer}
        self._held |= {
            node.output[0]: node.attribute[0].t
            for node in graph.node
            if node.op_type == "Constant" and node.attribute[0].name == "value"
        }
        self._made = {name: node for node in graph.node for name in node.output if name}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._reads = [node for node in graph.node if node.op_type == _READ]
        quantised = [node for node in graph.node if self._computes_rounded(node)]
        self.layers = tuple(Layer(name_of(node), node.op_type, node.output[0]) for node in quantised)
        self._names = {layer.name for layer in self.layers}
        self.stored, self._stored_at = self._find_stored()
        self.roundings, self._rounded_at = self._find_roundings()
        self.roundings = self._asked()

    @property
    def whole(self) -> bool:
        """Whether all that is rounded and kept in few bits was found, so that nothing is rounded without it."""
        found = {id(node) for nodes in self._rounded_at.values() for node in nodes}
        found |= {id(self._made[value]) for value in self._stored_at.values()}
        return all(
            id(node) in found for node in self._model.graph.node if node.op_type in (_ROUND, _READ, DYNAMIC)
        )

    def _codes_of(self, node: onnx.NodeProto) -> onnx.TensorProto | None:
        """What a node that reads codes reads, where the file holds it."""
        return self._held.get(node.input[0]) if node.op_type == _READ else None

    def _computes_rounded(self, node: onnx.NodeProto) -> bool:
        """Whether a node is one of those that were quantised: its weights are, or both what it reads and makes."""
        if node.op_type in (_ROUND, _READ, DYNAMIC):
            return False
        read = [self._made[name] for name in node.input if name in self._made]
        read = [each for each in read if each.op_type == _READ]
        if any(self._codes_of(each) is not None for each in read):
            return True
        behind = [each for name in node.output for each in self._readers.get(name, ())]
        return bool(read and behind) and all(each.op_type == _ROUND for each in behind)

    def _asking(self, name: str) -> list[str]:
        """The layers that read a value."""
        return [name_of(node) for node in self._readers.get(name, ()) if name_of(node) in self._names]

    def _find_stored(self) -> tuple[tuple[Stored, ...], dict[str, str]]:
        found, places = [], {}
        grids: dict[str, Grid] = {}
        for node in self._reads:
            codes = self._codes_of(node)
            grid = self._grid(node)
            if codes is None or grid is None:
                continue
            grids[node.output[0]] = grid
            name = node.input[0].removesuffix("_quantized")
            name = node.output[0] if name in places else name  # read once more, for another layer
            array = numpy_helper.to_array(codes)
            stored = Stored(
                name,
                tuple(self._asking(node.output[0])),
                torch.from_numpy(np.array(array).astype(np.int64)),
                grid,
                bias=any(
                    reader.op_type in _PRODUCTS and node.output[0] in list(reader.input)[_BIAS:]
                    for reader in self._readers.get(node.output[0], ())
                ),
            )
            if stored.grid.fits(stored.codes.shape):
                found.append(stored)
                places[name] = node.output[0]
        return tuple(self._with_step(each, places[each.name]) for each in found), places

    def _with_step(self, stored: Stored, value: str) -> Stored:
        """The weight; of a bias with the product of the steps of what is multiplied before it is added."""
        if not stored.bias:
            return stored
        for reader in self._readers[value]:
            steps = [
                self._grid(self._made[name]) for name in list(reader.input)[:_BIAS] if name in self._made
            ]
            if len(steps) == _BIAS and steps[0] is not None and steps[1] is not None:
                return stored._replace(step=steps[0].scale.double() * steps[1].scale.double())
        return stored

    def _find_roundings(self) -> tuple[tuple[Rounding, ...], dict[str, list[onnx.NodeProto]]]:
        found: dict[str, Rounding] = {}
        places: dict[str, list[onnx.NodeProto]] = {}
        for node in self._model.graph.node:
            grid, made_here = self._grid(node), node.op_type == DYNAMIC
            if (grid is None or node.op_type != _ROUND) and not made_here:
                continue
            name, behind = node.input[0], self._readers.get(node.output[0], [])
            back = [self._grid(each) for each in behind if each.op_type == _READ]
            known = made_here or None not in back
            if not behind or len(back) < len(behind) or not known:
                continue
            wrong = [each for each in behind if made_here and [*each.input[1:]] != [*node.output[1:]]]
            behind = sorted(behind, key=wrong.__contains__, reverse=True)  # the first is blamed
            readers = tuple(
                dict.fromkeys(reader for each in behind for reader in self._asking(each.output[0]))
            )
            other = next((each for each in back if each and grid and not each.same(grid)), grid)
            other = self._read_as(wrong[0], node) if wrong else other
            inside = name not in self._held
            positive, bounds = self._positive(name), self._bounds(behind)
            before = found.get(name)
            if before is not None and not (grid and before.grid and before.grid.same(grid)):
                continue
            if before is not None:  # once more, for another reader
                readers = tuple(dict.fromkeys((*before.readers, *readers)))
                other = before.back if other is grid else other
            found[name] = Rounding(name, readers, readers, grid, other, inside, positive, bounds)
            places.setdefault(name, []).extend((node, *behind))
        return tuple(found.values()), places

    def _read_as(self, node: onnx.NodeProto, source: onnx.NodeProto) -> Grid:
        """What codes that are made with a scale of their own are read as; NaN for the scale that made them."""
        scale = math.nan if node.input[1] == source.output[1] else self._number(node.input[1])
        zero = math.nan if node.input[2:] == source.output[2:] else 0.0
        if len(node.input) > 2 and node.input[2] and not math.isnan(zero):
            zero = self._number(node.input[2])
        return Grid(torch.tensor(scale), torch.tensor(zero), *_CODES[onnx.TensorProto.UINT8])

    def _number(self, name: str) -> float:
        """A number that the file holds; infinite where it does not."""
        held = self._held.get(name)
        return math.inf if held is None else float(numpy_helper.to_array(held).reshape(-1)[0])

    def _asked(self) -> tuple[Rounding, ...]:
        """The roundings with the layers that ask for them; sets which of them only follow another one.

        What hands numbers on as they are, to the same grid, asks for nothing: it rounds what it makes where what it
        reads was rounded.
        """
        by_name = {each.name: each for each in self.roundings}
        handing: dict[str, str] = {}
        self._follows: dict[str, tuple[str, str]] = {}
        for each in self.roundings:
            maker = self._made.get(each.name)
            if maker is None or maker.op_type not in _HANDS_ON or name_of(maker) not in self._names:
                continue
            read = self._made.get(maker.input[0])
            source = (
                by_name.get(self._made[read.input[0]].input[0]) if read and read.op_type == _READ else None
            )
            if source is not None and source.grid and each.grid and source.grid.same(each.grid):
                handing[name_of(maker)] = each.name
                self._follows[each.name] = name_of(maker), source.name
        found = []
        for each in self.roundings:
            maker = self._made.get(each.name)
            signed = self._model.producer_name in _ROUNDS_RESULTS and each.grid is not None
            makes = signed and maker is not None
            asking = [name_of(maker)] if makes and maker is not None else []
            asking = [name for name in dict.fromkeys([*asking, *each.readers]) if name in self._names]
            own = tuple(name for name in asking if name not in handing)
            found.append(each._replace(layers=own or (() if each.name in self._follows else tuple(asking))))
        return tuple(found)

    def _grid(self, node: onnx.NodeProto) -> Grid | None:
        """The numbers that a quantiser rounds to; None for any other node, and where the file does not hold them."""
        if node.op_type not in (_ROUND, _READ) or node.domain not in ("", "ai.onnx", "com.microsoft"):
            return None
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        scale = self._held.get(node.input[1])
        zero = self._held.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if scale is None or attributes.get("block_size", 0) or (len(node.input) > 2 and zero is None):
            return None
        if zero is not None:
            kind = zero.data_type
        elif node.op_type == _READ and node.input[0] in self._held:
            kind = self._held[node.input[0]].data_type
        else:
            kind = attributes.get("output_dtype", 0) or onnx.TensorProto.UINT8
        if kind not in _CODES:
            return None
        scales = torch.from_numpy(np.array(numpy_helper.to_array(scale), dtype=np.float64))
        zeros = torch.zeros_like(scales)
        if zero is not None:
            zeros = torch.from_numpy(np.array(numpy_helper.to_array(zero)).astype(np.float64))
        return Grid(
            scales, zeros, *_CODES[kind], axis=attributes.get("axis", 1) if scales.numel() > 1 else None
        )

    def _bounds(self, reads: Sequence[onnx.NodeProto]) -> tuple[float, float]:
        """What all that reads some codes cuts off."""
        found = []
        for node in (reader for each in reads for reader in self._readers.get(each.output[0], ())):
            ends = [0.0, math.inf] if node.op_type == "Relu" else [-math.inf, math.inf]
            if node.op_type == "Clip":
                for k, name in enumerate(list(node.input)[1:3]):
                    if name in self._held:
                        ends[k] = float(numpy_helper.to_array(self._held[name]))
            found.append(ends)
        return (
            min((low for low, _ in found), default=-math.inf),
            max((high for _, high in found), default=math.inf),
        )

    def _positive(self, name: str) -> bool:
        """Whether nothing in a tensor can be below 0, as far as the operators tell that make it."""
        node = self._made.get(name)
        if node is None:
            return False
        if node.op_type == "Clip":
            low = self._held.get(node.input[1]) if len(node.input) > 1 else None
            return low is not None and float(numpy_helper.to_array(low)) >= 0
        if node.op_type == _READ:
            grid = self._grid(node)
            return grid is not None and grid.axis is None and float(grid.zero) == grid.low
        if node.op_type in _HANDS_ON:
            given = node.input if node.op_type == "Concat" else node.input[:1]
            return all(map(self._positive, given))
        return node.op_type in _POSITIVE


# The least and the largest code of each kind of numbers.
_CODES = {
    onnx.TensorProto.UINT8: (0, 255),
    onnx.TensorProto.INT8: (-128, 127),
    onnx.TensorProto.UINT16: (0, 65535),
    onnx.TensorProto.INT16: (-32768, 32767),
    onnx.TensorProto.INT32: (-(2**31), 2**31 - 1),
}


def has_quantisers(model: onnx.ModelProto) -> bool:
    """Whether a model rounds anything to few bits, or keeps it so."""
    return on_codes(model) or any(node.op_type in (_ROUND, _READ) for node in model.graph.node)


def name_of(node: onnx.NodeProto) -> str:
    """What a node is called, or its first result where it has no name."""
    return node.name or node.output[0]
