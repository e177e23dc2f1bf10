"""Lockstep runs: what is compared is what a bare run computes, and runs end cleanly however they end."""

from __future__ import annotations

import dataclasses
import gc
import signal
import threading
import time
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.networks import Rewritten, images, network
from tests.verifier.graph import test_recording
from verifier import verify
from verifier.align import Alignment, align
from verifier.border.programs import undisturbed
from verifier.errors import GraphDepartureError, ModelError
from verifier.lockstep import Comparing, Lane, Passes, Plan, run
from verifier.metrics import compare
from verifier.models.copying import copy_with, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from verifier.graph import Graph


@pytest.fixture(autouse=True, params=[True, False], ids=["greenlet", "thread"])
def suspendable(request: pytest.FixtureRequest) -> bool:
    """Every test runs with both ways of suspending a model."""
    global _suspendable  # noqa: PLW0603 - read by graph_of, which every test calls in its own way
    _suspendable = bool(request.param)
    return _suspendable


_suspendable = True


def graph_of(model: nn.Module, x: Tensor) -> Graph:
    return dataclasses.replace(test_recording.graph_of(model, x), suspendable=_suspendable)


class Counting(nn.Module):
    """Knows how often it or a copy of it was called before: the first call is the recorded one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = [0]

    def __deepcopy__(self, memo: object) -> Counting:
        copy = type(self)()
        copy.calls = self.calls
        return copy

    def is_live(self) -> bool:
        self.calls[0] += 1
        return self.calls[0] > 1


def copy_of(model: nn.Module) -> nn.Module:
    return copy_with(model, state_of(model), lambda tensor: tensor, role="model")


def lane(role: str, model: nn.Module, alignment: Alignment, x: Tensor) -> Lane:
    side = role != "baseline"
    graph = alignment.candidate if side else alignment.baseline
    return Lane(role, copy_of(model), graph, (x.clone(),), {}, [pair[side] for pair in alignment.pairs])


def lockstep(
    baseline: nn.Module,
    candidate: nn.Module,
    *,
    force: bool = False,
    x: Tensor | None = None,
    progress: Callable[[], None] = lambda: None,
    more: Sequence[nn.Module] = (),
) -> tuple[Alignment, Passes]:
    x = images() if x is None else x
    alignment = align(graph_of(baseline, x), graph_of(candidate, x))
    others = [candidate, *more]
    lanes = [lane("baseline", baseline, alignment, x), *(lane("candidate", m, alignment, x) for m in others)]
    sites = [[p.baseline for p in alignment.pairs], *([p.candidate for p in alignment.pairs] for _ in others)]
    comparisons = [Comparing(0, k, force) for k in range(1, len(lanes))]
    return alignment, run(lanes, Plan(sites, comparisons), progress)


def errors(alignment: Alignment, passes: Passes, comparison: int = 0) -> dict[str, float]:
    return {
        alignment.baseline.sites[pair.baseline].name: compare(meeting.moments).nrmse
        for pair, meeting in zip(alignment.pairs, passes.meetings[comparison], strict=True)
        if meeting.moments is not None
    }


def planted() -> nn.Module:
    model = network()
    with torch.no_grad():
        model[1].bn1.running_mean += 0.1
        model[3].conv2.weight *= 1.01
    planted_model: nn.Module = model
    return planted_model


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> object:
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("verifier-")]
    assert not left


def test_outputs_are_bit_identical_to_bare_runs() -> None:
    a, b = network(), planted()
    x = images()
    _, passes = lockstep(a, b, x=x)
    with torch.no_grad():
        assert torch.equal(passes.values[0][0], a(x))
        assert torch.equal(passes.values[1][0], b(x))


def test_outputs_are_bit_identical_with_one_thread_too() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        test_outputs_are_bit_identical_to_bare_runs()
    finally:
        torch.set_num_threads(threads)


def test_every_site_is_compared_before_a_later_in_place_operator_changes_it() -> None:
    a, b, x = network().double(), planted().double(), images().double()
    expected: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for kept, model in enumerate((a, b)):
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d | nn.Conv2d):

                def keep(_m: nn.Module, _i: object, out: Tensor, name: str = name, kept: int = kept) -> None:
                    expected.setdefault(name, (np.empty(0), np.empty(0)))
                    pair = list(expected[name])
                    pair[kept] = out.numpy().copy()
                    expected[name] = (pair[0], pair[1])

                module.register_forward_hook(keep)
    with torch.no_grad():
        a(x), b(x)
    for model in (a, b):
        for module in model.modules():
            module._forward_hooks.clear()
    alignment, passes = lockstep(a, b, x=x)
    measured = errors(alignment, passes)
    assert len(expected) == 15
    for name, (p, q) in expected.items():
        assert measured[name] == pytest.approx(
            np.linalg.norm(p - q) / np.linalg.norm(p), rel=1e-9, abs=1e-300
        )


def test_in_a_free_pass_errors_spread() -> None:
    alignment, passes = lockstep(network(), planted())
    found = errors(alignment, passes)
    wrong = [name for name, error in found.items() if error > 1e-6]
    assert wrong[0] == "1.bn1"
    assert len(wrong) > 15


def test_in_a_forced_pass_exactly_the_faults_show() -> None:
    alignment, passes = lockstep(network(), planted(), force=True)
    found = errors(alignment, passes)
    assert {name for name, error in found.items() if error > 0} == {"1.bn1", "3.conv2"}


def test_forcing_a_rewritten_model_makes_its_output_the_baselines() -> None:
    baseline, candidate = network(), network(Rewritten, seed=1)
    _, passes = lockstep(baseline, candidate, force=True)
    assert torch.equal(passes.values[0][0], passes.values[1][0])


def test_free_and_forced_lanes_run_side_by_side() -> None:
    a, b, x = network(), planted(), images()
    alignment = align(graph_of(a, x), graph_of(b, x))
    lanes = [
        lane("baseline", a, alignment, x),
        lane("candidate", b, alignment, x),
        lane("candidate", b, alignment, x),
    ]
    sites = [list(map(list, zip(*alignment.pairs, strict=True)))[k] for k in (0, 1, 1)]
    passes = run(lanes, Plan(sites, [Comparing(0, 1), Comparing(0, 2, force=True)]))
    free, forced = errors(alignment, passes, 0), errors(alignment, passes, 1)
    assert sum(error > 0 for error in free.values()) > sum(error > 0 for error in forced.values()) == 2


class Counted(nn.Sequential):
    """Knows how often copies of it have run."""

    runs: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        Counted.runs = (*Counted.runs, len(x))
        found: Tensor = nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
        return found


@pytest.mark.parametrize("second", [network, planted])
def test_a_forced_lane_waits_until_the_free_one_differs(second: Callable[[], nn.Module]) -> None:
    a, b, x = network(), Counted(second()), images()
    alignment = align(graph_of(a, x), graph_of(b, x))

    def forced(after: int | None) -> tuple[Passes, int]:
        lanes = [lane("baseline", a, alignment, x), *(lane("candidate", b, alignment, x) for _ in range(2))]
        sites = [[pair[side] for pair in alignment.pairs] for side in (0, 1, 1)]
        Counted.runs = ()
        plan = Plan(sites, [Comparing(0, 1), Comparing(0, 2, force=True, after=after)])
        return run(lanes, plan), len(Counted.runs)

    (at_once, both), (waiting, begun) = forced(None), forced(0)
    assert (both, begun) == (2, 1 if second is network else 2)
    assert waiting.meetings == at_once.meetings
    assert waiting.outputs == at_once.outputs
    assert all(map(torch.equal, waiting.values[2], at_once.values[2]))


def test_a_run_may_end_at_a_pair() -> None:
    a, b, x = network(), Counted(planted()), images()
    alignment = align(graph_of(a, x), graph_of(b, x))
    lanes = [lane("baseline", a, alignment, x), lane("candidate", b, alignment, x)]
    sites = [[pair[side] for pair in alignment.pairs] for side in (0, 1)]
    whole = lockstep(a, b, x=x)[1]
    part = run(lanes, Plan(sites, [Comparing(0, 1)], last=5))
    assert part.meetings[0][:5] == whole.meetings[0][:5]
    assert all(meeting.moments is None for meeting in part.meetings[0][5:])
    assert part.values == ((), ())


@pytest.mark.parametrize("second", [network, planted])
def test_what_two_lanes_agree_in_is_measured_once_and_as_if_twice(second: Callable[[], nn.Module]) -> None:
    x = images()
    wide = network().double()
    models = [network(), second()]
    alignment = align(graph_of(models[0], x), graph_of(models[1], x))

    def distances(comparisons: Sequence[Comparing]) -> Passes:
        lanes = [
            lane("baseline", wide, alignment, x.double()),
            lane("baseline", models[0], alignment, x),
            lane("candidate", models[1], alignment, x),
        ]
        sites = [[pair[side] for pair in alignment.pairs] for side in (0, 0, 1)]
        return run(lanes, Plan(sites, comparisons))

    together = distances([Comparing(1, 2), Comparing(0, 1), Comparing(0, 2)])
    for k, comparing in enumerate((Comparing(0, 1), Comparing(0, 2)), 1):
        assert errors(alignment, together, k) == errors(alignment, distances([comparing]))


def test_forced_lanes_that_agree_are_both_overwritten() -> None:
    a, b, x = network(), planted(), images()
    alignment = align(graph_of(a, x), graph_of(b, x))
    lanes = [lane("baseline", a, alignment, x), *(lane("candidate", b, alignment, x) for _ in range(2))]
    sites = [[pair[side] for pair in alignment.pairs] for side in (0, 1, 1)]
    passes = run(
        lanes, Plan(sites, [Comparing(1, 2), Comparing(0, 1, force=True), Comparing(0, 2, force=True)])
    )
    for k in (1, 2):
        found = errors(alignment, passes, k)
        assert {name for name, error in found.items() if error > 0} == {"1.bn1", "3.conv2"}


def test_one_module_may_be_both_models() -> None:
    model = network()
    alignment, passes = lockstep(model, model)
    assert len(alignment.pairs) == len(alignment.baseline.comparable)
    assert not any(errors(alignment, passes).values())


def test_views_keep_their_aliasing_when_forced() -> None:
    class Viewing(nn.Module):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.shift = shift

        def forward(self, x: Tensor) -> Tensor:
            y = x + self.shift
            head = y[:, :1]  # a view: forcing y must reach it, writing it must reach y
            head.mul_(2)
            return y.sum((2, 3))

    alignment, passes = lockstep(Viewing(0.0), Viewing(1.0), force=True)
    assert [name for name, error in errors(alignment, passes).items() if error] == ["add"]
    assert torch.equal(passes.values[0][0], passes.values[1][0])


def test_forcing_never_writes_into_parameters() -> None:
    class Transposed(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.t()

    weight = torch.randn(3, 3)
    a, b = Transposed(weight.clone()), Transposed(weight * 2)
    alignment, passes = lockstep(a, b, force=True, x=torch.ones(2, 3))
    assert torch.equal(b.weight, weight * 2)
    assert errors(alignment, passes)["matmul"] > 0.5  # the difference was not overwritten away


def test_expanded_tensors_are_left_alone_when_forced() -> None:
    class Expanding(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: Tensor) -> Tensor:
            return (x.mean(0, keepdim=True) * self.factor).expand(4, -1) * 1

    _, passes = lockstep(Expanding(1.0), Expanding(2.0), force=True, x=torch.ones(4, 3))
    assert torch.equal(passes.values[0][0], passes.values[1][0])


def test_shapes_that_differ_are_reported_and_the_run_goes_on() -> None:
    strided = network()
    strided[1].conv1.stride = (2, 2)
    strided[1].conv2 = nn.ConvTranspose2d(4, 4, 2, stride=2, bias=False)
    alignment, passes = lockstep(network(), strided)
    shapes = {
        alignment.baseline.sites[p.baseline].name: (m.shape, m.other_shape)
        for p, m in zip(alignment.pairs, passes.meetings[0], strict=True)
    }
    assert shapes["1.bn1"] == ((2, 4, 8, 8), (2, 4, 4, 4))
    assert shapes["6"] == ((2, 5), (2, 5))


class Raising(Counting):
    def forward(self, x: Tensor) -> Tensor:
        if self.is_live():
            raise ZeroDivisionError("on purpose\nsecond line")
        return x * 1


class Timesing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_an_exception_in_either_model_ends_both_with_the_real_error(side: str) -> None:
    broken = nn.Sequential(nn.Conv2d(3, 3, 1), Raising(), nn.ReLU()).eval()
    whole = nn.Sequential(nn.Conv2d(3, 3, 1), Timesing(), nn.ReLU()).eval()
    models = (broken, whole) if side == "baseline" else (whole, broken)
    with pytest.raises(
        ModelError,
        match=rf"the {side} failed at 1\.mul: ZeroDivisionError: on purpose \(test_passes.py, line \d+\)$",
    ) as info:
        lockstep(*models)
    assert isinstance(info.value.__cause__, ZeroDivisionError)


class Moody(Counting):
    """Takes another path from its second call on."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x if self.is_live() else x * 2


