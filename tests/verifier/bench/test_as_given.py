"""The program that is compared is the program that was given, or the verdict says that it is not."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from verifier import ModelError, Verdict, Verification, verify
from verifier.bench.as_given import as_given, by_sample
from verifier.bench.side import Side
from verifier.inputs import tensors
from verifier.judge import CRITERIA

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def _compiled_anew() -> None:
    torch.compiler.reset()  # after a few recompilations a function stays as it is


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).eval()


def inputs(count: int = 4) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


def wrong_by_one(graph: Any, _example: Any) -> Any:
    """A backend whose code adds 1 to everything."""
    return lambda *args: tuple(out + 1 if isinstance(out, Tensor) else out for out in graph(*args))


def test_compiled_code_that_is_wrong_is_never_a_match_though_its_python_is_right() -> None:
    found = verify(net(), torch.compile(net(), backend=wrong_by_one), inputs())  # type: ignore[arg-type]
    assert found.verdict == "diverged"
    (culprit,) = found.culprits
    assert culprit.cause is not None
    assert culprit.cause.code == "compiled-code"
    assert "which is the baseline's" in culprit.cause.summary
    assert (culprit.baseline or "").startswith("output")


def test_wrong_code_of_a_wrong_program_is_told_beside_its_python() -> None:
    wrong = net()
    wrong[1] = nn.ReLU()
    found = verify(net(), torch.compile(wrong, backend=wrong_by_one), inputs())  # type: ignore[arg-type]
    assert found.first_divergence is not None
    assert found.first_divergence.baseline == "1"
    assert any(row.cause is not None and row.cause.code == "compiled-code" for row in found.cells[0].layers)


def test_compiled_code_that_is_wrong_in_one_channel_among_larger_ones_is_no_match() -> None:
    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return torch.cat([y, y[:, :1] * 1e4 + 1e4], 1)

    def wrong(graph: Any, _example: Any) -> Any:
        return lambda *args: tuple(
            torch.cat([out[:, :2], out[:, 2:3] * 1.001, out[:, 3:]], 1) for out in graph(*args)
        )

    x = inputs(24)
    assert verify(Uneven(), torch.compile(Uneven(), backend=wrong), x).verdict == "diverged"  # type: ignore[arg-type]
    assert verify(Uneven(), torch.compile(Uneven(), backend="eager"), x).verdict == "match"  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["whole", "in place", "a layer"])
def test_code_that_computes_what_its_python_does_is_a_match_with_a_note(part: str) -> None:
    model: Any = net()
    if part == "whole":
        model = torch.compile(model, backend="eager")
    elif part == "in place":
        model.compile(backend="eager")
    else:
        model[0] = torch.compile(model[0], backend="eager")
    found = verify(net(), model, inputs())
    assert found.verdict == "match"
    assert any("the candidate is compiled: its code" in note for note in found.notes)


def test_the_wrong_code_of_a_baseline_is_no_match_either() -> None:
    found = verify(torch.compile(net(), backend=wrong_by_one), net(), inputs())  # type: ignore[arg-type]
    assert found.verdict == "diverged"


def test_a_hook_that_acts_once_is_seen_where_the_model_itself_runs() -> None:
    model, calls = net(), []

    def once(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        calls.append(1)
        return output * 2 if len(calls) == 1 else output

    model[0].register_forward_hook(once)
    found = verify(net(), model, inputs())
    assert found.verdict == "diverged"
    assert any(row.cause is not None and row.cause.code == "other-as-given" for row in found.culprits)


def test_a_patched_forward_is_compared_with_what_it_was_patched_to() -> None:
    right, wrong = net(), net()
    for model, scale in ((right, 1.0), (wrong, 1.01)):
        forward = model[0].forward
        model[0].forward = lambda x, forward=forward, scale=scale: forward(x) * scale
    assert verify(net(), right, inputs()).verdict == "match"
    assert verify(net(), wrong, inputs()).verdict == "diverged"


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.norm = nn.BatchNorm1d(4)
        self.calls = 0
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.seen.append(len(x))
        return self.norm(self.layer(x))


def test_what_a_run_of_the_model_writes_is_put_back() -> None:
    model = Counting().train()
    model.register_forward_hook(lambda _module, _args, output: output)  # so that the model itself is run
    before = copy.deepcopy(model.state_dict())
    as_given(Side.of("baseline", model, 0), [tensors(inputs())])
    assert (model.calls, model.seen) == (0, [])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class TimeFirst(nn.Module):
    """The first dimension is time: what comes out at a step depends on those before it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(0)


def test_rows_of_a_causal_model_are_no_samples() -> None:
    assert not by_sample(Side.of("baseline", TimeFirst(), 0), [tensors(inputs())])
    assert by_sample(Side.of("baseline", net(), 0), [tensors(inputs())])


