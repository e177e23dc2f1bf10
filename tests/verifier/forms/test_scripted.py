"""TorchScript modules are compared node by node, however they were made; what only they can run is told."""

from __future__ import annotations

import copy
import io
import types
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from tests.verifier.forms.nets import DIVERGED, MATCH, NETS, ConvNet, given, net
from verifier import verify
from verifier.errors import InputError, ModelError, SourceError
from verifier.forms.scripted.module import Warm, of, read
from verifier.forms.scripted.program import ScriptProgram
from verifier.graph.recording import record
from verifier.graph.widening import Widening, default_dtype

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verifier import Verification

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def scripted(model: nn.Module, _: Tensor) -> Any:
    return torch.jit.script(model)


def traced(model: nn.Module, x: Tensor) -> Any:
    return torch.jit.trace(model, x)  # type: ignore[no-untyped-call]


def saved(model: nn.Module, x: Tensor) -> Any:
    file = io.BytesIO()
    torch.jit.save(traced(model, x), file)
    file.seek(0)
    return torch.jit.load(file)  # type: ignore[no-untyped-call]


def frozen(model: nn.Module, _: Tensor) -> Any:
    return torch.jit.freeze(torch.jit.script(model))


def optimised(model: nn.Module, _: Tensor) -> Any:
    return torch.jit.optimize_for_inference(torch.jit.script(model))


WAYS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    each.__name__: each for each in (scripted, traced, saved, frozen, optimised)
}


def first(found: Verification) -> tuple[str | None, str, str]:
    """The site of the first culprit, its stage and the code of its cause."""
    row = found.culprits[0]
    return row.baseline, row.stage, row.cause.code if row.cause else ""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", NETS)
def test_the_same_model_matches_whatever_torchscript_made_of_it(kind: str, way: str) -> None:
    model, x = net(kind), given(kind)
    found = verify(model, WAYS[way](model, x), x)
    assert found.verdict is MATCH
    assert found.coverage.baseline_share == 1
    assert [(stage.name, stage.verdict) for stage in found.stages] == [("torchscript", MATCH)]


@pytest.mark.parametrize("way", ["scripted", "traced", "saved"])
@pytest.mark.parametrize("kind", NETS)
def test_sites_are_those_of_the_modules_it_was_made_of(kind: str, way: str) -> None:
    model, x = net(kind), given(kind)
    program = ScriptProgram(WAYS[way](model, x)._c)
    ours = record(copy.deepcopy(model), (x,), {}).comparable
    theirs = record(program, (x,), {}).comparable
    assert [(site.op, site.scope) for site in theirs] == [(site.op, site.scope) for site in ours]
    assert [site.tensors for site in theirs] == [site.tensors for site in ours]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", NETS)
def test_it_is_as_precise_in_float64_as_the_model(kind: str, way: str) -> None:
    model, x = net(kind), given(kind)
    program = ScriptProgram(WAYS[way](model, x)._c).double()
    wide = x.double() if x.is_floating_point() else x
    with torch.no_grad(), Widening(), default_dtype(torch.float64):
        exact = copy.deepcopy(model).double()(wide)
        folds = way in ("frozen", "optimised") and kind == "cnn"  # a fold is made in float32
        torch.testing.assert_close(program(wide), exact, rtol=0, atol=1e-6 if folds else 1e-14)


def test_a_weight_that_was_edited_is_found() -> None:
    model, x = net("cnn"), given("cnn")
    module = scripted(model, x)
    with torch.no_grad():
        module.conv2.weight = nn.Parameter(
            module.conv2.weight * torch.linspace(1, 1.2, 8).reshape(-1, 1, 1, 1)
        )
    found = verify(model, module, x)
    assert found.verdict is DIVERGED
    assert first(found)[:2] == ("conv2", "translation")


def test_a_setting_that_was_edited_in_the_graph_is_found() -> None:
    model, x = net("cnn"), given("cnn")
    module = saved(model, x)
    (node,) = module.bn1.graph.findAllNodes("aten::batch_norm")
    [*node.inputs()][7].node().f_("value", 0.1)
    assert not torch.allclose(module(x), model(x), atol=1e-4), "the edit must show"
    assert first(verify(model, module, x)) == ("bn1", "translation", "batchnorm-eps")


def test_an_operator_in_the_place_of_another_is_found() -> None:
    model, x = net("cnn"), given("cnn")
    other = copy.deepcopy(model)
    other.act = nn.SiLU()
    assert first(verify(model, frozen(other, x), x))[:2] == ("act", "translation")