def test_a_live_run_that_departs_from_the_recorded_one_is_an_error_naming_the_site() -> None:
    steady = nn.Sequential(nn.ReLU(), nn.Tanh())
    moody = nn.Sequential(nn.ReLU(), Moody(), nn.Tanh())
    with pytest.raises(
        GraphDepartureError, match=r"the candidate departs.*`add` in 1 where.*`mul` \(site 1.mul\)"
    ):
        lockstep(steady, moody)


def test_a_run_that_ends_early_is_an_error() -> None:
    class Quitting(Counting):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            return y if self.is_live() else y + 1

    with pytest.raises(GraphDepartureError, match=r"it ended where the recorded run called `add`"):
        lockstep(Quitting(), Quitting())


def test_an_interrupt_between_pairs_ends_all_lanes() -> None:
    met = 0

    def interrupt() -> None:
        nonlocal met
        met += 1
        if met == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lockstep(network(), network(), progress=interrupt)


def test_an_interrupt_raised_inside_a_model_reaches_the_caller() -> None:
    class Interrupting(Counting):
        def forward(self, x: Tensor) -> Tensor:
            if self.is_live():
                signal.raise_signal(signal.SIGINT)
            return x.relu()

    with pytest.raises(KeyboardInterrupt), undisturbed():
        lockstep(nn.ReLU(), nn.Sequential(nn.ReLU(), Interrupting()))


