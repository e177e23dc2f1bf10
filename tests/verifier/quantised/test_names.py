"""Codes of ONNX models, however they are kept and by however many nodes they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper
from torch import Tensor, nn

from tests.verifier.quantised.quantising import Planting, drawn, exported, pictures, quantised, small
from verifier import verify
from verifier.records import Verdict

if TYPE_CHECKING:
    from pathlib import Path


class Tied(nn.Module):
    """A convolution that is used twice; (N, 3, 16, 16) to (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to class scores."""
        found: Tensor = self.head(self.conv(self.conv(x).relu()).relu().mean((2, 3)))
        return found


def test_constants_that_share_the_name_of_what_they_hold_are_told_apart(tmp_path: Path) -> None:
    x = pictures()
    net = Planting(quantised(exported(small(), x, tmp_path / "float.onnx"), tmp_path / "net.onnx", x))
    codes = {node.input[0] for node in net.graph.node if node.op_type == "DequantizeLinear"}
    moved = [each for each in net.graph.initializer if each.name in codes and len(each.dims) > 1]
    for each in moved:
        value = onnx.TensorProto()
        value.CopyFrom(each)
        value.name = "value"
        net.graph.node.insert(0, helper.make_node("Constant", [], [each.name], value=value))
        net.graph.initializer.remove(each)
    assert len(moved) > 1
    found = verify(small(), net.model, x)
    assert found.quantisation is not None
    assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())


def test_codes_that_two_nodes_read_are_one_weight(tmp_path: Path) -> None:
    model, x = drawn(Tied()), pictures()
    net = Planting(quantised(exported(model, x, tmp_path / "float.onnx"), tmp_path / "net.onnx", x))
    last = [node for node in net.graph.node if node.op_type == "Conv"][-1]
    again = onnx.NodeProto()
    again.CopyFrom(net.maker(last.input[1]))
    again.name, again.output[0] = "again", "again"
    net.graph.node.insert(0, again)
    last.input[1] = "again"
    found = verify(model, net.model, x)
    assert found.quantisation is not None
    assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())
