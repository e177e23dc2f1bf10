"""Alignment: the right sites are paired, whatever the candidate is called and in whatever order it runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

import reference_models
from tests.networks import Block, Rewritten, images, network
from tests.sweeps import swept
from tests.verifier.graph.test_recording import graph_of
from verifier.align import Alignment, align

TEN = [
    name for name in reference_models.list() if reference_models.get(name).baseline == f"torchvision:{name}"
]


def names(alignment: Alignment) -> dict[str, str]:
    b, c = alignment.baseline.sites, alignment.candidate.sites
    return {b[pair.baseline].name: c[pair.candidate].name for pair in alignment.pairs}


def mapped(alignment: Alignment) -> dict[str, str | tuple[str, ...]]:
    return {name: recipe.text for name, recipe in alignment.parameters.items()}


def alone(alignment: Alignment) -> set[tuple[str, str]]:
    sites = {"baseline": alignment.baseline.sites, "candidate": alignment.candidate.sites}
    return {(u.side, sites[u.side][u.site].name) for u in alignment.unmatched}


def on_meta(model: nn.Module) -> nn.Module:
    return model.eval().to("meta")


@pytest.mark.parametrize("arch", swept(TEN, ["resnet18", "resnet50", "resnext50_32x4d"]))
def test_our_resnets_pair_with_torchvisions_completely(arch: str) -> None:
    x = torch.empty(1, 3, 64, 64, device="meta")
    with torch.device("meta"):
        ours, theirs = reference_models.get(arch)().eval(), models.get_model(arch, weights=None).eval()
    alignment = align(graph_of(theirs, x), graph_of(ours, x))
    assert not alignment.unmatched
    assert len(alignment.pairs) == len(alignment.baseline.sites)
    assert set(alignment.parameters) == set(ours.state_dict())
    assert sorted(mapped(alignment).values()) == sorted(theirs.state_dict())
    for ours_name, theirs_name in mapped(alignment).items():
        assert ours.state_dict()[ours_name].shape == theirs.state_dict()[theirs_name].shape


def test_other_names_other_order_and_swapped_operands_do_not_matter() -> None:
    alignment = align(graph_of(network()), graph_of(network(Rewritten)))
    assert not alignment.unmatched
    paired = names(alignment)
    assert paired["2.conv1"] == "2.first"
    assert paired["2.bn2"] == "2.norms.b"
    assert paired["2.downsample.0"] == "2.skip.0"
    assert mapped(alignment)["2.norms.a.running_var"] == "2.bn1.running_var"
    assert mapped(alignment)["3.second.weight"] == "3.conv2.weight"
    assert len(alignment.parameters) == len(network().state_dict())


class WithoutFirstReLU(Block):
    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        out += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out)
        return result


class ReLUBeforeAdd(Block):
    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out += x if self.downsample is None else self.downsample(x)
        result: Tensor = out
        return result


@pytest.mark.parametrize("blocks", [{1}, {2}, {3}, {1, 3}, {1, 2, 3}])
def test_a_missing_activation_is_the_only_site_left_alone(blocks: set[int]) -> None:
    broken = network()
    for k in blocks:
        broken[k].__class__ = WithoutFirstReLU
    assert alone(align(graph_of(network()), graph_of(broken))) == {("baseline", f"{k}.relu") for k in blocks}


@pytest.mark.parametrize("blocks", [{1}, {3}, {1, 2}])
def test_a_moved_activation_is_alone_on_both_sides_and_the_add_is_paired(blocks: set[int]) -> None:
    broken = network()
    for k in blocks:
        broken[k].__class__ = ReLUBeforeAdd
    alignment = align(graph_of(network()), graph_of(broken))
    assert alone(alignment) == {(side, f"{k}.relu_1") for k in blocks for side in ("baseline", "candidate")}
    assert all(names(alignment)[f"{k}.add"] == f"{k}.add" for k in blocks)


def test_an_operator_in_place_of_another_is_paired_with_it() -> None:
    broken = network()
    broken[1].relu = nn.GELU()
    alignment = align(graph_of(network()), graph_of(broken))
    assert not alignment.unmatched
    assert names(alignment)["1.relu"] == "1.relu"


class Clamped(nn.Module):
    """Two clamps, or one of them and a minimum in the place of the other."""

    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.up, self.both = nn.Linear(4, 8), both

    def forward(self, x: Tensor) -> Any:
        """(N, 4) to the same shape."""
        gate, value = self.up(x).chunk(2, -1)
        gate = gate.clamp(max=0.7) if self.both else gate.minimum(gate.new_tensor(0.7))
        return gate * value.clamp(-0.7, 0.7)


def test_of_operators_of_one_kind_those_of_equal_settings_are_paired() -> None:
    x = torch.randn(2, 4)
    alignment = align(graph_of(Clamped(both=True), x), graph_of(Clamped(both=False), x))
    assert names(alignment)["clamp_1"] == "clamp"


def test_what_depends_on_the_inputs_is_not_paired_with_a_table() -> None:
    x = torch.randn(2, 4)

    class Sliced(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x[:, :2].sum(-1)

    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return (x * (torch.arange(4) < 2)[None]).sum(-1)

    assert "getitem" not in names(align(graph_of(Masked(), x), graph_of(Sliced(), x)))


def test_stride_on_the_other_convolution_leaves_all_sites_paired() -> None:
    x = torch.empty(1, 3, 64, 64, device="meta")
    theirs, ours = on_meta(models.resnet50()), on_meta(reference_models.get("resnet50_v1")())
    alignment = align(graph_of(theirs, x), graph_of(ours, x))
    assert not alignment.unmatched
    assert names(alignment)["layer2.0.conv1"] == "stages.1.0.reduce.conv"


def test_a_model_without_parameters_aligns() -> None:
    pool = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())
    alignment = align(graph_of(pool), graph_of(pool))
    assert len(alignment.pairs) == 3
    assert alignment.parameters == {}


def test_models_that_share_nothing_are_not_paired() -> None:
    alignment = align(
        graph_of(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), images()),
        graph_of(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Softmax(1)).eval(), images()),
    )
    assert alignment.pairs == ()
    assert len(alignment.unmatched) == 5


def test_shared_parameters_map_to_shared_parameters() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))  # type: ignore[no-any-return]

    alignment = align(graph_of(Tied(), torch.ones(1, 3)), graph_of(Tied(), torch.ones(1, 3)))
    assert mapped(alignment) == {"layer.weight": "layer.weight", "layer.bias": "layer.bias"}


class Random(nn.Module):
    """A random residual network: widths, branches, shortcuts and operators drawn."""

    def __init__(self, plan: list[tuple[int, bool, bool]], order: list[int], *, swap: bool) -> None:
        super().__init__()
        self.plan, self.swap = plan, swap
        made: dict[int, nn.Module] = {}
        for k in order:  # definition order differs between the two
            kernel, _, _ = plan[k]
            made[k] = nn.Sequential(nn.Conv2d(3, 3, kernel, padding=kernel // 2), nn.BatchNorm2d(3))
        self.parts = nn.ModuleDict({f"p{order.index(k)}": made[k] for k in order})
        self.key = {k: f"p{order.index(k)}" for k in range(len(plan))}

    def forward(self, x: Tensor) -> Tensor:
        for k, (_, residual, relu) in enumerate(self.plan):
            y = self.parts[self.key[k]](x)
            if residual:
                y = x + y if self.swap else y + x
            x = torch.relu(y) if relu else y
        return x


@given(
    plan=st.lists(st.tuples(st.sampled_from([1, 3]), st.booleans(), st.booleans()), min_size=1, max_size=8),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_a_renamed_and_reordered_rewrite_aligns_perfectly(
    plan: list[tuple[int, bool, bool]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(plan))))
    a = Random(plan, list(range(len(plan))), swap=False).eval()
    b = Random(plan, order, swap=True).eval()
    alignment = align(graph_of(a), graph_of(b))
    assert not alignment.unmatched
    for k in range(len(plan)):
        assert mapped(alignment)[f"parts.{b.key[k]}.0.weight"] == f"parts.{a.key[k]}.0.weight"


class Nested(nn.Module):
    """The network of `Random`, its parts grouped in containers of drawn sizes; each part in one of three forms.

    A form is the module itself, its functional operators, or other operators: a linear layer over the channels for
    a 1x1 convolution, and the method or the function for the activation.
    """

    def __init__(
        self, plan: list[tuple[int, bool, bool]], groups: list[int], forms: list[str], order: list[int]
    ) -> None:
        super().__init__()
        self.plan, self.forms = plan, forms
        made: dict[int, nn.Module] = {}
        for k in order:  # definition order differs between the two
            kernel, _, _ = plan[k]
            mixes: nn.Module = nn.Conv2d(3, 3, kernel, padding=kernel // 2)
            if kernel == 1 and forms[k] == "other":
                mixes = nn.Linear(3, 3)
            made[k] = nn.ModuleDict({"norm": nn.BatchNorm2d(3), "mixes": mixes})
        self.home: dict[int, str] = {}
        self.parts = nn.ModuleDict()
        for k in order:
            group = f"g{groups[k]}"
            if group not in self.parts:
                self.parts[group] = nn.ModuleDict({"inner": nn.ModuleDict()})
            self.parts.get_submodule(f"{group}.inner").add_module(f"p{k}", made[k])
            self.home[k] = f"parts.{group}.inner.p{k}"

    def forward(self, x: Tensor) -> Tensor:
        for k, (_, residual, relu) in enumerate(self.plan):
            mixes: Any = self.get_submodule(f"{self.home[k]}.mixes")
            norm: Any = self.get_submodule(f"{self.home[k]}.norm")
            form = self.forms[k]
            if isinstance(mixes, nn.Linear):
                y = mixes(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            elif form == "functional":
                y = F.conv2d(x, mixes.weight, mixes.bias, padding=mixes.padding)
            else:
                y = mixes(x)
            if form == "functional":
                y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)
            else:
                y = norm(y)
            if residual:
                y = x.add(y) if form == "module" else y + x
            if relu:
                y = {"module": torch.relu, "functional": F.relu, "other": Tensor.relu}[form](y)
            x = y
        return x


@given(
    plan=st.lists(st.tuples(st.sampled_from([1, 3]), st.booleans(), st.booleans()), min_size=1, max_size=8),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_a_regrouped_rewrite_in_other_operators_maps_every_tensor_perfectly(
    plan: list[tuple[int, bool, bool]], data: st.DataObject
) -> None:
    def drawn() -> Nested:
        groups = data.draw(st.lists(st.integers(0, 2), min_size=len(plan), max_size=len(plan)))
        form = st.sampled_from(["module", "functional", "other"])
        forms = data.draw(st.lists(form, min_size=len(plan), max_size=len(plan)))
        model: Nested = Nested(plan, groups, forms, data.draw(st.permutations(range(len(plan))))).eval()
        return model

    one, other = drawn(), drawn()
    alignment = align(graph_of(one), graph_of(other))
    expected = {
        f"{other.home[k]}.{leaf}": f"{one.home[k]}.{leaf}"
        for k in range(len(plan))
        for leaf in (
            "mixes.weight",
            "mixes.bias",
            "norm.weight",
            "norm.bias",
            "norm.running_mean",
            "norm.running_var",
            "norm.num_batches_tracked",
        )
    }
    assert mapped(alignment) == expected


def test_a_thousand_layers_align_quickly_even_between_two_faults() -> None:
    class Deep(nn.Module):
        def __init__(self, missing: set[int]) -> None:
            super().__init__()
            self.missing = missing
            self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(1000))

        def forward(self, x: Tensor) -> Tensor:
            for k, layer in enumerate(self.layers):
                x = layer(x)
                if k not in self.missing:
                    x = torch.relu(x)
            return x

    alignment = align(
        graph_of(Deep(set()), torch.ones(1, 2)), graph_of(Deep({3, 500, 990}), torch.ones(1, 2))
    )
    assert alone(alignment) == {("baseline", "relu_3"), ("baseline", "relu_500"), ("baseline", "relu_990")}


def test_two_norms_that_lead_to_one_addition_are_told_apart_though_their_values_are_equal() -> None:
    from verifier.graph import record
    from verifier.models.copying import state_of
    from verifier.weights import fingerprints

    torch.manual_seed(0)
    ours, theirs = Block(4, project=True).eval(), Rewritten(4, project=True).eval()
    image = torch.randn(2, 4, 8, 8)
    graphs = record(ours, (image.clone(),), {}), record(theirs, (image.clone(),), {})
    found = align(*graphs, (fingerprints(state_of(ours)), fingerprints(state_of(theirs))))
    names = {graphs[0].sites[b].name: graphs[1].sites[c].name for b, c in found.pairs}
    assert (names["bn2"], names["downsample.1"]) == ("norms.b", "skip.1")
