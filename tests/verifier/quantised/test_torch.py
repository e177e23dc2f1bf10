"""Graphs of PT2E and modules of torchao."""

from __future__ import annotations

import copy
import importlib
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, fx, nn

from tests.verifier.quantised.quantising import pictures, quiet, small
from verifier import UsageError, verify
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


QUANTIZER = "torchao.quantization.pt2e.quantizer.x86_inductor_quantizer"


def by_pt2e(model: nn.Module, x: Tensor, *, dynamic: bool = False, without: str = "") -> fx.GraphModule:
    """The model in eight bits, calibrated on `x`; a module is left in float."""
    steps: Any = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    x86: Any = importlib.import_module(QUANTIZER)
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_dynamic=dynamic))
    if without:
        quantizer.set_module_name_qconfig(without, None)
    with quiet():
        prepared = steps.prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
        prepared(x)
        return cast("fx.GraphModule", steps.convert_pt2e(prepared))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_a_graph_of_pt2e_is_nothing_but_quantised(dynamic: bool, tmp_path: Path) -> None:
    x = pictures()
    graph = by_pt2e(small(), x, dynamic=dynamic)
    torch.export.save(torch.export.export(graph, (x,)), tmp_path / "net.pt2")
    for candidate in (graph, str(tmp_path / "net.pt2")):
        found = verify(small(), candidate, x)
        assert found.quantisation is not None
        assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())
        assert {row.stage for row in found.culprits} == {"quantisation"}
        assert {"conv1", "conv2", "conv3", "fc1", "fc2"} <= {each.site for each in found.quantisation.layers}


def test_the_ranking_is_that_of_leaving_out_one_module_after_the_other() -> None:
    model, x = small(), pictures()
    found = verify(model, by_pt2e(model, x), x).quantisation
    assert found is not None
    with torch.no_grad():
        right = model(x)
        costs = {
            name: float((by_pt2e(model, x, without=name)(x) - right).square().mean())
            for name in ("conv1", "conv3", "fc1", "fc2")
        }
    saves = {each.name: each.saves for each in found.layers}
    assert spearmanr([-saves[name] for name in costs], [*costs.values()]).statistic >= 0.9


def test_the_kept_set_of_modules_meets_the_budget() -> None:
    model, x = small(), pictures()
    found = verify(model, by_pt2e(model, x), x, keep_float_budget="error=3%").quantisation
    assert found is not None
    assert found.kept is not None
    assert found.kept.met
    assert {*found.kept.layers} <= {name for name, _ in model.named_modules()}


def scaled(factor: float) -> Callable[[fx.GraphModule], None]:
    """The scales of a weight off by a factor."""

    def plant(graph: fx.GraphModule) -> None:
        graph.get_buffer("_scale_2").mul_(factor)

    return plant


def misread(graph: fx.GraphModule) -> None:
    """A tensor that is read with another scale than it was rounded with."""
    node = [
        each for each in graph.graph.nodes if "quantized_decomposed.dequantize_per_tensor" in str(each.target)
    ][2]
    node.update_arg(1, node.args[1] * 2)
    graph.recompile()


@pytest.mark.parametrize("plant", [scaled(2), scaled(0.5), misread], ids=["x2", "/2", "misread"])
def test_a_fault_in_a_graph_is_told(plant: Callable[[fx.GraphModule], None]) -> None:
    x = pictures()
    graph = by_pt2e(small(), x)
    plant(graph)
    first = verify(small(), graph, x).first_divergence
    assert first is not None
    assert first.stage == "translation"
    assert first.cause is not None
    assert first.cause.code == "quantiser-scale"


class Perceptron(nn.Module):
    """Three linear layers; (N, 64) to (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Features to class scores."""
        found: Tensor = self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))
        return found


def by_torchao(model: nn.Module, config: str) -> nn.Module:
    """The model after `quantize_`."""
    api: Any = importlib.import_module("torchao.quantization")
    other = copy.deepcopy(model)
    with quiet():
        api.quantize_(other, getattr(api, config)())
    return other


CONFIGS = ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"]


@pytest.fixture
def model() -> Perceptron:
    torch.manual_seed(0)
    return Perceptron().eval()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(8, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_module_of_torchao_is_nothing_but_quantised(
    config: str, model: Perceptron, features: Tensor
) -> None:
    candidate = by_torchao(model, config)
    before = {name: each.dequantize().clone() for name, each in packed(candidate)}
    found = verify(model, candidate, features, keep_float_budget="error=0.5%")
    assert found.quantisation is not None
    assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())
    assert [(row.baseline, row.stage) for row in found.culprits] == [
        (name, "quantisation") for name in ("fc1", "fc2", "fc3")
    ]
    assert found.quantisation.kept is not None
    assert found.quantisation.kept.met
    assert all(torch.equal(each.dequantize(), before[name]) for name, each in packed(candidate))


def packed(model: nn.Module) -> list[tuple[str, Any]]:
    """The quantised weights."""
    return [(name, each) for name, each in model.named_parameters() if hasattr(each, "qdata")]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_fault_in_a_module_is_told_at_its_layer(config: str, model: Perceptron, features: Tensor) -> None:
    candidate = by_torchao(model, config)
    dict(packed(candidate))["fc2.weight"].scale.mul_(2)
    first = verify(model, candidate, features).first_divergence
    assert first is not None
    assert (first.baseline, first.stage) == ("fc2", "translation")
    assert first.cause is not None
    assert first.cause.code == "quantiser-scale"


def test_the_weight_of_another_layer_is_told(model: Perceptron, features: Tensor) -> None:
    candidate: Any = by_torchao(model, CONFIGS[0])
    candidate.fc2.weight = candidate.fc1.weight
    first = verify(model, candidate, features).first_divergence
    assert first is not None
    assert (first.baseline, first.stage) == ("fc2", "translation")


def test_a_module_of_torchao_is_no_baseline(model: Perceptron, features: Tensor) -> None:
    with pytest.raises(UsageError, match="give it as the candidate"):
        verify(by_torchao(model, CONFIGS[0]), model, features)


def test_weights_in_groups_are_told_as_what_cannot_be_taken_apart(
    model: Perceptron, features: Tensor
) -> None:
    candidate: Any = by_torchao(model, CONFIGS[0])
    weight = candidate.fc2.weight
    weight.scale = weight.scale.repeat(1, 4)
    with pytest.raises(UsageError, match="one scale a row"):
        verify(model, candidate, features)
