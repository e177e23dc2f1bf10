"""What a node is read as is what ONNX says it means: every reading against the models of ONNX's own backend test.

The readings compute in float64, as they do where two models are compared as programs, and the expected outputs are
those that ONNX ships. What has no reading is run there by ONNX's reference implementation, and held against the same.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F

from verifier.cells import ORACLE
from verifier.forms.onnx.plan import Plan
from verifier.forms.onnx.program import OnnxProgram
from verifier.forms.onnx.steps import _KNOWN, NodeStep
from verifier.graph.tensors import tensors_in
from verifier.models.casting import running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from verifier.forms.calls import Call, Value

# Which inputs are held by the file, as most models hold settings and tables: none, integers, all but the first.
WAYS: dict[str, Callable[[int, np.ndarray], bool]] = {
    "none": lambda _, __: False,
    "integers": lambda k, value: k > 0 and value.dtype.kind in "iub",
    "all but one": lambda k, _: k > 0,
}
RANDOM = ("Bernoulli", "RandomNormal", "RandomUniform", "Multinomial")
# Models that ONNX Runtime does not compute as ONNX's own backend test expects: what it computes counts. Of those
# about dropout the numbers are random, and of the last the expected ones have four digits.
OTHERWISE = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
    "test_maxunpool_export_with_output_shape",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal",
    "test_training_dropout",
    "test_training_dropout_default",
    "test_training_dropout_default_mask",
    "test_training_dropout_mask",
    "test_training_dropout_zero_ratio",
    "test_training_dropout_zero_ratio_mask",
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    # Which of equal numbers are the topmost, torch does not say.
    "test_top_k_same_values",
    "test_top_k_same_values_largest",
    "test_top_k_same_values_2d",
}
# What the names of models say whose numbers are in dtypes that NumPy does not have.
FOREIGN = (
    "bf16|bfloat16|BFLOAT16|FLOAT8|FLOAT4|INT4|INT2|E8M0|e5m2|e4m3|STRING|string|float8|float4|int4|int2"
)
# Neither the reference implementation nor the runtime has them, or they take what is no tensor of numbers.
NOWHERE = ("FlexAttention", "ImageDecoder")
# ONNX's own tests have none of these as a single node, or none whose attributes a reading has words for.
UNTESTED = {
    "Upsample",
    "SimplifiedLayerNormalization",
    *(op for op in _KNOWN if op.startswith("com.microsoft.")),
}
DIGITS = {"GridSample": 1e-3, "RoiAlign": 1e-3}  # what is expected of these has four digits
COARSE = 2e-2  # relative: bfloat16 and float16 keep two or three digits


@cache
def cases() -> dict[str, list[Any]]:
    """ONNX's models by their operator; those of several operators under `several`."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(action="ignore"):
        collected: Any = collect_testcases(None)
    found = defaultdict(list)
    for case in collected:
        ops = {node.op_type for node in case.model.graph.node}
        given = [array_of(value) for inputs, _ in case.data_sets for value in inputs]
        numbers = all(each is not None and each.dtype.kind in "fiub" for each in given)
        if case.name not in OTHERWISE and numbers and not re.search(FOREIGN, case.name):
            found[ops.pop() if len(ops) == 1 else "several"].append(case)
    return found


def array_of(value: Any) -> np.ndarray | None:
    """One value of a case as an array; None where it is a list of such, or left out."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return None if value is None or isinstance(value, list) else np.asarray(value)


def held(
    model: onnx.ModelProto, values: Sequence[np.ndarray], way: str, outputs: int
) -> tuple[onnx.ModelProto, list[Tensor]]:
    """The model with some of its inputs in it and so many outputs, and the other inputs in float64."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[outputs:]
    rest = []
    for k, (value, given) in enumerate(zip(values, model.graph.input, strict=True)):
        if WAYS[way](k, value) and value.dtype.kind in "fiub":
            copy.graph.initializer.append(numpy_helper.from_array(value, given.name))
        else:
            rest.append(wide(value))
    return copy, rest


def wide(value: np.ndarray) -> Tensor:
    """A tensor of the same numbers, in float64 where they are no whole ones."""
    if value.dtype.kind not in "fiubc":  # bfloat16 and others that NumPy does not know
        value = value.astype(np.float32)
    tensor = torch.from_numpy(np.array(value))
    return tensor.double() if tensor.is_floating_point() else tensor


