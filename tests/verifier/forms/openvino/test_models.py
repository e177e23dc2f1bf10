"""OpenVINO models are compared node by node and as they are compiled; what conversion or editing broke is found."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from tests.verifier.forms.nets import DIVERGED, MATCH, NETS, given, net
from verifier import verify
from verifier.errors import CannotRunError, SourceError, UsageError
from verifier.forms.loading import of_file
from verifier.forms.openvino.runtime import SHIPPED, SINGLE, Compiled, of
from verifier.graph.recording import record
from verifier.graph.widening import Widening, default_dtype

if TYPE_CHECKING:
    from pathlib import Path

    from verifier import Verification

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


@cache
def _converted(kind: str) -> Any:
    return openvino.convert_model(net(kind), example_input=given(kind))


def converted(kind: str) -> Any:
    """A network of one kind, converted; nobody else has the model."""
    return _converted(kind).clone()


def node(model: Any, what: str) -> Any:
    """The only node of an operator, or of a name."""
    (found,) = (
        each for each in model.get_ordered_ops() if what in (each.get_type_name(), each.get_friendly_name())
    )
    return found


def first(found: Verification) -> tuple[str | None, str, str]:
    """The site of the first culprit, its stage and the code of its cause."""
    row = found.culprits[0]
    return row.baseline, row.stage, row.cause.code if row.cause else ""


@pytest.mark.parametrize("kind", NETS)
def test_a_converted_model_matches(kind: str) -> None:
    found = verify(net(kind), converted(kind), given(kind))
    assert found.verdict is MATCH
    assert found.coverage.baseline_share == 1
    assert [(stage.name, stage.verdict) for stage in found.stages] == [(SINGLE, MATCH), (SHIPPED, MATCH)]


@pytest.mark.parametrize("kind", NETS)
def test_the_program_is_the_model_that_is_run(kind: str) -> None:
    form = of(converted(kind))
    x = given(kind)
    args = (x,)
    torch.testing.assert_close(form.program(x), form.stages[0].run(args, {}), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_it_is_as_precise_in_float64_as_the_model(kind: str) -> None:
    model, x = net(kind), given(kind)
    wide = x.double() if x.is_floating_point() else x
    with torch.no_grad(), Widening(), default_dtype(torch.float64):
        exact = copy.deepcopy(model).double()(wide)
        torch.testing.assert_close(of(converted(kind)).program.double()(wide), exact, rtol=0, atol=1e-14)


def test_operators_have_the_names_and_places_that_they_have_in_torch() -> None:
    graph = record(of(converted("cnn")).program, (given("cnn"),), {})
    assert [site.name for site in graph.comparable] == [
        "bn1", "relu", "pool", "conv2", "act", "add", "mean", "reshape", "fc",
    ]  # fmt: skip
    sites = {site.name: site for site in graph.sites}
    assert [sites[name].op for name in ("bn1", "conv2", "act", "fc")] == [
        "conv2d",
        "conv2d",
        "hardswish",
        "linear",
    ]
    assert sites["conv2"].attributes["groups"] == 4
    assert [use.shape for use in sites["conv2"].tensors] == [(8, 2, 3, 3), (8,)]
    source = sites["add"].source
    assert source is not None
    assert (source.file, source.function) == ("model.xml", "aten::add/Add")


def test_a_norm_is_one_with_its_gain_and_shift() -> None:
    graph = record(of(converted("mlp")).program, (given("mlp"),), {})
    (norm,) = (site for site in graph.sites if site.op == "layer_norm")
    assert [use.shape for use in norm.tensors] == [(32,), (32,)]


def test_recurrent_layers_are_judged_by_single_precision() -> None:
    found = verify(net("lstm"), converted("lstm"), given("lstm"))
    exact = found.cells[0]
    assert exact.role == "semantics"
    assert {row.budget.rule for row in exact.layers if row.budget is not None} == {
        "narrowed/float32",
        "behind narrowed/float32",
    }


class Stacked(nn.Module):
    """Two recurrent layers that read their steps in both directions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.LSTM(8, 12, num_layers=2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, T, 8) to (N, T, 3)."""
        found: torch.Tensor = self.fc(self.rnn(x)[0])
        return found


def test_directions_beside_each_other_are_laid_out_as_their_numbers_say() -> None:
    # Such kernels are made for one size. What one keeps in single precision agrees in one layout all the same.
    x = given("lstm")
    found = verify(Stacked().eval(), openvino.convert_model(Stacked().eval(), example_input=x), x)
    assert found.verdict is MATCH
    assert any(row.op == "lstm" and row.layout.startswith("permute(0, 2, 1, 3)") for row in found.layers)
    model = openvino.convert_model(Stacked().eval(), example_input=x)
    last = next(
        each for each in model.get_ordered_ops() if each.get_friendly_name().endswith("LSTMSequence_1")
    )
    weight = last.input_value(5).get_node().data.copy()
    weight[0, 3] *= 1.05
    last.set_argument(5, opset13.constant(weight).output(0))
    assert [row.baseline for row in verify(Stacked().eval(), model, x).culprits] == ["rnn"]


class Frozen(nn.Module):
    """A convolution and a norm that is written as a product and a sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = FrozenBatchNorm2d(8)
        for name, buffer in self.norm.named_buffers():
            buffer.uniform_(*((0.5, 2.0) if "var" in name else (-0.5, 0.5)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 8, H - 2, W - 2)."""
        return torch.relu(self.norm(self.conv(x)))


def test_a_norm_written_by_hand_is_told_as_folded() -> None:
    model = openvino.convert_model(Frozen().eval(), example_input=given("cnn"))
    found = verify(Frozen().eval(), model, given("cnn"))
    assert found.verdict is MATCH
    (folded,) = (row for row in found.layers if row.baseline == "norm.add_1")
    assert folded.candidate_op == "conv2d"
    product = node(model, "Convolution")
    weight = product.input_value(1).get_node().data.copy()
    weight[1] *= 1.1
    product.set_argument(1, opset13.constant(weight).output(0))
    found = verify(Frozen().eval(), model, given("cnn"))
    assert (found.verdict, first(found)[1]) == (DIVERGED, "translation")


def test_a_weight_that_was_edited_is_found() -> None:
    model = converted("cnn")
    product = node(model, "GroupConvolution")
    weight = product.input_value(1).get_node().data.copy()
    weight[1] *= 1.1
    product.set_argument(1, opset13.constant(weight).output(0))
    found = verify(net("cnn"), model, given("cnn"))
    assert found.verdict is DIVERGED
    assert first(found)[:2] == ("conv2", "translation")


def test_a_setting_that_was_changed_is_found() -> None:
    model = converted("attention")
    node(model, "MVN").set_attribute("eps", 0.01)
    found = verify(net("attention"), model, given("attention"))
    assert first(found) == ("norm", "translation", "layernorm-eps")


def test_an_operator_in_the_place_of_another_is_found() -> None:
    model = converted("cnn")
    old = node(model, "HSwish")
    new = opset13.swish(old.input_value(0))
    for reader in old.output(0).get_target_inputs():
        reader.replace_source_output(new.output(0))
    assert first(verify(net("cnn"), model, given("cnn"))) == ("act", "translation", "activation-different")


def test_an_edge_that_leads_elsewhere_is_found() -> None:
    model = converted("cnn")
    node(model, "aten::add/Add").set_argument(0, node(model, "HSwish").output(0))
    assert first(verify(net("cnn"), model, given("cnn"))) == ("add", "translation", "wiring-different")


def test_a_stage_that_gives_other_numbers_is_found_at_its_first_node() -> None:
    form = of(converted("cnn"))
    other = converted("cnn")
    for name, value in (("kernel", [4, 4]), ("pads_begin", [1, 1]), ("pads_end", [1, 1])):
        node(other, "MaxPool").set_attribute(name, value)
    other.validate_nodes_and_infer_types()
    program: Any = form.program
    broken = replace(form, stages=(Compiled(SINGLE, other, program, {"INFERENCE_PRECISION_HINT": "f32"}),))
    found = verify(net("cnn"), broken, given("cnn"))
    assert found.verdict is DIVERGED
    (stage,) = found.stages
    assert (stage.verdict, stage.site, stage.operator) == (DIVERGED, "pool", "MaxPool")
    assert first(found)[1] == "fusion"


def test_what_it_computes_in_as_shipped_is_told() -> None:
    form = of(converted("mlp"))
    shipped = form.stages[-1]
    assert isinstance(shipped, Compiled)
    hint = shipped.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if hint == "f32":
        assert (form.notes, form.lowered) == ((), {})
    else:
        assert form.lowered == {SHIPPED: {"bf16": "bfloat16", "f16": "float16"}[hint]}
        assert form.lowered[SHIPPED] in form.notes[0]


def test_kernels_are_told_with_what_they_make_and_compute_in() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 4)).eval()
    x = torch.randn(2, 3, 8, 8)
    single, shipped = verify(model, openvino.convert_model(model, example_input=x), x).stages
    assert [(kernel.operator, kernel.sites) for kernel in single.kernels] == [
        ("Convolution", ("0", "1")),
        ("Reshape", ("2",)),
        ("FullyConnected", ("3",)),
    ]
    assert {kernel.dtype for kernel in single.kernels} == {"float32"}
    hint = of(openvino.convert_model(model, example_input=x)).stages[-1]
    assert isinstance(hint, Compiled)
    assert {kernel.dtype for kernel in shipped.kernels} == {hint.dtype}


def test_weights_kept_in_half_precision_are_told_as_rounded(tmp_path: Path) -> None:
    openvino.save_model(converted("cnn"), tmp_path / "net.xml")  # which compresses unless told otherwise
    found = verify(net("cnn"), str(tmp_path / "net.xml"), given("cnn"))
    assert found.verdict is DIVERGED
    assert {row.cause.code for row in found.culprits if row.cause} == {"weight-rounded"}
    openvino.save_model(converted("cnn"), tmp_path / "whole.xml", compress_to_fp16=False)
    assert verify(net("cnn"), str(tmp_path / "whole.xml"), given("cnn")).verdict is MATCH


class Looping(nn.Module):
    """A loop whose end depends on a number that is given."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, turns: int) -> torch.Tensor:
        for _ in range(turns):
            x = torch.tanh(self.fc(x))
        return x


def test_a_loop_is_one_step() -> None:
    torch.manual_seed(0)
    model = Looping().eval()
    other = openvino.convert_model(
        torch.jit.script(model), example_input=(torch.randn(3, 4), torch.tensor(3))
    )
    form = of(other)
    assert "Loop" in {step.node.op for step, *_ in form.program.plan.steps}  # type: ignore[union-attr]
    x = torch.randn(3, 4)
    torch.testing.assert_close(form.program(x, torch.tensor(3)), model(x, 3), rtol=1e-5, atol=1e-6)


def test_weights_that_are_computed_of_constants_are_one_constant() -> None:
    x = opset13.parameter([-1, 4], np.float32, name="x")
    kept = opset13.constant(np.arange(-8, 8, dtype=np.int8).reshape(4, 4))
    weight = opset13.multiply(opset13.convert(kept, "f32"), np.full((4, 1), 0.25, dtype=np.float32))
    model = openvino.Model([opset13.matmul(x, weight, False, True)], [x], "one")
    program = of(model).program
    (learnt,) = program.parameters()
    assert torch.equal(learnt, torch.arange(-8.0, 8).reshape(4, 4) * 0.25)
    given_x = torch.randn(3, 4)
    torch.testing.assert_close(program(given_x), given_x @ learnt.T)


def test_a_model_that_keeps_state_is_told() -> None:
    x = opset13.parameter([1, 4], np.float32, name="x")
    read = opset13.read_value(x, "kept", np.float32, [1, 4])
    kept = opset13.assign(read, "kept")
    model = openvino.Model(results=[opset13.result(read)], sinks=[kept], parameters=[x], name="one")
    with pytest.raises(SourceError, match="keeps state from call to call"):
        of(model)


def test_a_compiled_model_is_told() -> None:
    compiled = openvino.Core().compile_model(converted("mlp"), "CPU")
    with pytest.raises(UsageError, match=r"give the openvino\.Model that it was compiled from"):
        verify(net("mlp"), compiled, given("mlp"))


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "net.xml").write_text("<net/>")
    with pytest.raises(SourceError, match="cannot be read as an OpenVINO model"):
        of_file(str(tmp_path / "net.xml"))


