"""OpenVINO's operators as calls of torch: what a node means, in whatever dtype its tensors are.

By torch's names, so that what is known of torch's operators holds for them. Where a node has no reading, or none with
its attributes, it is run as it is (`verifier.forms.openvino.steps`). Meanings are those of the specification,
https://docs.openvino.ai/latest/documentation/openvino-ir-format/operation-sets.html. Recurrent layers have none on
purpose: they keep the sum of torch's two biases, so no more is known of them than single precision tells.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.forms.calls import Call, Readings, Value, as_tensor, at, choice, number, operand
from verifier.forms.openvino.node import OpenvinoNode, axes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READINGS = Readings[OpenvinoNode]()

_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh,
    "Atan": torch.atan, "Atanh": torch.atanh, "Ceiling": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "HSwish": F.hardswish, "Log": torch.log,
    "LogicalNot": torch.logical_not, "Mish": F.mish, "Negative": torch.neg, "Relu": torch.relu,
    "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh, "SoftPlus": F.softplus,
    "SoftSign": F.softsign, "Sqrt": torch.sqrt, "Tan": torch.tan, "Tanh": torch.tanh, "IsNaN": torch.isnan,
    "BitwiseNot": torch.bitwise_not, "HSigmoid": F.hardsigmoid,
}  # fmt: skip


@READINGS.of(*_UNARY)
def _unary(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    function = _UNARY[node.op]
    return Call(function.__name__, function, [as_tensor(given[0])])


@READINGS.of("Round")
def _round(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    return Call("round", torch.round, [given[0]]) if node.get("mode") == "half_to_even" else None


_BINARY: dict[str, Callable[..., Any]] = {
    "Add": torch.add, "Multiply": torch.mul, "Subtract": torch.sub, "Power": torch.pow, "Maximum": torch.maximum,
    "Minimum": torch.minimum, "Equal": torch.eq, "NotEqual": torch.ne, "Greater": torch.gt,
    "GreaterEqual": torch.ge, "Less": torch.lt, "LessEqual": torch.le, "LogicalAnd": torch.logical_and,
    "LogicalOr": torch.logical_or, "LogicalXor": torch.logical_xor, "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor, "FloorMod": torch.remainder, "Mod": torch.fmod,
}  # fmt: skip
_TURNED = {"Add": "Add", "Multiply": "Multiply", "Equal": "Equal", "NotEqual": "NotEqual", "Greater": "Less"}
_TURNED |= {"Less": "Greater", "GreaterEqual": "LessEqual", "LessEqual": "GreaterEqual"}
_OF_TENSORS = frozenset({"Maximum", "Minimum", "LogicalAnd", "LogicalOr", "LogicalXor"})


@READINGS.of(*_BINARY)
def _binary(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    op = node.op
    if node.get("auto_broadcast", "numpy") != "numpy":
        return None
    if op in _OF_TENSORS:
        one, two = _like(given[0], given[1]), _like(given[1], given[0])
        return Call(_BINARY[op].__name__, _BINARY[op], [one, two])
    one, two = operand(given[0]), operand(given[1])
    if not isinstance(one, Tensor) and op in _TURNED:
        one, two, op = two, one, _TURNED[op]
    if not isinstance(one, Tensor):
        if op == "Subtract":
            return Call("rsub", torch.rsub, [two, one])
        one = _like(given[0], given[1])
    if op == "Power" and isinstance(two, Tensor):
        return Call("pow", _power, [one, two])
    return Call(_BINARY[op].__name__, _BINARY[op], [one, two])


def _like(value: Value, other: Value) -> Tensor:
    """An operand as a tensor; a number is one of the other's dtype."""
    found = operand(value)
    return found if isinstance(found, Tensor) else torch.tensor(found, dtype=as_tensor(other).dtype)


