"""Nodes that compute with shapes alone are asked once for each shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from verifier.forms.onnx.plan import Plan
from verifier.forms.onnx.program import OnnxProgram

if TYPE_CHECKING:
    import pytest


def flattening() -> onnx.ModelProto:
    """(N, 2, 3) to (N, 6), the shape of which is computed of the input's."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["y"]),
    ]
    held = [
        numpy_helper.from_array(np.array([0]), "first"),
        numpy_helper.from_array(np.array([-1]), "rest"),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 3])
    made = helper.make_graph(nodes, "graph", [given], [onnx.ValueInfoProto(name="y")], held)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_follows_from_a_shape_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noted(model: onnx.ModelProto) -> object:
        asked.append(model.graph.node[0].op_type)
        return ReferenceEvaluator(model)

    monkeypatch.setattr("verifier.forms.onnx.steps.ReferenceEvaluator", noted)
    program = OnnxProgram(Plan(flattening(), "model.onnx"))
    for batch in (1, 4, 1, 4):
        assert program(torch.zeros(batch, 2, 3)).shape == (batch, 6)
    assert sorted(asked) == ["Concat", "Concat", "Gather", "Gather"]
