"""What a node means in torch is what OpenVINO computes, for every operator that has a reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13

from verifier.forms.openvino.runtime import of
from verifier.forms.openvino.steps import _KNOWN
from verifier.graph.recording import record
from verifier.graph.widening import Widening, default_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURE, ROWS = (2, 4, 6, 6), (3, 5)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def integers(*values: int) -> Any:
    return opset13.constant(np.array(values, dtype=np.int64))


def named(op: str, *others: Any, **attributes: Any) -> Callable[[Any], Any]:
    return lambda x: getattr(opset13, op)(x, *others, **attributes)


def compared(op: str) -> tuple[str, tuple[int, ...], Callable[[Any], Any]]:
    """Two tables beside one another: what comes of a comparison is no float, so it chooses between these."""
    return op, ROWS, lambda x: opset13.select(getattr(opset13, op)(x, numbers(*ROWS)), x, np.float32(0.5))


_WINDOW = {"strides": [2, 2], "pads_begin": [1, 1], "pads_end": [1, 1]}
_UNEVEN = {"strides": [1, 1], "pads_begin": [0, 1], "pads_end": [1, 0]}
_POOL = {"kernel_shape": [3, 3], "rounding_type": "floor"}
_UP = {"mode": "linear_onnx", "shape_calculation_mode": "sizes", "pads_begin": [0] * 4, "pads_end": [0] * 4}


def convolution(window: dict[str, Any], dilation: int = 1) -> Callable[[Any], Any]:
    return named("convolution", numbers(5, 4, 3, 3), **window, dilations=[dilation] * 2)


def resized(**attributes: Any) -> Callable[[Any], Any]:
    return named("interpolate", integers(9, 12), axes=integers(2, 3), **{**_UP, **attributes})


def max_pooled(window: dict[str, Any], **attributes: Any) -> Callable[[Any], Any]:
    return lambda x: opset13.max_pool(x, dilations=[1, 1], **window, **{**_POOL, **attributes}).output(0)


def cut(**masks: list[int]) -> Callable[[Any], Any]:
    usual = {"begin_mask": [0, 0], "end_mask": [0, 0]}
    return named("strided_slice", integers(1, 0), integers(3, 4), integers(1, 2), **{**usual, **masks})


CASES: list[tuple[str, tuple[int, ...], Callable[[Any], Any]]] = [
    *(
        (op, ROWS, named(op))
        for op in (
            "abs", "ceiling", "cos", "erf", "exp", "floor", "hswish", "hsigmoid", "mish", "negative", "relu",
            "sigmoid", "sign", "sin", "softplus", "softsign", "tan", "tanh", "atan", "asinh", "swish",
        )
    ),
    *((op, ROWS, named(op, numbers(5))) for op in ("add", "multiply", "subtract", "divide", "maximum", "minimum")),
    *((op, ROWS, named(op, np.float32(0.3))) for op in ("add", "multiply", "subtract", "divide", "maximum")),
    *map(compared, ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")),
    ("subtract from", ROWS, lambda x: opset13.subtract(np.float32(0.3), x)),
    ("divide by", ROWS, lambda x: opset13.divide(np.float32(0.3), opset13.abs(x))),
    ("power", ROWS, lambda x: opset13.power(opset13.abs(x), np.float32(1.5))),
    ("power of", ROWS, lambda x: opset13.power(np.float32(1.5), x)),
    ("mod", ROWS, named("mod", np.float32(0.4))),
    ("floor_mod", ROWS, named("floor_mod", np.float32(0.4))),
    ("squared_difference", ROWS, named("squared_difference", numbers(5))),
    ("round", ROWS, named("round", "half_to_even")),
    ("gelu erf", ROWS, named("gelu", "erf")),
    ("gelu tanh", ROWS, named("gelu", "tanh")),
    ("elu", ROWS, named("elu", 0.7)),
    ("prelu", PICTURE, named("prelu", numbers(4))),
    ("prelu of one", PICTURE, named("prelu", np.array([0.2], dtype=np.float32))),
    ("clamp", ROWS, named("clamp", -0.3, 0.4)),
    ("clamp to six", ROWS, named("clamp", 0.0, 6.0)),
    ("clamp from below", ROWS, named("clamp", 0.1, float("inf"))),
    ("softmax", PICTURE, named("softmax", 1)),
    ("log_softmax", PICTURE, named("log_softmax", -1)),
    ("matmul", ROWS, named("matmul", numbers(5, 4), False, False)),
    ("matmul turned", ROWS, named("matmul", numbers(4, 5), False, True)),
    ("matmul both turned", ROWS, named("matmul", numbers(4, 3), True, True)),
    ("matmul of stacks", PICTURE, named("matmul", numbers(6, 3), True, False)),
    ("attention", (2, 3, 5), lambda x: opset13.scaled_dot_product_attention(x, x, x)),
    ("attention causal", (2, 3, 5), lambda x: opset13.scaled_dot_product_attention(x, x, x, causal=True)),
    ("attention scaled", (2, 3, 5), lambda x: opset13.scaled_dot_product_attention(
        x, x, x, opset13.constant(numbers(3, 3)), opset13.constant(np.float32(0.3)))),
    ("mvn", PICTURE, named("mvn", integers(3), True, 1e-3, "inside_sqrt")),
    ("mvn of channels", PICTURE, named("mvn", integers(2, 3), True, 1e-3, "inside_sqrt")),
    ("mvn elsewhere", PICTURE, named("mvn", integers(1, 2), True, 1e-3, "inside_sqrt")),
    ("mvn outside", PICTURE, named("mvn", integers(3), True, 1e-3, "outside_sqrt")),
    ("batch_norm", PICTURE, lambda x: opset13.batch_norm_inference(
        x, numbers(4), numbers(1, 4)[0], numbers(1, 1, 4)[0, 0], np.abs(numbers(4)), 1e-3)),
    ("group_norm", PICTURE, named("group_normalization", numbers(4), numbers(1, 4)[0], 2, 1e-3)),
    ("normalize", ROWS, named("normalize_l2", integers(1), 1e-2, "add")),
    ("normalize at least", ROWS, named("normalize_l2", integers(1), 1e-2, "max")),
    ("convolution", PICTURE, convolution(_WINDOW)),
    ("convolution dilated", PICTURE, convolution(_WINDOW, 2)),
    ("convolution uneven", PICTURE, convolution(_UNEVEN)),
    ("convolution same", PICTURE, lambda x: opset13.convolution(
        x, numbers(5, 4, 3, 3), [2, 2], [0, 0], [0, 0], [1, 1], "same_upper")),
    ("convolution in groups", PICTURE, named(
        "group_convolution", numbers(2, 3, 2, 3, 3), **_WINDOW, dilations=[1, 1])),
    ("convolution with bias", PICTURE, lambda x: opset13.add(convolution(_WINDOW)(x), numbers(1, 5, 1, 1))),
    ("transposed", PICTURE, lambda x: opset13.convolution_backprop_data(
        x, numbers(4, 5, 3, 3), strides=[2, 2], pads_begin=[1, 1], pads_end=[1, 1], dilations=[1, 1],
        output_padding=[1, 1])),
    ("transposed in groups", PICTURE, lambda x: opset13.group_convolution_backprop_data(
        x, numbers(2, 2, 3, 3, 3), strides=[2, 2], pads_begin=[1, 1], pads_end=[1, 1], dilations=[1, 1])),
    ("max_pool", PICTURE, max_pooled(_WINDOW)),
    ("max_pool uneven", PICTURE, max_pooled(_UNEVEN)),
    ("max_pool dilated", PICTURE, lambda x: opset13.max_pool(
        x, dilations=[2, 2], strides=[1, 1], pads_begin=[1, 1], pads_end=[1, 1], **_POOL).output(0)),
    ("avg_pool", PICTURE, named("avg_pool", **_WINDOW, **_POOL, exclude_pad=False)),
    ("avg_pool without pad", PICTURE, named("avg_pool", **_WINDOW, **_POOL, exclude_pad=True)),
    ("adaptive_avg_pool", PICTURE, named("adaptive_avg_pool", integers(4, 2))),
    *((op, PICTURE, named(op, integers(1, -1), True)) for op in ("reduce_mean", "reduce_max", "reduce_l2")),
    *((op, PICTURE, named(op, integers(2), False)) for op in ("reduce_sum", "reduce_min", "reduce_l1")),
    ("cum_sum", ROWS, named("cum_sum", np.array(1, dtype=np.int64))),
    ("topk", ROWS, lambda x: opset13.topk(x, np.array(2, dtype=np.int64), 1, "max", "value").output(0)),
    ("topk of one", ROWS, lambda x: opset13.topk(x, np.array(1, dtype=np.int64), 1, "min", "value").output(0)),
    ("reshape", PICTURE, named("reshape", integers(0, -1), True)),
    ("transpose", PICTURE, named("transpose", integers(0, 2, 3, 1))),
    ("squeeze", (2, 1, 3), named("squeeze", integers(1))),
    ("unsqueeze", ROWS, named("unsqueeze", integers(0, -1))),
    ("concat", ROWS, lambda x: opset13.concat([x, opset13.constant(numbers(*ROWS))], 1)),
    ("split", (3, 6), lambda x: opset13.split(x, np.array(1, dtype=np.int64), 3).output(1)),
    ("variadic_split", (3, 6), lambda x: opset13.variadic_split(
        x, np.array(1, dtype=np.int64), integers(1, -1, 2)).output(1)),
    ("slice", PICTURE, named("slice", integers(1, 0), integers(-1, 100), integers(1, 2), integers(3, 1))),
    ("strided_slice", PICTURE, cut()),
    ("strided_slice masked", PICTURE, cut(begin_mask=[1, 0], end_mask=[0, 1])),
    ("strided_slice shrunk", PICTURE, cut(shrink_axis_mask=[1, 0])),
    ("strided_slice with a new axis", PICTURE, cut(new_axis_mask=[1, 0])),
    ("gather", PICTURE, named("gather", integers(0, -1), np.array(1, dtype=np.int64))),
    ("gather of one", PICTURE, named("gather", np.array(-1, dtype=np.int64), np.array(2, dtype=np.int64))),
    ("gather in two", PICTURE, named("gather", opset13.constant(np.array([[0, 1], [2, 1]])), np.array(1))),
    ("gather_elements", ROWS, named("gather_elements", opset13.constant(np.array([[0, 1], [4, 2], [1, 1]])), 1)),
    ("broadcast", ROWS, named("broadcast", integers(2, 3, 5))),
    ("tile", ROWS, named("tile", integers(2, 1))),
    ("pad", PICTURE, named("pad", integers(0, 0, 1, 2), integers(0, 0, 0, 1), "constant", np.float32(0.7))),
    ("pad mirrored", PICTURE, named("pad", integers(0, 0, 1, 2), integers(0, 0, 0, 1), "reflect")),
    ("pad with edges", PICTURE, named("pad", integers(0, 0, 1, 2), integers(0, 0, 0, 1), "edge")),
    ("pixel shuffle", PICTURE, named("depth_to_space", "depth_first", 2)),
    ("interpolate", PICTURE, resized(coordinate_transformation_mode="half_pixel")),
    ("interpolate with corners", PICTURE, resized(coordinate_transformation_mode="align_corners")),
    ("interpolate cubic", PICTURE, resized(mode="cubic", coordinate_transformation_mode="half_pixel")),
    ("interpolate nearest", PICTURE, resized(
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")),
    ("select", ROWS, lambda x: opset13.select(opset13.greater(x, np.float32(0)), x, numbers(5))),
    ("select a number", ROWS, lambda x: opset13.select(opset13.greater(x, np.float32(0)), np.float32(-9), x)),
    ("logical", ROWS, lambda x: opset13.select(opset13.logical_and(
        opset13.greater(x, np.float32(-1)), opset13.logical_not(opset13.less(x, np.float32(0)))), x, np.float32(3))),
    ("convert", ROWS, lambda x: opset13.convert(opset13.convert(x, "i32"), "f32")),
]  # fmt: skip


def one(build: Callable[[Any], Any], shape: tuple[int, ...]) -> Any:
    """The program of a model of few nodes."""
    x = opset13.parameter([*shape], np.float32, name="x")
    return of(openvino.Model([build(x)], [x], "one")).program


@pytest.mark.parametrize(("name", "shape", "build"), CASES, ids=[name for name, *_ in CASES])
def test_a_reading_says_what_openvino_computes(
    name: str, shape: tuple[int, ...], build: Callable[[Any], Any]
) -> None:
    program = one(build, shape)
    assert all(step.node.op in _KNOWN for step, *_ in program.plan.steps)
    x = torch.from_numpy(numbers(*shape))
    by_kernel = program(x)
    with Widening(), default_dtype(torch.float64):
        meant = program.double()(x.double())
    assert meant.dtype is torch.float64, "else it has run by its kernel"
    torch.testing.assert_close(by_kernel.double(), meant, rtol=1e-4, atol=1e-5)


def test_settings_without_a_reading_run_by_the_kernel() -> None:
    program = one(
        lambda x: opset13.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [3, 3], rounding_type="ceil").output(0),
        PICTURE,
    )
    x = torch.from_numpy(numbers(*PICTURE))
    assert [site.op for site in record(program, (x,), {}).comparable] == ["MaxPool"]
    with default_dtype(torch.float64), pytest.raises(NotImplementedError, match="MaxPool is not implemented"):
        program(x.double())
