"""ONNX models that compute with whole numbers: read as the same with quantisers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime import quantization

from tests.verifier.quantised.quantising import exported, pictures, quantised, quiet, small
from verifier import verify
from verifier.forms.onnx import runtime
from verifier.records import Verdict

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def floating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(small(), pictures(), tmp_path_factory.mktemp("float") / "net.onnx")


@pytest.fixture(scope="module", params=["static", "static, per channel", "dynamic"])
def file(request: pytest.FixtureRequest, floating: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("int8") / "net.onnx"
    if request.param == "dynamic":
        with quiet():
            quantization.quantize_dynamic(floating, to)
        return to
    return quantised(
        floating,
        to,
        pictures(32, seed=5),
        quant_format=quantization.QuantFormat.QOperator,
        per_channel="channel" in request.param,
    )


def test_nothing_but_quantisation_is_told(file: Path) -> None:
    found = verify(small(), str(file), pictures())
    assert found.quantisation is not None
    assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())
    assert {row.stage for row in found.culprits} == {"quantisation"}
    assert [stage.verdict for stage in found.stages] == [Verdict.MATCH]
    assert found.stages[0].error < 1e-6


def test_a_scale_that_is_off_is_told_at_its_site(file: Path) -> None:
    model = onnx.load(file)
    [scale] = [
        each
        for each in model.graph.initializer
        if each.name.endswith("_scale") and each.name.startswith("conv3.weight")
    ]
    scale.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(scale) * 2).astype(np.float32), scale.name))
    found = verify(small(), model, pictures())
    assert found.first_divergence is not None
    assert found.first_divergence.stage == "translation"
    told = next(row for row in found.culprits if row.stage == "translation")
    assert told.baseline == "conv3"
    assert told.cause is not None
    assert told.cause.code == "quantiser-scale"


@pytest.mark.parametrize("zero", [None, 3], ids=["none", "another"])
@pytest.mark.parametrize("layer", ["fc1", "fc2", "conv3"])
def test_a_product_with_another_zero_point_than_its_codes_have_is_told(
    zero: int | None, layer: str, floating: Path, tmp_path: Path
) -> None:
    with quiet():
        quantization.quantize_dynamic(floating, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    node = next(each for each in model.graph.node if "Integer" in each.op_type and layer in each.name)
    node.input[2] = "" if zero is None else "zero"
    if zero is not None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(zero, np.uint8), "zero"))
    found = verify(small(), model, pictures())
    told = [row for row in found.culprits if row.stage == "translation"]
    assert [row.cause and row.cause.code for row in told] == ["quantiser-zero-point"]
    assert found.first_divergence == told[0]
    assert found.quantisation is not None
    assert found.quantisation.undone is Verdict.MATCH
    [fault] = found.quantisation.faults
    assert fault.site == told[0].candidate
    assert layer in fault.layer


def test_a_model_with_whole_numbers_that_are_read_otherwise_is_compared_as_it_is() -> None:
    """No quantiser of it is left out, so that nothing is said to be quantisation."""
    codes = numpy_helper.from_array(np.arange(6, dtype=np.int8).reshape(2, 3), "w")
    shape = [helper.make_tensor_value_info(name, 1, [None, 2]) for name in "xy"]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("Cast", ["q"], ["c"], to=1),
        helper.make_node("Mul", ["c", "s"], ["y"]),
        helper.make_node("MatMulInteger", ["q", "w"], ["unread"]),
    ]
    graph = helper.make_graph(nodes, "odd", [shape[0]], [shape[1]], [codes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert runtime.of(model).quantised is None
