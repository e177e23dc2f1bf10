"""What torch.compile makes of a model is held against its Python, and what it changes is named."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier import UsageError, Verdict, verify
from verifier import record as certified
from verifier.forms import compiled
from verifier.forms.compiled import Recipe
from verifier.graph import record
from verifier.models.compiled import compiled_parts, eager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch.fx import GraphModule

    from verifier import Verification

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*reduce_op.*:FutureWarning"),
]

NETS = """
import torch
import torch.nn.functional as F
from torch import nn


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        x = F.relu(x + self.second(x))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return x + self.out(F.scaled_dot_product_attention(q, k, v))


class Perceptron(nn.Module):
    def __init__(self, between=lambda x: x):
        super().__init__()
        self.first, self.second, self.between = nn.Linear(8, 8), nn.Linear(8, 3), between

    def forward(self, x):
        return self.second(self.between(F.gelu(self.first(x))))


def says(x):
    print(end="")
    return x * 2 if x.sum() > 1e9 else x


def broken():
    return Perceptron(says)


def dropping():
    model = Perceptron(nn.Dropout(0.5)).eval()
    model.between.train()
    return model


def otherwise():
    return Perceptron(lambda x: x * 1.01 if torch.compiler.is_compiling() else x)


def rectified():
    return Perceptron(F.relu)


def whole():
    return torch.compile(Perceptron(), backend="aot_eager")
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(NETS)
    return path


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def compared(nets: Path, name: str, inputs: Tensor, how: str = "", **options: Any) -> Verification:
    return verify(f"{nets}:{name}", f"compile{how}:{nets}:{name}", inputs, weights="calibrated", **options)


def stages(found: Verification) -> list[tuple[str, str, str]]:
    return [(each.name, each.verdict.value, each.site) for each in found.stages]


@pytest.mark.parametrize(
    ("name", "shape", "how"),
    [
        ("Convolutional", (2, 3, 8, 8), ""),
        ("Attention", (2, 5, 8), ",dynamic=true"),
        ("Perceptron", (4, 8), ",mode=max-autotune-no-cudagraphs"),
        ("broken", (4, 8), ""),
        ("dropping", (4, 8), ""),
    ],
)
def test_code_that_computes_what_its_python_does_is_a_match(
    nets: Path, name: str, shape: tuple[int, ...], how: str
) -> None:
    found = compared(nets, name, rows(*shape), how)
    assert found.verdict == "match"
    (shipped,) = found.stages  # what is below it need not be made
    assert (shipped.role, shipped.form, shipped.cell) == ("candidate", "a compiled module", "cpu/float32")
    assert shipped.name.startswith("inductor")
    assert found.weights.mode == "calibrated"


def test_a_graph_that_is_left_for_python_is_told(nets: Path) -> None:
    notes = compared(nets, "broken", rows(4, 8), ",backend=eager").notes
    (note,) = [note for note in notes if "was compiled by eager" in note]
    assert "graphs, which it left for Python" in note


def test_each_cell_and_each_size_has_code_of_its_own(nets: Path) -> None:
    cells = ("cpu/float32", "cpu/bfloat16", "cpu/float64")
    found = compared(nets, "Perceptron", rows(5, 8), ",backend=aot_eager", cells=cells, batch_size=3)
    assert found.verdict == "match"
    assert [each.cell for each in found.stages] == list(cells)


def edited(edit: Callable[[GraphModule], None]) -> Callable[..., Any]:
    """A backend that changes a graph before Python runs it."""

    def backend(graph: GraphModule, _inputs: Any) -> Any:
        edit(graph)
        graph.recompile()
        return graph.forward

    return backend


def _nodes(graph: GraphModule, function: object) -> list[Any]:
    return [node for node in graph.graph.nodes if node.target is function]


def other_activation(graph: GraphModule) -> None:
    node = _nodes(graph, F.relu)[-1]
    node.target, node.kwargs = F.gelu, {}


def no_residual(graph: GraphModule) -> None:
    (node,) = _nodes(graph, operator.add)
    node.replace_all_uses_with(node.args[1])


def scaled(graph: GraphModule) -> None:
    node = _nodes(graph, torch.conv2d)[1]
    with graph.graph.inserting_after(node):
        more = graph.graph.call_function(operator.mul, (node, 1.01))
    node.replace_all_uses_with(more, lambda user: user is not more)


def wrongly_fused(graph: GraphModule) -> None:
    for node in _nodes(graph, F.relu):
        if node.args[0].target is operator.add and len(node.args[0].users) == 1:
            node.target, node.kwargs = F.gelu, {}