def test_a_closed_lane_unwinds_even_a_model_that_swallows_exceptions() -> None:
    class Swallowing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return x.relu()
            except Exception:
                return x

    x = images()
    alignment = align(graph_of(Swallowing(), x), graph_of(Swallowing(), x))
    one = lane("baseline", Swallowing(), alignment, x)
    assert one.advance() == 0
    one.close()
    one.close()
    assert one.tensor is None


def test_grad_mode_of_the_caller_does_not_reach_the_lanes() -> None:
    x = images()
    model = network()
    alignment = align(graph_of(model, x), graph_of(model, x))
    one = lane("baseline", model, alignment, x)
    with torch.enable_grad():
        one.advance()
        assert one.tensor is not None
        assert not one.tensor.requires_grad
    one.close()


def test_memory_does_not_grow_with_depth() -> None:
    shape = (1, 3, 61, 61)

    def most_alive(layers: int) -> int:
        model = nn.Sequential(*(nn.ReLU() for _ in range(layers)))
        x = torch.zeros(shape)
        alignment = align(graph_of(model, x), graph_of(model, x))
        lanes = [lane(role, model, alignment, x) for role in ("baseline", "candidate")]
        alive: list[int] = []

        def count() -> None:
            alive.append(sum(type(o) is Tensor and o.shape == shape for o in gc.get_objects()))

        run(lanes, Plan([[pair.baseline for pair in alignment.pairs]] * 2, [Comparing(0, 1)]), count)
        return max(alive)

    shallow, deep = most_alive(6), most_alive(60)
    assert deep <= shallow + 4  # what the first run left uncollected; keeping records would add 108