class Rewired(ConvNet):
    """Adds what comes before the pool to the branch, not what comes after it."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.relu(self.bn1(self.conv1(x)))
        x = self.pool(early)
        x = early[:, :, ::2, ::2] + self.act(self.conv2(x))
        found: Tensor = self.fc(self.drop(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)))
        return found


def test_an_edge_that_leads_elsewhere_is_found() -> None:
    model, x = net("cnn"), given("cnn")
    other = Rewired().eval()
    other.load_state_dict(model.state_dict())
    assert first(verify(model, traced(other, x), x))[:2] == ("add", "translation")


class Branching(nn.Module):
    """Control flow, lists, dicts, texts, numbers, writes and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.scale = 2.0
        self.shift = torch.full((4,), 0.3)
        self.parts = [torch.full((4,), 0.7)]

    def forward(self, x: Tensor, twice: bool = True) -> dict[str, Tensor]:
        """(N, 4) to two tensors."""
        found: list[Tensor] = []
        with torch.no_grad():
            x = x * self.shift
        for k, layer in enumerate(self.layers):
            x = torch.tanh(layer(x)) * self.parts[0]
            if twice and k < 2:
                x = x * self.scale
            found.append(x)
        turn = 0
        while turn < 3:
            x = x + float(turn)
            turn += 1
        if x.dim() != 2:
            raise ValueError(f"expected rows, got {x.dim()}D")
        x[:, 1:] = x[:, :-1] * 2
        rows = torch.stack(found, 1)
        return {"rows": rows[:, 0, 1:].sum(1), "padded": nn.functional.pad(x, (1, 1))}


@pytest.mark.parametrize("arguments", [{}, {"twice": False}])
def test_control_flow_is_followed(arguments: dict[str, bool]) -> None:
    torch.manual_seed(0)
    model, x = Branching().eval(), torch.randn(3, 4)
    found = verify(model, scripted(model, x), {"x": x, **arguments})
    assert found.verdict is MATCH
    assert not any(cell.culprits for cell in found.cells)


def test_attributes_are_as_precise_as_parameters() -> None:
    torch.manual_seed(0)
    model, x = Branching().eval(), torch.randn(3, 4)
    found = verify(model, scripted(model, x), x)
    exact = found.cells[0]
    assert exact.role == "semantics"
    assert all(row.total.nrmse < 1e-15 for row in exact.layers if row.total is not None)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.calls = 0
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x) + self.mean
        self.mean.mul_(0.9).add_(x.mean(0) * 0.1)
        self.calls += 1
        return x * self.calls


def test_each_run_begins_with_the_state_that_was_given_and_leaves_it() -> None:
    torch.manual_seed(0)
    model, x = Counting().eval(), torch.randn(3, 4)
    module = scripted(model, x)
    found = verify(model, module, x)
    assert found.verdict is MATCH
    assert found.stages[0].exact
    assert (module.calls, module.mean.abs().max().item()) == (0, 0.0)


class Doubled:
    def __init__(self, value: Tensor) -> None:
        self.value = value

    def get(self) -> Tensor:
        return self.value * 2


class WithClass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return Doubled(self.fc(x)).get()


def test_what_cannot_be_run_node_by_node_is_run_as_a_whole_and_told() -> None:
    torch.manual_seed(0)
    module, x = torch.jit.script(WithClass().eval()), torch.randn(3, 4)
    form = of(module)
    assert form.notes == (
        "the TorchScript module cannot be looked into: it makes an object of a class of its own "
        "(__torch__.tests.verifier.forms.test_scripted.Doubled); only what it returns is compared",
    )
    assert torch.equal(form.program(x), module(x))
    wide = copy.deepcopy(form.program).double()(x.double())
    assert wide.dtype is torch.float64
    assert {name for name, _ in form.program.named_parameters()} == {"fc.weight", "fc.bias"}


def test_two_wholes_are_held_against_each_other_by_what_they_return() -> None:
    torch.manual_seed(0)
    one, x = torch.jit.script(WithClass().eval()), torch.randn(3, 4)
    assert verify(one, copy.deepcopy(one), x).verdict is MATCH
    other = copy.deepcopy(one)
    with torch.no_grad():
        other.fc.bias = nn.Parameter(other.fc.bias + 0.1)
    assert verify(one, other, x).verdict is DIVERGED


def test_a_node_says_where_it_is_written() -> None:
    model, x = net("cnn"), given("cnn")
    for way in (scripted, traced, saved):
        sites = {site.name: site.source for site in record(ScriptProgram(way(model, x)._c), (x,), {}).sites}
        assert sites["add"] is not None
        assert (sites["add"].file, sites["add"].function.rpartition(".")[2]) == ("nets.py", "forward")


def test_a_file_is_a_model_and_a_state_dict_is_sent_to_the_weights(tmp_path: Path) -> None:
    model, x = net("mlp"), given("mlp")
    torch.jit.save(traced(model, x), tmp_path / "net.pt")
    assert verify(model, str(tmp_path / "net.pt"), x).verdict is MATCH
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(SourceError, match="holds a state dict, give it with --weights"):
        read(tmp_path / "weights.pt")