def twice_wrongly_fused(graph: GraphModule) -> None:
    wrongly_fused(graph)
    node = _nodes(graph, torch.conv2d)[1]
    if len(node.users) == 1:
        scaled(graph)


@pytest.fixture
def planted() -> Iterator[Callable[[Callable[[GraphModule], None]], str]]:
    """Puts a faulty backend on torch's list, under a name that it returns."""
    from torch._dynamo.backends import registry

    names = []

    def plant(edit: Callable[[GraphModule], None]) -> str:
        names.append(f"planted_{edit.__name__}")
        torch._dynamo.register_backend(edited(edit), name=names[-1])
        return names[-1]

    yield plant
    for name in names:
        del registry._BACKENDS[name], registry._COMPILER_FNS[name]


@pytest.mark.parametrize(
    ("edit", "site"), [(other_activation, "relu_1"), (no_residual, "add"), (scaled, "second")]
)
def test_a_backend_that_changes_an_operator_is_caught_at_its_site(
    nets: Path,
    planted: Callable[[Callable[[GraphModule], None]], str],
    edit: Callable[[GraphModule], None],
    site: str,
) -> None:
    name = planted(edit)
    found = compared(nets, "Convolutional", rows(2, 3, 8, 8), f",backend={name}")
    assert found.verdict == "diverged"
    assert stages(found) == [("eager", "match", ""), (name, "diverged", site)]
    (culprit,) = found.culprits
    assert culprit.stage == "fusion"
    assert culprit.cause is not None
    assert culprit.cause.code == "compiled-code"
    assert f"first at {site} (" in culprit.cause.summary


def test_a_certificate_is_held_against_compiled_code_with_its_weights(
    nets: Path, planted: Callable[[Callable[[GraphModule], None]], str]
) -> None:
    spec = f"{nets}:Convolutional"
    certificate = certified(spec, rows(2, 3, 8, 8), weights="calibrated")
    found = verify(certificate, f"compile,backend={planted(scaled)}:{spec}")
    assert (found.verdict, [row.stage for row in found.culprits]) == ("diverged", ["fusion"])
    assert verify(certificate, f"compile,backend=eager:{spec}").verdict == "match"


def test_what_the_compiler_itself_gets_wrong_is_found_at_its_stage_and_site(nets: Path) -> None:
    import torch._inductor.config as inductor

    with inductor.patch({"cpp.inject_relu_bug_TESTING_ONLY": "accuracy"}):
        found = compared(nets, "rectified", rows(4, 8))
    assert found.verdict == "diverged"
    below = ("eager", "aot_eager", "aot_eager_decomp_partition")
    assert stages(found) == [*((name, "match", "") for name in below), ("inductor", "diverged", "relu")]
    assert [culprit.stage for culprit in found.culprits] == ["fusion"]


@pytest.mark.parametrize(
    ("edit", "sites"), [(wrongly_fused, ("add",)), (twice_wrongly_fused, ("second", "add"))]
)
def test_a_fault_that_goes_where_values_are_kept_is_told_by_these_values(
    nets: Path,
    planted: Callable[[Callable[[GraphModule], None]], str],
    edit: Callable[[GraphModule], None],
    sites: tuple[str, ...],
) -> None:
    found = compared(nets, "Convolutional", rows(2, 3, 8, 8), f",backend={planted(edit)}")
    last = found.stages[-1]
    assert (last.verdict, last.site, last.mended) == (Verdict.DIVERGED, "", sites)
    (culprit,) = found.culprits
    assert culprit.stage == "fusion"
    assert culprit.cause is not None
    assert any(f"the values of {' and '.join(sites)} mend it" in each for each in culprit.cause.evidence)


def test_a_graph_that_says_something_else_is_a_wrong_translation(nets: Path) -> None:
    found = compared(nets, "otherwise", rows(4, 8), ",backend=aot_eager")
    assert found.verdict == "diverged"
    assert stages(found) == [("eager", "diverged", "second"), ("aot_eager", "diverged", "")]
    assert [culprit.stage for culprit in found.culprits] == ["translation"]


def test_the_baseline_may_be_compiled_too(nets: Path) -> None:
    found = verify(f"compile,backend=eager:{nets}:otherwise", f"{nets}:otherwise", rows(4, 8))
    assert found.verdict == "diverged"
    assert {each.role for each in found.stages} == {"baseline"}


def test_what_a_function_returns_compiled_is_compiled_with_the_weights_that_are_compared(nets: Path) -> None:
    found = verify(f"{nets}:Perceptron", f"{nets}:whole", rows(4, 8), weights="calibrated")
    assert found.verdict == "match"
    assert [(each.name, each.cell) for each in found.stages] == [("aot_eager", "cpu/float32")]