def test_a_slow_model_does_not_hold_up_an_error_of_the_other() -> None:
    class Slow(Counting):
        def forward(self, x: Tensor) -> Tensor:
            y, pause = x.relu(), 0.1 if self.is_live() else 0
            for _ in range(100):
                time.sleep(pause)
                y = y * 1
            return y

    def fail() -> None:
        raise ZeroDivisionError

    started = time.perf_counter()
    with pytest.raises(ZeroDivisionError):
        lockstep(nn.Sequential(nn.ReLU()), Slow(), progress=fail)
    assert time.perf_counter() - started < 5  # not the 10 s of the whole forward


def test_a_pass_that_changes_the_state_of_its_thread_is_run_in_a_thread() -> None:
    class Grad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                return x * 2

    class Cast(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return x @ x.mT

    class Inference(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.inference_mode():
                return x * 2

    class Operator(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = torch.ops.aten.mul(x, 2)
            return result

    for model in (Grad(), Cast(), Inference(), Operator()):
        assert not test_recording.graph_of(model, images()).suspendable
        _, passes = lockstep(model, model) if _suspendable is False else (None, None)
        assert passes is None or passes.meetings[0][-1].moments is not None
    assert test_recording.graph_of(network(), images()).suspendable


def test_a_closed_lane_lets_go_of_its_model_at_once() -> None:
    model = network()
    x = images()
    graph = graph_of(model, x)
    copied = copy_of(model)
    gone = weakref.ref(copied)
    gc.disable()
    try:
        running = Lane("model", copied, graph, (x,), {}, [0])
        del copied
        running.advance()
        running.close()
        assert gone() is None
    finally:
        gc.enable()


def test_objects_are_as_findable_afterwards_as_before() -> None:
    lockstep(network(), network())

    assert gc.get_freeze_count() == 0


def test_numbers_of_eight_bits_are_compared() -> None:
    class Narrow(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.factor = nn.Linear(4, 4), factor

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.layer(x)
            return y, (y * self.factor).to(torch.float8_e4m3fn)

    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    assert verify(Narrow(1.0), Narrow(1.0), x).verdict == "match"
    assert verify(Narrow(1.0), Narrow(1.2), x).verdict == "diverged"