def test_arguments_that_do_not_fit_are_told() -> None:
    program = ScriptProgram(scripted(net("mlp"), given("mlp"))._c)
    with pytest.raises(InputError, match=r"takes \(x\), and was given 2 by position"):
        program(given("mlp"), 1)


class Gated(nn.Module):
    """Channels times what is pooled of them, written where the factor was."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.gate = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 8, H - 2, W - 2)."""
        x = self.conv(x)
        factor = nn.functional.hardsigmoid(self.gate(nn.functional.adaptive_avg_pool2d(x, 1)))
        return factor * x


def test_a_factor_that_is_spread_over_places_may_be_written() -> None:
    torch.manual_seed(0)
    model, x = Gated().eval(), torch.randn(2, 3, 8, 8)
    module = optimised(model, x)
    assert "BroadcastMKLDNNTensors" in str(module.graph)
    found = verify(model, module, x)
    assert found.verdict is MATCH
    assert not any(note.startswith("the TorchScript module cannot") for note in found.notes)


class Steps(nn.Module):
    """Operators in a row, one in a branch."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4)
        self.wrong = wrong

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) to (N, 4)."""
        x = torch.tanh(self.layer(x))
        if x.dim() > 1:
            x = x * 2
        x = torch.sin(x) if self.wrong else torch.exp(x)
        return torch.relu_(x + 1)


@pytest.mark.parametrize("way", ["scripted", "traced", "frozen"])
def test_a_stage_that_differs_is_told_with_its_first_site(way: str) -> None:
    x = torch.randn(5, 3)
    form = of(WAYS[way](Steps().eval(), x))
    wrong = Warm(WAYS[way](Steps(wrong=True).eval(), x))
    found = verify(Steps().eval(), replace(form, stages=(wrong,)), x)
    assert found.verdict is DIVERGED
    (stage,) = found.stages
    assert (stage.site, stage.operator) == ("add", "add")  # the first behind `exp`, which it does not have


def test_what_a_stage_shows_is_what_its_program_has() -> None:
    x = torch.randn(5, 3)
    form = of(traced(Steps().eval(), x))
    graph = record(form.program, (x,), {})
    shown = {
        graph.sites[site].name: (name, value) for site, name, value in form.stages[0].values((x,), {}, graph)
    }
    assert list(shown) == ["layer", "tanh", "mul", "exp", "add", "relu"]
    assert shown["relu"][0] == "relu_"
    plus = torch.exp(2 * torch.tanh(form.program.layer(x))) + 1  # type: ignore[operator]
    assert torch.equal(shown["add"][1], plus)


@pytest.mark.filterwarnings("error")
def test_a_file_is_read_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of making one
        torch.jit.save(torch.jit.trace(Steps().eval(), torch.randn(5, 3)), tmp_path / "net.pt")  # type: ignore[no-untyped-call]
    read(tmp_path / "net.pt")


class Around(nn.Module):
    """A model with a part of TorchScript, twice; (N, 16) to (N, 4)."""

    def __init__(self, way: Callable[[nn.Module, Tensor], Any] | None = None, gain: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        part = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.LayerNorm(16)).eval()
        with torch.no_grad():
            part.get_parameter("2.weight")[3] += gain
        made = part if way is None else way(part, torch.zeros(2, 16))
        self.parts, self.last = nn.ModuleList([made, made]), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to scores."""
        for part in self.parts:
            x = x + part(x)
        found: Tensor = self.last(x)
        return found


@pytest.mark.parametrize("way", ["scripted", "traced", "saved", "frozen"])
def test_a_part_is_opened_and_left_as_it_is(way: str) -> None:
    x, wrong = torch.randn(5, 16), Around(WAYS[way], gain=0.5).eval()
    part = wrong.parts[0]
    right = verify(Around().eval(), Around(WAYS[way]).eval(), x, weights="as-is")
    assert right.verdict is MATCH, right.reason
    assert right.coverage.baseline_share == 1
    found = verify(Around().eval(), wrong, x, weights="as-is")
    assert found.verdict is DIVERGED
    assert {row.op for row in found.culprits} == {"layer_norm"}
    assert wrong.parts[0] is part
    assert isinstance(part, torch.jit.ScriptModule)


class Doubling(nn.Module):
    """Numbers to numbers, or twice as many by a method of another name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.gain, self.times = nn.Linear(16, 16), 2.0, 3

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to numbers."""
        found: Tensor = self.inner(x)
        return found

    @torch.jit.export
    def twice(self, x: Tensor, more: float = 0.0) -> Tensor:
        """Twice as large."""
        found: Tensor = self.inner(x) * (self.gain + more)
        return found


class Host(nn.Module):
    """A model that uses a part in other ways than by calling it."""

    def __init__(self, how: str, part: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.how, self.part, self.last = how, part, nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to scores."""
        x = {
            "method": lambda: self.part.twice(x, more=0.5),
            "attribute": lambda: self.part(x) * self.part.gain,
            "constant": lambda: self.part(x) * self.part.times,
            "module": lambda: self.part.inner(x),
        }[self.how]()
        found: Tensor = self.last(x)
        return found