def _in_float64(found: Verification) -> int:
    return next(cell for cell in found.cells if cell.role == "semantics").batch_size


class Mixed(nn.Module):
    """Every sample is shifted by what all of them have in common."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class AllOrNothing(nn.Module):
    """Takes eight samples and no other number of them."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.view(8, 2, -1)).flatten(1)


@pytest.mark.parametrize("kind", [TimeFirst, Mixed, AllOrNothing])
@pytest.mark.parametrize("cell", ["cpu/float32", "cpu/bfloat16", "cpu/float64"])
def test_where_a_few_samples_do_not_stand_for_all_float64_runs_on_all(
    kind: type[nn.Module], cell: str
) -> None:
    found = verify(kind(), kind(), torch.randn(8, 6), cells=(cell,))
    assert (found.verdict, _in_float64(found)) == (Verdict.MATCH, 8)


def test_where_they_do_it_runs_on_a_few() -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    found = verify(model, copy.deepcopy(model), torch.randn(8, 6))
    assert (found.verdict, _in_float64(found)) == (Verdict.MATCH, 2)


class UpToTwo(nn.Module):
    """Fails on more than two samples."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise ValueError("too many")
        return torch.tanh(x)


@pytest.mark.parametrize("cell", ["cpu/float32", "cpu/float64"])
def test_a_candidate_that_fails_on_all_samples_but_not_on_a_few_could_not_run(cell: str) -> None:
    with pytest.raises(ModelError, match="fails on inputs that the baseline takes: ValueError: too many"):
        verify(nn.Tanh(), UpToTwo(), torch.randn(8, 6), cells=(cell,))


def test_a_fault_that_only_the_last_sample_shows_is_no_state_of_a_model() -> None:
    x = inputs(16).clamp(-1, 1)
    x[-1] *= 50
    found = verify(nn.Hardtanh(-6, 6), nn.Identity(), x)
    assert found.verdict is Verdict.DIVERGED
    assert not any(row.kind == "call" for cell in found.cells for row in cell.layers)


def test_the_samples_on_which_numerics_part_join_those_of_float64() -> None:
    six, plain = (
        nn.Sequential(nn.Linear(8, 16), nonlinearity, nn.Linear(16, 4))
        for nonlinearity in (nn.ReLU6(), nn.ReLU())
    )
    plain.load_state_dict(six.state_dict())
    x = inputs(16)
    x[9] *= 50
    found = verify(six, plain, x)
    semantics = found.cells[0]
    assert [(row.baseline, row.excited) for row in semantics.culprits] == [("1", None)]
    assert semantics.batch_size == 3


def wrong_for(part: Any) -> Any:
    """A backend whose code is wrong where `part` says, of what comes out."""

    def backend(graph: Any, _example: Any) -> Any:
        def run(*args: Any) -> Any:
            (out,) = graph(*args)
            out = out.clone()
            part(out)
            return (out,)

        return run

    return backend


def test_code_that_is_wrong_in_the_middle_of_a_batch_or_in_its_last_one_is_found() -> None:
    middle = torch.compile(net(), backend=wrong_for(lambda out: out[1].add_(1) if len(out) > 1 else None))
    assert verify(net(), middle, inputs()).verdict == "diverged"  # type: ignore[arg-type]
    last = torch.compile(net(), backend=wrong_for(lambda out: out.add_(1) if len(out) == 1 else None))
    assert verify(net(), last, inputs(5), batch_size=2).verdict == "diverged"  # type: ignore[arg-type]


def test_no_policy_makes_up_for_another_program() -> None:
    compiled = torch.compile(net(), backend=wrong_by_one)
    assert verify(net(), compiled, inputs(), policy=CRITERIA).verdict == "diverged"  # type: ignore[arg-type]


class Remembering(nn.Module):
    """Keeps what it was given, in an object of its own."""

    class Cache:
        def __init__(self) -> None:
            self.kept: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.cache = self.Cache()

    def forward(self, x: Tensor) -> Any:
        self.cache.kept = x if self.cache.kept is None else torch.cat([self.cache.kept, x])
        return self.layer(self.cache.kept)[-len(x) :]


def test_a_model_that_is_its_modules_is_not_run_itself() -> None:
    model = Remembering()
    assert verify(model, copy.deepcopy(model), inputs()).verdict == "match"
    assert model.cache.kept is None


def made_by(part: Any) -> Any:
    """A backend whose code makes of all that comes out what `part` makes of it."""
    return lambda graph, _example: lambda *args: tuple(map(part, graph(*args)))


def test_half_precision_code_that_is_a_hundredth_off_is_not_taken_for_rounding() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.GELU(), nn.LayerNorm(32))]
    model, x = nn.Sequential(*layers).eval().bfloat16(), torch.randn(8, 32).bfloat16()
    for part in (lambda out: out * 1.01, lambda out: out + 0.03):
        compiled = torch.compile(model, backend=made_by(part))
        found = verify(model, compiled, x)  # type: ignore[arg-type]
        assert found.verdict == "diverged"


def test_half_precision_code_that_rounds_once_instead_of_at_every_step_is_the_same() -> None:
    model, x = net().bfloat16(), inputs(16).bfloat16()

    def wider(graph: Any, _example: Any) -> Any:
        return lambda *args: tuple(out.bfloat16() for out in graph(*(arg.float() for arg in args)))

    compiled = torch.compile(model, backend=wider)
    given = as_given(Side.of("candidate", compiled, 0), [tensors(x)])  # type: ignore[arg-type]
    assert not given.apart
    assert any("within rounding" in note for note in given.notes)


def test_masks_in_what_comes_out_hide_no_wrong_code() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).masked_fill(torch.arange(4) > 2, torch.finfo(x.dtype).min)  # type: ignore[no-any-return]

    model = Scores().eval()
    compiled = torch.compile(model, backend=made_by(lambda out: out * 1.5 + 3))
    assert as_given(Side.of("candidate", compiled, 0), [tensors(inputs())]).apart  # type: ignore[arg-type]


def test_what_a_model_holds_in_objects_of_its_own_is_left_as_it_was() -> None:
    class Logging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.generator = nn.Linear(8, 4), torch.Generator().manual_seed(0)
            self.log = SimpleNamespace(steps=[], calls=0)

        def forward(self, x: Tensor) -> Tensor:
            self.log.steps.append(len(x))
            self.log.calls += 1
            return self.layer(x + torch.rand(x.shape, generator=self.generator))  # type: ignore[no-any-return]

    model = Logging().eval()
    before = model.generator.get_state()
    assert verify(model, copy.deepcopy(model), inputs()).verdict == "match"
    assert model.log == SimpleNamespace(steps=[], calls=0)
    assert torch.equal(before, model.generator.get_state())


def test_a_forward_that_is_an_object_around_a_closure_follows_the_copy() -> None:
    class Calling:
        def __init__(self, function: Any) -> None:
            self.function = function

        def __call__(self, x: Tensor) -> Any:
            return self.function(x)

    right, wrong = net(), net()
    right.forward = Calling(lambda x: right[2](right[1](right[0](x))))  # type: ignore[method-assign]
    wrong.forward = Calling(lambda x: wrong[2](wrong[0](x)))  # type: ignore[method-assign]
    assert verify(net(), right, inputs()).verdict == "match"
    assert verify(net(), wrong, inputs()).verdict == "diverged"


class ByCount(nn.Module):
    """Two layers, of which what comes out changes by `change` where there are many samples."""

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.change = nn.Linear(6, 16), nn.Linear(16, 6), change

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        return self.change(y) if len(x) > 2 else y


def _last_row_off(y: Tensor) -> Tensor:
    factors = torch.ones(len(y), 1, dtype=y.dtype)
    factors[-1] += 0.5
    return y * factors


def test_half_precision_does_not_tell_that_samples_stand_alone() -> None:
    changed = ByCount(lambda y: y * 1.002)
    found = verify(ByCount(), changed, torch.randn(8, 6), cells=("cpu/bfloat16",))
    assert (found.verdict, _in_float64(found)) == (Verdict.DIVERGED, 8)


def test_a_small_sample_that_is_off_shows_beside_large_ones() -> None:
    x = torch.randn(8, 6)
    x[:7] *= 1e9
    assert verify(ByCount(lambda y: y), ByCount(_last_row_off), x).verdict is Verdict.DIVERGED


def test_a_candidate_that_fails_on_the_last_batch_could_not_run() -> None:
    def fail(y: Tensor) -> Tensor:
        if len(y) == 3:
            raise ValueError("three")
        return y

    with pytest.raises(ModelError, match="fails on inputs that the baseline takes: ValueError: three"):
        verify(ByCount(), ByCount(fail), torch.randn(8, 6), batch_size=5)


def _wrong(graph: Any, _inputs: Any) -> Any:
    return lambda *args: tuple(each * 1.01 for each in graph.forward(*args))


_doubled = torch.compile(lambda x: x * 2, backend=_wrong)


class Beside(nn.Module):
    """A layer behind which a function is called that was compiled beside the class."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = _doubled(self.layer(x))
        return doubled


class Plain(Beside):
    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = self.layer(x) * 2
        return doubled


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_function_beside_a_model_runs_as_it_is() -> None:
    found = verify(Plain().eval(), Beside().eval(), torch.randn(3, 4))
    assert found.verdict == "diverged"
    assert any(row.cause is not None and row.cause.code == "compiled-code" for row in found.culprits)
