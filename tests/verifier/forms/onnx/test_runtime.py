"""An ONNX model stands in a model's place: compared node by node, and run at every level as it is shipped."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from verifier import verify
from verifier.errors import InputError
from verifier.forms.form import Form
from verifier.forms.onnx.program import OnnxProgram
from verifier.forms.onnx.runtime import Level, of
from verifier.records import Verdict

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.running_var = torch.rand(8) + 0.5
    return model


@pytest.fixture(scope="module", params=[True, False], ids=["dynamo", "torchscript"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    x = torch.randn(4, 3, 12, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own
        if request.param:
            batch = ({0: torch.export.Dim.DYNAMIC},)
            torch.onnx.export(network(), (x,), path, dynamo=True, verbose=False, dynamic_shapes=batch)
        else:
            axes = {"x": {0: "batch"}}
            torch.onnx.export(network(), (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
    return path


def test_what_was_exported_is_the_same_function_as_it_is_shipped(file: Path) -> None:
    found = verify(network(), str(file), torch.randn(4, 3, 12, 12))
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    assert (found.coverage.baseline_share, found.coverage.candidate_share) == (1.0, 1.0)
    assert [(each.name, each.verdict) for each in found.stages] == [("all", Verdict.MATCH)]
    assert found.weights.mode == "as-is"


def test_sites_have_the_names_of_the_modules_they_come_from(file: Path) -> None:
    names = {row.candidate for row in verify(network(), file, torch.randn(4, 3, 12, 12)).layers}
    assert {"2", "5", "8"} <= names


def test_a_node_that_was_changed_is_told_as_a_fault_of_the_translation(file: Path) -> None:
    model = onnx.load(file)
    [first, *_] = [node for node in model.graph.node if node.op_type == "Relu"]
    first.op_type = "LeakyRelu"
    found = verify(network(), model, torch.randn(4, 3, 12, 12))
    (culprit,) = found.culprits
    assert (culprit.baseline, culprit.stage) == ("2", "translation")
    assert culprit.cause is not None
    assert (culprit.cause.code, culprit.cause.status) == ("activation-different", "confirmed")


def test_a_level_that_changes_a_value_is_told_with_the_first(file: Path) -> None:
    model = onnx.load(file)
    shipped = copy.deepcopy(model)
    [*_, last] = [node for node in shipped.graph.node if node.op_type == "Relu"]
    last.op_type = "LeakyRelu"
    program = of(model).program
    assert isinstance(program, OnnxProgram)
    stages = Level("basic", model, program), Level("disable_all", shipped, program)
    found = verify(network(), Form("an ONNX model", program, stages), torch.randn(4, 3, 12, 12))
    assert found.verdict is Verdict.DIVERGED
    (culprit,) = found.culprits
    assert (culprit.stage, culprit.cause and culprit.cause.code) == ("fusion", "optimised-form")
    assert [(each.name, each.site) for each in found.stages] == [("basic", ""), ("disable_all", "5")]


def test_inputs_of_another_shape_than_the_file_says_are_told(file: Path) -> None:
    form = of(file)
    with pytest.raises(
        InputError, match=r"takes (x|input) of shape \(.*, 3, 12, 12\), and was given \(4, 3, 9, 9\)"
    ):
        form.stages[0].run((torch.randn(4, 3, 9, 9),), {})


def test_too_few_inputs_are_told(file: Path) -> None:
    with pytest.raises(InputError, match=r"takes 1 tensors? \((x|input)\), and was given 2"):
        of(file).stages[0].run((torch.randn(4, 3, 12, 12), torch.zeros(1)), {})


class Attending(nn.Module):
    """Attention behind norms whose gains are all 1: an exporter keeps one tensor for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.layers = nn.ModuleList(nn.Linear(8, 24) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, layer in zip(self.norms, self.layers, strict=True):
            q, k, v = layer(norm(x)).unsqueeze(1).chunk(3, dim=-1)
            x = x + nn.functional.scaled_dot_product_attention(q, k, v).squeeze(1)
        return x


def test_norms_that_share_their_gains_are_told_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Attending().eval(), torch.randn(2, 5, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(model, (x,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    changed = onnx.load(tmp_path / "net.onnx")
    _, second, _ = [node for node in changed.graph.node if node.op_type == "LayerNormalization"]
    [eps] = [each for each in second.attribute if each.name == "epsilon"]
    eps.f = 1e-3
    found = verify(model, changed, x)
    assert [(row.baseline, row.cause and row.cause.code) for row in found.culprits] == [
        ("norms.1", "layernorm-eps")
    ]


class Named(nn.Module):
    """Two results of one shape, by name."""

    def __init__(self, keys: tuple[str, str] = ("sum", "product")) -> None:
        super().__init__()
        self.keys = keys

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        made = {"sum": x + 3, "product": x * 2}
        return {key: made[key] for key in self.keys}


def by_file(names: tuple[str, str]) -> onnx.ModelProto:
    """The same with its outputs in another order, under some names."""
    helper = onnx.helper
    kind = onnx.TensorProto.FLOAT
    constants = [
        onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name)
        for name, value in (("two", 2), ("three", 3))
    ]
    nodes = [
        helper.make_node("Mul", ["x", "two"], [names[0]]),
        helper.make_node("Add", ["x", "three"], [names[1]]),
    ]
    outputs = [helper.make_tensor_value_info(name, kind, [2, 3]) for name in names]
    inputs = [helper.make_tensor_value_info("x", kind, [2, 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_outputs_are_paired_by_the_names_in_the_file() -> None:
    x = torch.randn(2, 3)
    file = by_file(("product", "sum"))
    for one, other in ((Named(), file), (file, Named())):
        found = verify(one, other, x)
        assert (found.verdict, found.reason, found.notes) == (Verdict.MATCH, "", ())
    assert verify(by_file(("product", "sum")), file, x).verdict is Verdict.MATCH


def test_outputs_of_other_names_are_taken_in_their_order_and_told() -> None:
    x = torch.randn(2, 3)
    found = verify(Named(("product", "sum")), by_file(("one", "two_")), x)
    assert found.verdict is Verdict.MATCH
    assert found.notes == ("outputs are compared in their order: product = one, sum = two_",)
    assert verify(Named(), by_file(("one", "two_")), x).verdict is Verdict.DIVERGED


def test_an_output_under_a_wrong_name_is_found() -> None:
    assert verify(Named(), by_file(("sum", "product")), torch.randn(2, 3)).verdict is Verdict.DIVERGED


def test_numbers_that_an_exporter_calls_outputs_by_are_no_names() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x * 2, x + 3

    assert verify(Both(), by_file(("1", "0")), torch.randn(2, 3)).verdict is Verdict.MATCH