@pytest.mark.parametrize("how", ["method", "attribute", "constant", "module"])
def test_what_a_model_reads_of_its_part_is_there(how: str) -> None:
    def host(*, script: bool, gain: float = 2.0, bias: float = 0.0) -> nn.Module:
        part = Doubling()
        part.gain, part.times = gain, int(gain) + 1
        with torch.no_grad():
            part.inner.bias[0] += bias
        return Host(how, torch.jit.script(part) if script else part).eval()

    x = torch.randn(5, 16)
    right = verify(host(script=False), host(script=True), x, weights="as-is")
    assert right.verdict is MATCH, right.reason
    wrong = verify(host(script=False), host(script=True, bias=0.1), x, weights="as-is")
    assert wrong.verdict is DIVERGED
    assert "part.inner" in {row.baseline for row in wrong.culprits}
    if how != "module":
        assert verify(host(script=False), host(script=True, gain=3.0), x, weights="as-is").verdict is DIVERGED


def test_what_cannot_be_read_of_a_part_as_one_call_is_told_as_a_limit() -> None:
    def host(*, script: bool) -> nn.Module:
        part = Doubling()
        part.register_forward_hook(_twice)
        return Host("method", torch.jit.script(part) if script else part).eval()

    x = torch.randn(5, 16)
    for sides in ((host(script=False), host(script=True)), (host(script=True), host(script=False))):
        with pytest.raises(ModelError, match=r"runs as it was given, but .*'twice'.* limit of the verifier"):
            verify(sides[0], sides[1], x, weights="as-is")


def test_a_part_that_cannot_be_opened_is_one_call_beside_others_that_are_compared() -> None:
    def hooked(part: nn.Module, _: Tensor) -> Any:
        part.register_forward_hook(_twice)
        return torch.jit.script(part)

    def also(part: nn.Module, _: Tensor) -> Any:
        part.register_forward_hook(_twice)
        return part

    found = verify(Around(also).eval(), Around(hooked).eval(), torch.randn(5, 16), weights="as-is")
    assert any("cannot be looked into: it has hooks" in note for note in found.notes)
    assert [row.candidate for row in found.layers if row.candidate and row.baseline][-1] == "last"
    assert all(cell.verdict is MATCH for cell in found.cells)


def _twice(self: Any, input: tuple[Tensor], output: Tensor) -> Tensor:  # noqa: A002 - TorchScript asks for it
    return output * 2


class Kept(nn.Module):
    """Scripted modules that are nobody's submodules, in whatever keeps them."""

    def __init__(self, keep: Callable[[list[Any]], Any], factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        parts = [nn.Sequential(nn.Linear(6, 6), nn.ReLU()).eval() for _ in range(2)]
        layer: Any = parts[1][0]
        layer.weight.data[2] *= factor
        self.first, self.parts = nn.Linear(6, 6), keep(parts)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        parts = getattr(self.parts, "inside", self.parts)
        for part in parts.values() if isinstance(parts, dict) else parts:
            x = part(x)
        return x


def each_scripted(parts: list[Any]) -> list[Any]:
    return [torch.jit.script(part) for part in parts]


KEEPS: dict[str, Callable[[list[Any]], Any]] = {
    "list": each_scripted,
    "tuple": lambda parts: tuple(each_scripted(parts)),
    "dict": lambda parts: dict(zip("ab", each_scripted(parts), strict=True)),
}


@pytest.mark.parametrize("keep", KEEPS)
def test_parts_in_what_is_no_module_are_opened_as_well(keep: str) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    right, wrong = Kept(KEEPS[keep]).eval(), Kept(KEEPS[keep], 1.001).eval()
    kept = right.parts
    model = Kept(nn.ModuleList).eval()
    assert verify(model, right, x, weights="as-is").verdict == MATCH
    assert right.parts is kept
    found = verify(model, wrong, x, weights="as-is")
    assert [row.baseline for row in found.culprits] == ["parts.1.0"]


def test_parts_that_are_out_of_reach_are_told_as_a_limit() -> None:
    x = torch.randn(4, 6)
    hidden = Kept(lambda parts: types.SimpleNamespace(inside=each_scripted(parts))).eval()
    with pytest.raises(ModelError, match="that this verifier cannot put into another dtype"):
        verify(Kept(nn.ModuleList).eval(), hidden, x, weights="as-is")
