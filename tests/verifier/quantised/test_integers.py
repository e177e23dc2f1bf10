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
