"""Recording: which sites a forward pass has, what they are called and what they read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from tests.networks import images, network
from verifier.graph import Graph, record
from verifier.models.copying import copy_with, state_of


def test_a_recorded_model_keeps_no_hooks_also_where_it_fails() -> None:
    class Failing(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)  # type: ignore[no-untyped-call]
            raise ValueError("no water")

    model = Failing(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no water"):
        record(model, (torch.zeros(1, 2),), {})
    record(model[0], (torch.zeros(1, 2),), {})
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


def graph_of(model: nn.Module, *inputs: Any, **named: Any) -> Graph:
    copy = copy_with(model, state_of(model), lambda tensor: tensor, role="model")
    return record(copy, inputs or (images(),), named)


def names(graph: Graph) -> list[str]:
    return [site.name for site in graph.sites]


class Calling(nn.Module):
    """A model made of one function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        return self.function(*args)


@pytest.mark.filterwarnings("ignore:NOTE. The nodes obtained by tracing")
@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "densenet121", "vgg11_bn", "squeezenet1_0"])
def test_sites_are_named_as_torchvision_names_nodes(arch: str) -> None:
    with torch.device("cpu"):
        model = models.get_model(arch, weights=None).eval()
    expected = get_graph_node_names(model)[1][1:]  # without the input
    assert names(graph_of(model, torch.zeros(1, 3, 64, 64))) == expected


def test_resnet50_has_its_175_sites() -> None:
    graph = graph_of(models.resnet50().eval(), torch.zeros(1, 3, 64, 64))
    assert len(graph.comparable) == 175
    assert {site.op for site in graph.sites} == {
        "conv2d", "batch_norm", "relu", "max_pool2d", "add", "adaptive_avg_pool2d", "flatten", "linear"
    }  # fmt: skip


@pytest.mark.parametrize(
    "function",
    [
        torch.relu,
        F.relu,
        Tensor.relu,
        lambda x: F.relu(x, inplace=True),
        lambda x: x.clone().relu_(),
        lambda x: torch.relu_(x.clone()),
        nn.ReLU(),
        nn.ReLU(inplace=True),
    ],
)
def test_every_form_of_an_operator_has_one_name(function: Any) -> None:
    assert graph_of(Calling(function), torch.randn(3)).sites[-1].op == "relu"


def test_python_operators_are_sites() -> None:
    def f(x: Tensor) -> Tensor:
        y = x + 1
        y -= 2
        return 3 / (y * x)

    assert [site.op for site in graph_of(Calling(f), torch.randn(3)).sites] == ["add", "sub", "mul", "rdiv"]


def test_repeated_calls_of_a_module_are_numbered() -> None:
    assert names(graph_of(network()))[:7] == ["0", "1.conv1", "1.bn1", "1.relu", "1.conv2", "1.bn2", "1.add"]
    assert names(graph_of(network()))[7] == "1.relu_1"


def test_a_site_knows_its_parameters_and_hyperparameters() -> None:
    site = graph_of(network()).sites[2]
    assert [(use.role, use.name) for use in site.tensors] == [
        ("running_mean", "1.bn1.running_mean"),
        ("running_var", "1.bn1.running_var"),
        ("weight", "1.bn1.weight"),
        ("bias", "1.bn1.bias"),
    ]
    assert site.attributes["eps"] == 1e-5
    assert site.attributes["training"] is False


def test_none_and_the_default_it_stands_for_are_one_setting() -> None:
    class Padded(nn.Module):
        def __init__(self, value: float | None, stride: int | None) -> None:
            super().__init__()
            self.value, self.stride = value, stride

        def forward(self, x: Tensor) -> Tensor:
            return F.avg_pool2d(F.pad(x, (1, 1), value=self.value), 2, self.stride)

    spelt, left = (graph_of(Padded(*each)).sites for each in ((0.0, 2), (None, None)))
    assert [site.attributes for site in spelt] == [site.attributes for site in left]
    other = graph_of(Padded(1.0, 1)).sites
    assert all(one.attributes != two.attributes for one, two in zip(spelt, other, strict=True))


def test_edges_lead_to_what_was_read() -> None:
    graph = graph_of(network())
    by_name = {site.name: site for site in graph.sites}
    add = by_name["2.add"]
    assert {graph.sites[source].name for source in add.inputs} == {"2.bn2", "2.downsample.1"}
    assert graph.sites[0].inputs == (-1,)
    assert [graph.sites[end].name for end in graph.outputs] == ["6"]