def _power(input: Tensor, exponent: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
    return torch.pow(input, exponent).to(input.dtype)


@READINGS.of("Divide")
def _divide(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    one, two = operand(given[0]), operand(given[1])
    if not isinstance(one, Tensor):
        if two.is_floating_point():
            return Call("rdiv", Tensor.__rdiv__, [two, one])
        one = as_tensor(given[0])
    if one.is_floating_point():
        return Call("div", torch.div, [one, two])
    return Call("div", _floored if node.get("m_pythondiv", True) else _truncated, [one, two])


def _floored(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    return torch.div(input, other, rounding_mode="floor")


def _truncated(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    return torch.div(input, other, rounding_mode="trunc")


@READINGS.of("SquaredDifference")
def _squared_difference(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    return Call("squared_difference", _squared, [as_tensor(given[0]), as_tensor(given[1])])


def _squared(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    return (input - other).square()


@READINGS.of("Gelu")
def _gelu(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    how = {"ERF": "none", "TANH": "tanh"}[str(node.get("approximation_mode", "ERF")).upper()]
    return Call("gelu", F.gelu, [given[0]], {"approximate": how})


@READINGS.of("Swish")
def _swish(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    beta = at(given, 1)
    if beta is None or (isinstance(beta, np.ndarray) and number(beta) == 1):
        return Call("silu", F.silu, [given[0]])
    return None


@READINGS.of("Elu")
def _elu(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    return Call("elu", F.elu, [given[0]], {"alpha": number(np.float32(node.get("alpha")))})


@READINGS.of("Selu")
def _selu(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    settings = [number(value) for value in given[1:] if isinstance(value, np.ndarray)]
    usual = len(settings) == 2 and all(abs(a - b) < 1e-6 for a, b in zip(settings, _SELU, strict=True))
    return Call("selu", F.selu, [given[0]]) if usual else None


_SELU = 1.6732632, 1.050701  # torch's constants, in single precision


@READINGS.of("PRelu")
def _prelu(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x, slope = as_tensor(given[0]), given[1]
    if isinstance(slope, np.ndarray) and slope.size == 1:
        return Call("leaky_relu", F.leaky_relu, [x], {"negative_slope": number(slope)})
    if x.dim() < 2 or as_tensor(slope).dim() != 1:
        return None
    return Call("prelu", F.prelu, [x, as_tensor(slope)])


@READINGS.of("Clamp")
def _clamp(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    low, high = node.get("min"), node.get("max")
    if (low, high) == (0, 6):
        return Call("relu6", F.relu6, [given[0]])
    limits = [None if abs(each) >= _ENDLESS else number(np.float32(each)) for each in (low, high)]
    return Call("clamp", torch.clamp, [given[0], *limits])


_ENDLESS = float(np.finfo(np.float32).max)


@READINGS.of("Softmax", "LogSoftmax")
def _softmax(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    function = F.softmax if node.op == "Softmax" else F.log_softmax
    return Call(function.__name__, function, [given[0]], {"dim": node.get("axis", 1)})


@READINGS.of("MatMul")
def _matmul(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    a, b = as_tensor(given[0]), as_tensor(given[1])
    turn_a, turn_b = bool(node.get("transpose_a")), bool(node.get("transpose_b"))
    if not turn_a and turn_b and b.dim() == 2 and isinstance(b, torch.nn.Parameter):
        return Call("linear", F.linear, [a, b, at(given, 2)])
    if turn_a or turn_b:
        return Call("matmul", _product, [a, b], {"turned": (turn_a, turn_b)})
    return Call("matmul", torch.matmul, [a, b])


def _product(input: Tensor, other: Tensor, turned: tuple[bool, bool]) -> Tensor:  # noqa: A002
    one = input.mT if turned[0] and input.dim() > 1 else input
    return one @ (other.mT if turned[1] and other.dim() > 1 else other)


@READINGS.of("ScaledDotProductAttention")
def _attention(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    q, k, v = (as_tensor(value) for value in given[:3])
    mask, scale = at(given, 3), at(given, 4)
    if len(given) > 5 or (scale is not None and not isinstance(scale, np.ndarray)):
        return None
    settings: dict[str, Any] = {"is_causal": bool(node.get("causal"))}
    plain = isinstance(mask, np.ndarray) and mask.size == 1 and not mask.any()
    if mask is not None and not plain and not settings["is_causal"]:
        settings["attn_mask"] = as_tensor(mask)
    if scale is not None and not math.isclose(number(scale), q.shape[-1] ** -0.5, rel_tol=1e-6):
        settings["scale"] = number(scale)
    return Call("scaled_dot_product_attention", F.scaled_dot_product_attention, [q, k, v], settings)


@READINGS.of("MVN")
def _mean_variance_norm(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    along = axes(given[1], x.dim()) if len(given) > 1 else None
    if along is None or not node.get("normalize_variance", True):
        return None
    eps, inside = number(np.float32(node.get("eps"))), str(node.get("eps_mode")).upper() == "INSIDE_SQRT"
    if inside and sorted(along) == [*range(x.dim() - len(along), x.dim())]:
        affine = [at(given, 2), at(given, 3)]
        return Call("layer_norm", F.layer_norm, [x, tuple(x.shape[-len(along) :]), *affine], {"eps": eps})
    if len(given) > 2:
        return None
    if inside and x.dim() > 2 and sorted(along) == [*range(2, x.dim())]:
        return Call("instance_norm", F.instance_norm, [x], {"eps": eps})
    return Call("mvn", _normed, [x, tuple(along)], {"eps": eps, "inside": inside})


def _normed(input: Tensor, dim: tuple[int, ...], eps: float, inside: bool) -> Tensor:  # noqa: A002
    centred = input - input.mean(dim, keepdim=True)
    variance = centred.square().mean(dim, keepdim=True)
    return centred / ((variance + eps).sqrt() if inside else variance.sqrt() + eps)


@READINGS.of("BatchNormInference")
def _batch_norm(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    # The first version has the data behind the weights.
    x, gain, shift, mean, variance = map(
        as_tensor, given if node.opset != "opset1" else (given[2], given[0], given[1], *given[3:])
    )
    eps = number(np.float32(node.get("epsilon")))
    arguments = {"weight": gain, "bias": shift, "training": False, "eps": eps}
    return Call("batch_norm", F.batch_norm, [x, mean, variance], arguments)


@READINGS.of("GroupNormalization")
def _group_norm(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    x, gain, shift = map(as_tensor, given)
    eps = number(np.float32(node.get("epsilon")))
    return Call("group_norm", F.group_norm, [x, node.get("num_groups"), gain, shift, eps])


@READINGS.of("NormalizeL2")
def _normalize(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    along = axes(given[1], x.dim())
    if along is None or len(along) != 1:
        return None
    settings = {"dim": along[0], "eps": number(np.float32(node.get("eps")))}
    if node.get("eps_mode") == "max":  # of the sum of squares, where torch's is of its root
        settings["eps"] = settings["eps"] ** 0.5
        return Call("normalize", F.normalize, [x], settings)
    return Call("normalize", _scaled, [x], settings)


def _scaled(input: Tensor, dim: int, eps: float) -> Tensor:  # noqa: A002
    return input / (input.square().sum(dim, keepdim=True) + eps).sqrt()


@READINGS.of("Select")
def _where(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    return choice(given)


@READINGS.of("Convert")
def _convert(node: OpenvinoNode, given: Sequence[Value]) -> Call | None:
    dtype = _DTYPES.get(str(node.get("destination_type")))
    return None if dtype is None else Call("to", Tensor.to, [given[0], dtype])


@READINGS.of("ConvertLike")
def _convert_like(node: OpenvinoNode, given: Sequence[Value]) -> Call:
    return Call("to", Tensor.to, [given[0], as_tensor(given[1]).dtype])


_DTYPES = {
    "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64, "i8": torch.int8,
    "i16": torch.int16, "i32": torch.int32, "i64": torch.int64, "u8": torch.uint8, "boolean": torch.bool,
}  # fmt: skip