def test_a_module_that_was_compiled_has_stages_where_it_is_wrong() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x + self.layer(x))

    right, wrong = nn.Sequential(Block(), Block()).eval(), nn.Sequential(Block(), Block()).eval()
    wrong.load_state_dict(right.state_dict())
    wrong[1].compile(backend=edited(no_residual))
    found = verify(right, wrong, rows(4, 8))
    assert found.verdict == "diverged"
    assert stages(found) == [("eager", "match", ""), ("backend", "diverged", "1.add")]
    wrong[1].compile(backend="eager")
    assert stages(verify(right, wrong, rows(4, 8))) == [("eager", "match", "")]


def test_compiled_code_that_draws_is_compiled_once_more_to_draw_the_same() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).train()
    found = verify(model, torch.compile(model), rows(4, 8))  # type: ignore[arg-type]
    assert found.verdict == "match"
    assert found.notes == (
        "the candidate as it was given draws random numbers of its own, so what it gives was not compared; a copy "
        "of it that was compiled anew to draw torch's numbers gives what its Python gives",
    )


def test_a_recipe_is_found_in_what_was_compiled() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0] = torch.compile(model[0], backend="aot_eager", dynamic=True)
    model[1].compile(backend="eager", fullgraph=True)
    found = compiled.recipes_of(model, compiled_parts(model))
    assert {name: (each.name, each.dynamic, each.fullgraph) for name, each in found.items()} == {
        "0": ("aot_eager", True, False),
        "1": ("eager", None, True),
    }
    assert [name for name, _ in eager(model, "model").named_children()] == ["0", "1"]


def test_a_function_that_is_called_as_a_backend_of_torchs_is_not_taken_for_it() -> None:
    def inductor(graph: GraphModule, _inputs: Any) -> Any:
        return graph.forward

    found = Recipe.made(inductor)
    assert (found.name, found.below, found.graph) == ("inductor", ("eager",), False)
    assert Recipe.made("inductor").below == ("eager", "aot_eager", "aot_eager_decomp_partition")


def test_options_are_torchs_own() -> None:
    found = Recipe.of("backend=aot_eager,dynamic=false,fullgraph=true")
    assert (found.name, found.dynamic, found.fullgraph) == ("aot_eager", False, True)
    assert Recipe.of("mode=max-autotune-no-cudagraphs").name == "inductor, max-autotune-no-cudagraphs"
    assert Recipe.of("").name == "inductor"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("backend=indutcor", "torch.compile takes no such options: InvalidBackend"),
        ("mode=fastest", "Unrecognized mode=fastest, should be one of"),
        ("modus=default", r"no option of torch.compile .* did you mean 'mode'\?"),
        ("dynamic=1", "dynamic=1: write true or false"),
        ("mode=default,mode=default", "stands twice"),
    ],
)
def test_options_that_torch_does_not_have_are_told(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Recipe.of(text)


def test_values_inside_are_those_of_the_programs_sites() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                one, other = block(x).chunk(2, -1)
                x = torch.cat([other.relu_(), one], -1).add_(x)
            return x

    model, x = Several().eval(), rows(4, 8)
    graph = record(Several().eval(), (x,), {})
    stage = compiled.of(model, {"": Recipe.made("eager")}).recompiled(model, draws=False)[-1]  # type: ignore[misc]
    with torch.no_grad():
        inside = {graph.sites[site].name: value for site, _, value in stage.values((x,), {}, graph)}
        assert torch.equal(inside["blocks.0"], model.blocks[0](x))
        one, other = model.blocks[0](x).chunk(2, -1)
        assert torch.equal(inside["chunk"], one)
        assert torch.equal(inside["chunk[1]"], other)  # as it was before it was written in place
        assert torch.equal(inside["cat"], torch.cat([other.relu(), one], -1))
        assert torch.equal(inside["add_2"], model(x))
    assert set(inside) == {site.name for site in graph.sites}


def test_casts_that_generated_code_leaves_out_are_told_by_compiling_it_with_them() -> None:
    class Kept(nn.Module):
        """What rounding to bfloat16 takes away."""

        def forward(self, x: Tensor) -> Tensor:
            return x.bfloat16().float() - x

    found = verify(Kept(), torch.compile(Kept()), torch.randn(4, 64))  # type: ignore[arg-type]
    last = found.stages[-1]
    assert (last.name, last.verdict, last.casts) == ("inductor", Verdict.DIVERGED, True)
    assert all(not each.casts for each in found.stages[:-1])
    (culprit,) = found.culprits
    assert culprit.stage == "fusion"
    assert culprit.cause is not None
    assert any("emulate_precision_casts" in each for each in culprit.cause.evidence)