def meant(model: onnx.ModelProto, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What a model gives in float64."""
    program = OnnxProgram(Plan(model, "node")).double()
    with torch.no_grad(), running(ORACLE):
        found = program(*given)
    return found if isinstance(found, tuple) else (found,)


def hold(case: Any, way: str, *, rtol: float) -> None:
    """What a case's model gives is what ONNX expects of it."""
    for values, expected in case.data_sets:
        arrays = [array for value in values if (array := array_of(value)) is not None]
        for outputs in {1, len(expected)}:
            model, given = held(case.model, arrays, way, outputs)
            wanted = flat(expected[:outputs])
            found = list(tensors_in(meant(model, given)))
            assert len(found) == len(wanted)
            for one, other in zip(found, wanted, strict=True):
                few = any(each.dtype.itemsize < 4 and each.dtype.kind == "f" for each in (*arrays, other))
                agree(one, other, f"{case.name}, {way} of its inputs held", COARSE if few else rtol)


def agree(found: Tensor, wanted: np.ndarray, what: str, rtol: float) -> None:
    """A tensor is what was expected: numbers but for rounding, anything else to the bit."""
    assert tuple(found.shape) == wanted.shape, what
    if wanted.dtype.kind == "f":
        assert found.is_floating_point(), what
        exact = wanted.astype(np.float64)
        np.testing.assert_allclose(found.double().numpy(), exact, rtol=rtol, atol=rtol / 4, err_msg=what)
    else:
        assert str(found.dtype) == f"torch.{wanted.dtype.name}", what
        np.testing.assert_array_equal(found.numpy(), wanted, err_msg=what)


def flat(values: Sequence[Any]) -> list[np.ndarray]:
    """The arrays in what is expected of a case, those of its sequences one by one."""
    found: list[np.ndarray] = []
    for value in values:
        array = array_of(value)
        found += flat(value) if array is None else [array]
    return found


@pytest.mark.parametrize("op", sorted(set(_KNOWN) - UNTESTED))
def test_a_reading_says_what_onnx_does(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    begin = NodeStep.begin

    def noted(self: NodeStep, given: Sequence[Value], *, native: bool) -> Call:
        call = begin(self, given, native=native)
        read.append(self.stands_for != self._meant)
        return call

    monkeypatch.setattr(NodeStep, "begin", noted)
    for case in cases()[op]:
        for way in WAYS:
            hold(case, way, rtol=DIGITS.get(op, 2e-5))
    assert any(read), f"none of ONNX's models of {op} is read"


def _others() -> list[str]:
    """Operators without a reading, by what ONNX has defined of its own."""
    known = {
        schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain and not schema.deprecated
    }
    return sorted(known - set(_KNOWN) - set(RANDOM) - set(NOWHERE))


@pytest.mark.parametrize("op", _others())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of ONNX's reference implementation
def test_what_has_no_reading_gives_what_onnx_does(op: str) -> None:
    for case in cases()[op]:
        for way in ("none", "integers"):
            hold(case, way, rtol=max(case.rtol, 1e-4))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_models_of_several_nodes_give_what_onnx_expects() -> None:
    for case in cases()["several"]:
        if not case.name.startswith("test_bernoulli"):
            hold(case, "integers", rtol=max(case.rtol, 1e-4))


def one_node(
    op: str,
    inputs: Mapping[str, Tensor | np.ndarray],
    *,
    opset: int = 21,
    domain: str = "",
    **attributes: Any,
) -> Tensor:
    """What one node gives in float64: arrays are held by the file, tensors are its inputs."""
    given = {name: value for name, value in inputs.items() if not isinstance(value, np.ndarray)}
    node = helper.make_node(op, list(inputs), ["y"], domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.numpy().dtype), list(value.shape)
            )
            for name, value in given.items()
        ],
        [onnx.ValueInfoProto(name="y")],
        [
            numpy_helper.from_array(value, name)
            for name, value in inputs.items()
            if isinstance(value, np.ndarray)
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    return meant(model, [t.double() if t.is_floating_point() else t for t in given.values()])[0]


IMAGE = torch.randn(1, 2, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("op", ["Upsample", "Resize"])
def test_images_were_made_larger_from_their_corner_before_opset_11(op: str, mode: str) -> None:
    scales = np.array([1, 1, 2, 3], dtype=np.float32)
    larger = one_node(op, {"x": IMAGE, "scales": scales}, opset=9 if op == "Upsample" else 10, mode=mode)
    rows, columns = torch.arange(10) / 2, torch.arange(21) / 3
    if mode == "nearest":
        wanted = IMAGE.double()[:, :, rows.long()][..., columns.long()]
    else:
        wanted = between(between(IMAGE.double(), 2, rows), 3, columns)
    torch.testing.assert_close(larger, wanted)


def between(image: Tensor, dim: int, places: Tensor) -> Tensor:
    """Linearly between the neighbours along a dimension; beyond the last it stays."""
    low = places.floor().long().clamp(max=image.shape[dim] - 1)
    high = (low + 1).clamp(max=image.shape[dim] - 1)
    share = (places - low).double().reshape([-1 if k == dim else 1 for k in range(image.dim())])
    return image.index_select(dim, low) * (1 - share) + image.index_select(dim, high) * share


def test_gelu_of_microsoft_is_gelu() -> None:
    x = torch.linspace(-4, 4, 41)
    torch.testing.assert_close(one_node("Gelu", {"x": x}, domain="com.microsoft"), F.gelu(x.double()))


def test_an_index_from_the_end_reads_the_end_of_a_table() -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows = one_node("Gather", {"table": table, "x": torch.tensor([[0, -1]])})
    assert rows.tolist() == [[[0, 1, 2], [9, 10, 11]]]


def test_a_power_is_in_the_dtype_of_its_base() -> None:
    whole = torch.tensor([1, 4, 9])
    assert one_node("Pow", {"x": whole, "half": np.array(0.5, dtype=np.float32)}).tolist() == [1, 2, 3]
    back = one_node("Pow", {"base": np.array(2.0, dtype=np.float32), "x": torch.tensor([0, 3])})
    assert back.dtype == torch.float64
    assert back.tolist() == [1, 8]


def test_sums_of_small_integers_stay_small() -> None:
    x = torch.tensor([[100, 100]], dtype=torch.int32)
    assert one_node("CumSum", {"x": x, "axis": np.array(1)}).dtype == torch.int32
    assert one_node("ReduceSum", {"x": x, "axes": np.array([1])}).dtype == torch.int32


def test_truth_values_meet_a_held_one() -> None:
    x = torch.tensor([True, False])
    for op, wanted in (("And", [True, False]), ("Or", [True, True]), ("Xor", [False, True])):
        assert one_node(op, {"x": x, "one": np.array(True)}).tolist() == wanted
        assert one_node(op, {"one": np.array(True), "x": x}).tolist() == wanted


def test_a_bound_may_be_computed_and_the_other_held() -> None:
    x = torch.tensor([-2.0, 0.5, 3.0])
    clipped = one_node("Clip", {"x": x, "low": torch.tensor(-1.0), "high": np.array(1, dtype=np.float32)})
    assert clipped.tolist() == [-1, 0.5, 1]


def test_a_softmax_went_over_all_that_follows_its_axis_before_opset_13() -> None:
    flat = one_node("Softmax", {"x": IMAGE}, opset=12, axis=1)
    torch.testing.assert_close(flat, IMAGE.double().flatten(1).softmax(1).reshape(IMAGE.shape))
    torch.testing.assert_close(one_node("Softmax", {"x": IMAGE}, opset=13, axis=1), IMAGE.double().softmax(1))


def test_a_reflection_as_wide_as_the_image_is_none_of_torchs() -> None:
    padded = one_node("Pad", {"x": IMAGE, "pads": np.array([0, 0, 0, 7, 0, 0, 0, 7])}, mode="reflect")
    wanted = np.pad(IMAGE.double().numpy(), [(0, 0), (0, 0), (0, 0), (7, 7)], mode="reflect")
    np.testing.assert_array_equal(padded.numpy(), wanted)


def test_zeros_stay_zeros_where_they_are_normalised() -> None:
    assert one_node("LpNormalization", {"x": torch.zeros(2, 3)}).abs().max() == 0


def test_a_rounded_decimal_is_the_decimal() -> None:
    x = torch.randn(8)
    scaled = one_node("Mul", {"x": x, "tenth": np.array(0.1, dtype=np.float32)})
    assert torch.equal(scaled, x.double() * 0.1)
    assert math.isclose(float(one_node("Elu", {"x": torch.tensor(-50.0)}, alpha=0.3)), -0.3, rel_tol=1e-15)
