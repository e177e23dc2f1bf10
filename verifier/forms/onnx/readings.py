"""ONNX's operators as calls of torch: what a node means, in whatever dtype its tensors are.

By torch's names, so that what is known of torch's operators holds for them. Where a node has no reading, or none with
its attributes, it is run as it is (`verifier.forms.onnx.steps`). Meanings are those of the specification,
https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.forms.calls import Call, Readings, Value, as_tensor, at, choice, operand
from verifier.forms.onnx.node import OnnxNode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READINGS = Readings[OnnxNode]()

_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh,
    "Atan": torch.atan, "Atanh": torch.atanh, "Ceil": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "Log": torch.log, "Mish": F.mish, "Neg": torch.neg,
    "Not": torch.logical_not, "Reciprocal": torch.reciprocal, "Relu": torch.relu, "Round": torch.round,
    "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh, "Softplus": F.softplus,
    "Softsign": F.softsign, "Sqrt": torch.sqrt, "Tan": torch.tan, "Tanh": torch.tanh, "HardSwish": F.hardswish,
    "IsNaN": torch.isnan, "BitwiseNot": torch.bitwise_not,
}  # fmt: skip


@READINGS.of(*_UNARY)
def _unary(node: OnnxNode, given: Sequence[Value]) -> Call:
    function = _UNARY[node.op]
    return Call(function.__name__, function, [given[0]])


_BINARY: dict[str, Callable[..., Any]] = {
    "Add": torch.add, "And": torch.logical_and, "Equal": torch.eq, "Greater": torch.gt, "GreaterOrEqual": torch.ge,
    "Less": torch.lt, "LessOrEqual": torch.le, "Mul": torch.mul, "Or": torch.logical_or, "Sub": torch.sub,
    "Xor": torch.logical_xor, "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip
_TURNED = {"Add": "Add", "Mul": "Mul", "Equal": "Equal", "Greater": "Less", "Less": "Greater"}
_TURNED |= {"GreaterOrEqual": "LessOrEqual", "LessOrEqual": "GreaterOrEqual"}


@READINGS.of(*_BINARY)
def _binary(node: OnnxNode, given: Sequence[Value]) -> Call:
    op = node.op
    one, two = map(as_tensor if op in _LOGICAL else operand, given)
    if not isinstance(one, Tensor) and op in _TURNED:
        one, two, op = two, one, _TURNED[op]
    if not isinstance(one, Tensor):
        if op == "Sub":
            return Call("rsub", torch.rsub, [two, one])
        one = torch.tensor(one, dtype=two.dtype)
    return Call(_BINARY[op].__name__, _BINARY[op], [one, two])


_LOGICAL = frozenset({"And", "Or", "Xor"})  # torch's take no numbers


@READINGS.of("Pow")
def _pow(node: OnnxNode, given: Sequence[Value]) -> Call:
    one, two = operand(given[0]), operand(given[1])
    if isinstance(one, Tensor) and one.is_floating_point() and not isinstance(two, Tensor):
        return Call("pow", torch.pow, [one, two])
    if isinstance(one, float):
        one = torch.tensor(one, dtype=two.dtype if two.is_floating_point() else None)
    return Call("pow", _power, [one if isinstance(one, Tensor) else as_tensor(given[0]), two])


def _power(input: Tensor, exponent: Tensor | float) -> Tensor:  # noqa: A002 - torch's name for it
    """In the dtype of the base, which torch's has only where the exponent's is no wider."""
    return torch.pow(input, exponent).to(input.dtype)


def _quotient(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    return torch.div(input, other, rounding_mode="trunc")


@READINGS.of("Div")
def _div(node: OnnxNode, given: Sequence[Value]) -> Call:
    one, two = operand(given[0]), operand(given[1])
    if not isinstance(one, Tensor):
        if two.is_floating_point():
            return Call("rdiv", Tensor.__rdiv__, [two, one])
        one = torch.tensor(one, dtype=two.dtype)
    if one.is_floating_point():
        return Call("div", torch.div, [one, two])
    return Call("div", _quotient, [one, two])


@READINGS.of("Mod")
def _mod(node: OnnxNode, given: Sequence[Value]) -> Call:
    function = torch.fmod if node.get("fmod", 0) else torch.remainder
    return Call(function.__name__, function, [as_tensor(given[0]), operand(given[1])])


_OF_TWO: dict[str, Callable[..., Any]] = {"Max": torch.maximum, "Min": torch.minimum, "Sum": torch.add}


@READINGS.of("Max", "Min", "Sum", "Mean")
def _of_several(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    tensors = [as_tensor(value) for value in given]
    if len(tensors) != 2 or node.op == "Mean":
        if len(tensors) == 1:
            return Call("clone", torch.clone, tensors)
        return None
    function = _OF_TWO[node.op]
    return Call(function.__name__, function, tensors)


@READINGS.of("Gelu")
def _gelu(node: OnnxNode, given: Sequence[Value]) -> Call:
    return Call("gelu", F.gelu, [given[0]], {"approximate": node.get("approximate", "none")})


@READINGS.of("com.microsoft.Gelu", "com.microsoft.FastGelu")
def _gelu_of_microsoft(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if at(given, 1) is not None:
        return None
    approximate = "tanh" if node.op.endswith("FastGelu") else "none"
    return Call("gelu", F.gelu, [given[0]], {"approximate": approximate})


@READINGS.of("com.microsoft.FusedMatMul")
def _scaled_matmul(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if node.get("transBatchA", 0) or node.get("transBatchB", 0):
        return None
    a, b = as_tensor(given[0]), as_tensor(given[1])
    turned = (node.get("transA", 0), node.get("transB", 0))
    settings = {"alpha": node.get("alpha", 1.0), "beta": 1.0, "turned": turned}
    return Call("matmul", _product, [None, a, b], settings)


_WITH_ALPHA: dict[str, tuple[Callable[..., Any], str, float]] = {
    "Elu": (F.elu, "alpha", 1.0),
    "Celu": (F.celu, "alpha", 1.0),
    "LeakyRelu": (F.leaky_relu, "negative_slope", 0.01),
}


@READINGS.of(*_WITH_ALPHA)
def _with_alpha(node: OnnxNode, given: Sequence[Value]) -> Call:
    function, name, usual = _WITH_ALPHA[node.op]
    return Call(function.__name__, function, [given[0]], {name: node.get("alpha", usual)})


@READINGS.of("HardSigmoid")
def _hard_sigmoid(node: OnnxNode, given: Sequence[Value]) -> Call:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return Call("hardsigmoid", F.hardsigmoid, [given[0]])
    return Call("hardsigmoid", _line_clipped, [given[0]], {"alpha": alpha, "beta": beta})


def _line_clipped(input: Tensor, alpha: float, beta: float) -> Tensor:  # noqa: A002
    return (input * alpha + beta).clamp(0, 1)


@READINGS.of("Selu")
def _selu(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    settings = (node.get("alpha", _SELU[0]), node.get("gamma", _SELU[1]))
    usual = all(abs(one - two) < 1e-6 for one, two in zip(settings, _SELU, strict=True))
    return Call("selu", F.selu, [given[0]]) if usual else None


_SELU = 1.6732632, 1.050701  # the defaults, which are torch's constants in single precision


@READINGS.of("Swish")
def _swish(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    return Call("silu", F.silu, [given[0]]) if node.get("alpha", 1.0) == 1 else None


@READINGS.of("PRelu")
def _prelu(node: OnnxNode, given: Sequence[Value]) -> Call:
    return Call("prelu", _sloped, [given[0], as_tensor(given[1])])


def _sloped(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
    return torch.where(input < 0, input * weight, input)


@READINGS.of("Clip")
def _clip(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if node.opset < 11:
        low, high = node.get("min"), node.get("max")
    else:
        low, high = (None if value is None else operand(value) for value in (at(given, 1), at(given, 2)))
    x = as_tensor(given[0])
    if low is None and high is None:
        return Call("clone", torch.clone, [x])
    if isinstance(low, Tensor) or isinstance(high, Tensor):  # torch takes two tensors or two numbers
        low, high = (
            each if each is None or isinstance(each, Tensor) else torch.tensor(each, dtype=x.dtype)
            for each in (low, high)
        )
        return Call("clamp", torch.clamp, [x, low, high])
    if low == 0 and high is None:
        return Call("relu", torch.relu, [x])
    if (low, high) == (0, 6) and x.is_floating_point():
        return Call("relu6", F.relu6, [x])
    return Call("clamp", torch.clamp, [x, low, high])


@READINGS.of("Softmax", "LogSoftmax")
def _softmax(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x = as_tensor(given[0])
    axis = node.get("axis", -1 if node.opset >= 13 else 1)
    function: Callable[..., Any] = torch.softmax if node.op == "Softmax" else torch.log_softmax
    if node.opset < 13 and axis not in (-1, x.dim() - 1) and any(size > 1 for size in x.shape[axis:][1:]):
        function = _softmax_of_rest if node.op == "Softmax" else _log_softmax_of_rest
    return Call("softmax" if node.op == "Softmax" else "log_softmax", function, [x, axis])


def _softmax_of_rest(input: Tensor, dim: int) -> Tensor:  # noqa: A002
    """Over all dimensions from one on, as it was before opset 13."""
    return input.flatten(dim).softmax(-1).reshape(input.shape)


def _log_softmax_of_rest(input: Tensor, dim: int) -> Tensor:  # noqa: A002
    return input.flatten(dim).log_softmax(-1).reshape(input.shape)


@READINGS.of("Gemm")
def _gemm(node: OnnxNode, given: Sequence[Value]) -> Call:
    a, b, c = as_tensor(given[0]), as_tensor(given[1]), at(given, 2)
    plain = node.get("alpha", 1.0) == 1 and node.get("beta", 1.0) == 1 and not node.get("transA", 0)
    row = c is None or (c.ndim == 1 and c.shape[0] == (b.shape[0] if node.get("transB", 0) else b.shape[1]))
    if plain and row and node.get("transB", 0):
        return Call("linear", F.linear, [a, b, None if c is None else as_tensor(c)])
    if plain and row and c is not None:
        return Call("addmm", torch.addmm, [as_tensor(c), a, b])
    if plain and c is None:
        return Call("matmul", torch.matmul, [a, b])
    settings = {
        "alpha": node.get("alpha", 1.0),
        "beta": node.get("beta", 1.0),
        "turned": (node.get("transA", 0), node.get("transB", 0)),
    }
    return Call("addmm", _product, [None if c is None else as_tensor(c), a, b], settings)


def _product(
    input: Tensor | None,  # noqa: A002
    mat1: Tensor,
    mat2: Tensor,
    alpha: float,
    beta: float,
    turned: tuple[int, int],
) -> Tensor:
    product = alpha * ((mat1.mT if turned[0] else mat1) @ (mat2.mT if turned[1] else mat2))
    return product if input is None else product + beta * input


@READINGS.of("MatMul")
def _matmul(node: OnnxNode, given: Sequence[Value]) -> Call:
    return Call("matmul", torch.matmul, [as_tensor(given[0]), as_tensor(given[1])])


@READINGS.of("Einsum")
def _einsum(node: OnnxNode, given: Sequence[Value]) -> Call:
    return Call("einsum", torch.einsum, [node.get("equation"), *map(as_tensor, given)])


@READINGS.of("BatchNormalization")
def _batch_norm(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if node.get("training_mode", 0) or node.get("spatial", 1) != 1 or len(node.outputs) > 1:
        return None
    x, weight, bias, mean, variance = map(as_tensor, given)
    arguments = {"weight": weight, "bias": bias, "training": False, "eps": node.get("epsilon", 1e-5)}
    return Call("batch_norm", F.batch_norm, [x, mean, variance], arguments)


@READINGS.of("InstanceNormalization")
def _instance_norm(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, weight, bias = map(as_tensor, given)
    if math.prod(x.shape[2:]) == 1:  # which torch refuses
        return None
    arguments = {"weight": weight, "bias": bias, "eps": node.get("epsilon", 1e-5)}
    return Call("instance_norm", F.instance_norm, [x], arguments)


@READINGS.of("GroupNormalization")
def _group_norm(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if node.opset < 21:  # gains of groups, not of channels
        return None
    x, weight, bias = map(as_tensor, given)
    return Call(
        "group_norm", F.group_norm, [x, node.get("num_groups"), weight, bias, node.get("epsilon", 1e-5)]
    )


@READINGS.of("LayerNormalization")
def _layer_norm(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, weight, bias = as_tensor(given[0]), as_tensor(given[1]), at(given, 2)
    axis = node.get("axis", -1) % x.dim()
    if len(node.outputs) > 1 or tuple(weight.shape) != tuple(x.shape[axis:]):
        return None
    shape = tuple(x.shape[axis:])
    bias = None if bias is None else as_tensor(bias)
    return Call("layer_norm", F.layer_norm, [x, shape, weight, bias, node.get("epsilon", 1e-5)])


@READINGS.of("RMSNormalization", "SimplifiedLayerNormalization")
def _rms_norm(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, weight = as_tensor(given[0]), as_tensor(given[1])
    axis = node.get("axis", -1) % x.dim()
    if tuple(weight.shape) != tuple(x.shape[axis:]):
        return None
    return Call("rms_norm", F.rms_norm, [x, tuple(x.shape[axis:]), weight, node.get("epsilon", 1e-5)])


@READINGS.of("LpNormalization")
def _lp_norm(node: OnnxNode, given: Sequence[Value]) -> Call:
    settings = {"p": float(node.get("p", 2)), "dim": node.get("axis", -1), "eps": _TINY}  # 0 stays 0
    return Call("normalize", F.normalize, [given[0]], settings)


_TINY = torch.finfo(torch.float32).tiny


@READINGS.of("Where")
def _where(node: OnnxNode, given: Sequence[Value]) -> Call:
    return choice(given)


@READINGS.of("Cast")
def _cast(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    dtype = _DTYPES.get(node.get("to"))
    return None if dtype is None else Call("to", Tensor.to, [given[0], dtype])


_DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip


@READINGS.of("Dropout", "Identity")
def _identity(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if len(node.outputs) > 1:
        return None
    training = at(given, 2)
    if training is not None and bool(np.asarray(training).any()):
        return None
    return Call("clone", torch.clone, [given[0]])