def test_an_in_place_write_through_a_view_is_an_edge() -> None:
    def f(x: Tensor) -> Tensor:
        base = x * 2
        base[:1].add_(1)  # changes base without naming it
        return base.sum()

    graph = graph_of(Calling(f), torch.ones(3))
    total = graph.sites[-1]
    assert {graph.sites[source].op for source in total.inputs} == {"mul", "add"}
    assert all(site.live for site in graph.sites)


def test_setting_items_is_an_edge() -> None:
    def f(x: Tensor) -> Tensor:
        y = x.clone()
        y[0] = x.sum()
        return y * 2

    graph = graph_of(Calling(f), torch.ones(3))
    assert graph.sites[-1].op == "mul"
    assert all(site.live for site in graph.sites), [site.name for site in graph.sites if not site.live]


def test_what_no_output_depends_on_is_dead() -> None:
    def f(x: Tensor) -> Tensor:
        x.exp()
        return x.neg()

    assert [(site.op, site.live) for site in graph_of(Calling(f), torch.ones(2)).sites] == [
        ("exp", False),
        ("neg", True),
    ]


def test_dropout_in_eval_mode_is_an_identity_that_edges_pass_through() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 2)).eval()
    graph = graph_of(model, torch.ones(1, 3))
    assert [site.name for site in graph.comparable] == ["0", "2"]
    assert graph.sites[2].inputs == (0,)


def test_several_tensors_of_one_call_are_sites_of_their_own() -> None:
    graph = graph_of(Calling(lambda x: torch.cat(x.chunk(3)[::2])), torch.ones(6))
    assert names(graph) == ["chunk", "chunk[1]", "chunk[2]", "cat"]
    assert graph.sites[3].inputs == (0, 2)
    assert not graph.sites[1].live


def test_dict_and_dataclass_outputs_are_followed() -> None:
    graph = graph_of(Calling(lambda x: {"a": x + 1, "b": [x * 2]}), torch.ones(2))
    assert [graph.sites[end].op for end in graph.outputs] == ["add", "mul"]


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_an_opaque_module_is_one_site() -> None:
    inner = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    model = nn.Sequential(nn.Linear(3, 3), inner, nn.Linear(3, 1)).eval()
    ops = [site.op for site in graph_of(model, torch.ones(1, 3)).sites]
    assert ops == ["linear", "opaque:RecursiveScriptModule", "linear"]


def test_a_batch_norm_in_train_mode_reads_its_step_counter_off_the_path() -> None:
    graph = graph_of(nn.Sequential(nn.BatchNorm2d(3)).train(), images())
    assert [site.name for site in graph.comparable] == ["0"]
    assert graph.comparable[0].attributes["training"] is True


def test_the_model_given_is_not_touched() -> None:
    model = network().train()
    before = {name: tensor.clone() for name, tensor in state_of(model).items()}
    graph_of(model, images())
    assert all(torch.equal(before[name], tensor) for name, tensor in state_of(model).items())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert model.training


def test_a_view_of_a_parameter_is_known_to_share_its_memory() -> None:
    model = nn.Linear(3, 3, bias=False)
    graph = graph_of(Calling(lambda x: x @ model.weight.t()), torch.ones(1, 3))
    assert not graph.sites[0].aliases_state  # the weight is no parameter of the calling module

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.t()

    assert graph_of(Own(), torch.ones(1, 3)).sites[0].aliases_state


def test_memory_that_nobody_wrote_is_a_site_only_after_its_last_write() -> None:
    def filled(x: Tensor) -> Tensor:
        y = torch.empty(len(x), 4)
        y.narrow(1, 0, 2).copy_(x)
        y[:, 2:] = x * 2
        return y.sum(1)

    graph = graph_of(Calling(filled), torch.ones(3, 2))
    assert [site.name for site in graph.comparable] == ["mul", "setitem", "sum"]


def test_sites_of_a_traced_program_have_the_names_of_its_modules() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 2, 1))).eval()
    exported: Any = torch.export.export(model, (images(),))
    for program in (
        torch.fx.symbolic_trace(model),
        exported.module(),
        exported.run_decompositions().module(),
    ):
        assert [site.name for site in graph_of(program).comparable] == ["0", "1", "2.0"]
    unflattened = graph_of(torch.export.unflatten(exported))
    assert [site.scope for site in unflattened.comparable] == ["0", "1", "2.0"]


def test_a_traced_model_keeps_its_mode_where_it_is_copied() -> None:
    features = create_feature_extractor(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).eval(), {"1": "out"})
    (norm, _) = graph_of(features).comparable
    assert norm.attributes["training"] is False