def test_weights_that_are_missing_or_cut_are_told_in_the_runtimes_words(tmp_path: Path) -> None:
    openvino.save_model(converted("mlp"), tmp_path / "net.xml", compress_to_fp16=False)
    weights = (tmp_path / "net.bin").read_bytes()
    (tmp_path / "net.bin").write_bytes(weights[:8])
    with pytest.raises(SourceError, match="RuntimeError: Incorrect weights in bin file!"):
        of_file(str(tmp_path / "net.xml"))
    (tmp_path / "net.bin").unlink()
    with pytest.raises(SourceError, match="Empty weights data in bin file or bin file cannot be found!"):
        of_file(str(tmp_path / "net.xml"))


def test_what_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.xml").write_text("<net/>")
    for name in [each for each in sys.modules if each.startswith("verifier.forms.openvino")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(CannotRunError, match=r'pip install "\.\[openvino\]" in the checkout'):
        of_file(str(tmp_path / "net.xml"))


class Named(nn.Module):
    """Two results of one shape, by name."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": x + 3, "product": x * 2}


def test_outputs_are_paired_by_the_names_in_the_file() -> None:
    x = torch.randn(2, 3)
    given = opset13.parameter([2, 3], np.float32, name="x")
    parts = opset13.multiply(given, np.float32(2)), opset13.add(given, np.float32(3))
    for part, name in zip(parts, ("product", "sum"), strict=True):
        part.output(0).set_names({name})
    found = verify(Named(), openvino.Model([*parts], [given], "named"), x)
    assert (found.verdict, found.coverage.returned) == (MATCH, ())
