"""What ONNX Runtime has joined in a file that it has optimised, as the nodes that it was joined of.

Such a file holds operators of the runtime's own (`com.microsoft`), of which ONNX says nothing. Taken apart they mean
what their parts mean, and each part can be held against an operator of the baseline. What they are joined of:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx


class _Parts:
    """The nodes that one node is taken apart into."""

    def __init__(self, whole: onnx.NodeProto) -> None:
        self.whole = whole
        self.nodes: list[onnx.NodeProto] = []
        self.attributes = {each.name: helper.get_attribute_value(each) for each in whole.attribute}

    def given(self, place: int) -> str:
        """The name of an input, empty where it was left out."""
        return self.whole.input[place] if place < len(self.whole.input) else ""

    def wanted(self, place: int) -> str:
        """The name of an output, likewise."""
        return self.whole.output[place] if place < len(self.whole.output) else ""

    def add(
        self, op: str, inputs: Sequence[str], output: str = "", *, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node; gives the name of what it makes."""
        name = self.whole.name or self.whole.output[0]
        output = output or f"{name}/{op}{len(self.nodes)}"
        node = helper.make_node(op, list(inputs), [output], f"{name}/{op}", domain=domain, **attributes)
        node.metadata_props.extend(self.whole.metadata_props)
        self.nodes.append(node)
        return output

    def number(self, value: float) -> str:
        """The name of a number."""
        tensor = numpy_helper.from_array(np.array(value, dtype=np.float32))
        return self.add("Constant", [], value=tensor)

    def activated(self, made: str, kind: str, parameters: Sequence[float]) -> bool:
        """Add what a runtime lets follow at once, and give it the first output's name; whether that is known here."""
        output = self.wanted(0)
        if kind in ("Relu", "Sigmoid", "Tanh"):
            self.add(kind, [made], output)
        elif kind == "LeakyRelu":
            self.add(kind, [made], output, alpha=parameters[0])
        elif kind == "HardSigmoid":
            self.add(kind, [made], output, alpha=parameters[0], beta=parameters[1])
        elif kind == "Clip":
            self.add(kind, [made, *map(self.number, parameters)], output)
        else:
            return False
        return True


def unfused(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that a node of the runtime's own was joined of; the node itself where it is none, or another."""
    apart = _APART.get(node.op_type) if node.domain == "com.microsoft" else None
    if apart is None:
        return [node]
    parts = _Parts(node)
    return parts.nodes if apart(parts) else [node]


def _kept(parts: _Parts, *but: str) -> dict[str, Any]:
    return {name: value for name, value in parts.attributes.items() if not name.startswith(but)}


def _conv(parts: _Parts) -> bool:
    made = parts.add("Conv", list(parts.whole.input[:3]), **_kept(parts, "activation"))
    if parts.given(3):
        made = parts.add("Add", [made, parts.given(3)])
    kind = parts.attributes.get("activation", b"").decode()
    return parts.activated(made, kind, parts.attributes.get("activation_params", ()))


def _gemm(parts: _Parts) -> bool:
    made = parts.add("Gemm", list(parts.whole.input), **_kept(parts, "activation"))
    kind = parts.attributes.get("activation", b"").decode()
    known = [parts.attributes.get(f"activation_{name}") for name in ("alpha", "beta")]
    return parts.activated(made, kind, [each for each in known if each is not None])


def _skip_norm(parts: _Parts) -> bool:
    """A sum, which may be read as well, and its norm."""
    simple = parts.whole.op_type == "SkipSimplifiedLayerNormalization"
    if parts.wanted(1) or parts.wanted(2):
        return False
    gain, rest = parts.given(2), ("" if simple else parts.given(3))
    added, whole = parts.given(3 if simple else 4), parts.wanted(3)
    made = parts.add("Add", [parts.given(0), parts.given(1)], "" if added else whole)
    if added:
        made = parts.add("Add", [made, added], whole)
    op = "SimplifiedLayerNormalization" if simple else "LayerNormalization"
    inputs = [made, gain, rest] if rest else [made, gain]
    parts.add(op, inputs, parts.wanted(0), axis=-1, epsilon=parts.attributes.get("epsilon", 1e-12))
    return True


def _bias_gelu(parts: _Parts) -> bool:
    op = "FastGelu" if parts.whole.op_type == "FastGelu" else "Gelu"
    made = parts.given(0)
    if op == "FastGelu" and not parts.given(1):
        return False  # nothing to take apart
    made = parts.add("Add", [made, parts.given(1)])
    parts.add(op, [made], parts.wanted(0), domain="com.microsoft")
    return True


def _quick_gelu(parts: _Parts) -> bool:
    x, alpha = parts.given(0), parts.attributes.get("alpha", 1.702)
    scaled = x if alpha == 1 else parts.add("Mul", [x, parts.number(alpha)])
    parts.add("Mul", [x, parts.add("Sigmoid", [scaled])], parts.wanted(0))
    return True


_APART: dict[str, Callable[[_Parts], bool]] = {
    "BiasGelu": _bias_gelu,
    "FastGelu": _bias_gelu,
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
}
