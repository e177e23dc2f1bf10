"""Samples that are streamed: the same answer as of those that are held, in memory that does not grow with them."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from tests.networks import Block, Rewritten, images, network
from verifier import UsageError, Verdict, verify
from verifier.inputs import Stream, tensors
from verifier.records import to_builtins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verifier.inputs import Inputs
    from verifier.records import Result


class Slices:
    """A source of samples that are held after all."""

    samples: int | None = None
    batches: int | None = None
    origin = "pictures"
    identity = ""
    readers = 0

    def __init__(self, whole: Tensor, size: int) -> None:
        self.parts = torch.split(whole, size)
        self.alive: list[weakref.ref[Tensor]] = []

    def read(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, int, Inputs]]:
        offset = 0
        for number, part in enumerate(self.parts):
            if wanted(number):
                yield number, offset, tensors(part.clone())
            offset += len(part)

    def name(self, sample: int) -> str:
        return f"picture {sample}"


def streamed(whole: Tensor, size: int) -> Stream:
    return Stream(Slices(whole, size))


class Sharper(Block):
    """Differs for pictures that are brighter than most."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return torch.where(y > 25, y * 1.5, y)


def numbers(result: Result) -> list[dict[str, Any]]:
    cell = result.cells[-1]
    return [
        to_builtins(each) for each in (*(row.total for row in cell.layers), cell.output) if each is not None
    ]


@pytest.mark.parametrize("candidate", [Block, Rewritten])
def test_what_is_streamed_is_measured_as_what_is_held(candidate: type[nn.Module]) -> None:
    models, whole = (network(), network(candidate, seed=1)), images(batch=26)
    held = verify(*models, whole, batch_size=5, cells=["cpu/float32"])
    found = verify(*models, streamed(whole, 5), cells=["cpu/float32"])
    assert held.verdict is found.verdict is Verdict.MATCH
    assert found.cells[-1].batch_size == 26
    named, expected = numbers(found), numbers(held)
    named[-1]["sample_errors"]["name"] = ""
    assert named == expected
    assert (found.inputs.samples, held.inputs.samples) == (26, None)
    assert found.exercise is not None
    assert held.exercise is not None
    assert found.exercise.inputs == held.exercise.inputs


def test_the_one_sample_on_which_two_models_part_is_found_named_and_explained() -> None:
    whole = images(batch=40) / 100
    whole[33] *= 3000
    found = verify(network(), network(Sharper, seed=1), streamed(whole, 8))
    assert found.verdict is Verdict.DIVERGED
    numerics = found.cells[-1]
    first = numerics.first_divergence
    assert first is not None
    assert first.sample == "picture 33"
    assert numerics.output is not None
    assert numerics.output.sample_errors is not None
    assert numerics.output.sample_errors.name == "picture 33"
    exactly = found.cells[0]
    assert (exactly.role, exactly.batch_size) == ("semantics", 3)  # the first batch's ends, and this one
    assert exactly.verdict is Verdict.DIVERGED


class Dimmed(nn.Module):
    """What a network returns, with a little more of it for the brightest pictures."""

    def __init__(self, more: float) -> None:
        super().__init__()
        self.net, self.more = network(), more

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return torch.where(x.mean((1, 2, 3))[:, None] > 2, y * (1 + self.more), y)


@pytest.mark.parametrize(("cell", "more"), [("cpu/float32", 3e-6), ("cpu/bfloat16", 1e-2)])
def test_one_sample_of_many_that_is_a_little_off_is_no_match_though_the_mean_hides_it(
    cell: str, more: float
) -> None:
    whole = images(batch=400)
    whole[150] += 4
    found = verify(Dimmed(0.0), Dimmed(more), streamed(whole, 100), cells=[cell])
    exactly, numerics = found.cells
    assert (exactly.verdict, exactly.batch_size) == (Verdict.DIVERGED, 3)
    assert numerics.output is not None
    assert numerics.output.sample_errors is not None
    assert numerics.output.sample_errors.name == "picture 150"
    assert found.verdict is Verdict.DIVERGED


class Thirds(nn.Module):
    """A network whose pictures are rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x * 3 / 3)
        return y


def test_where_float64_agrees_on_the_worst_sample_as_well_it_is_said() -> None:
    found = verify(network(), Thirds(), streamed(images(batch=40), 8))
    assert found.verdict is Verdict.MATCH, found.reason
    assert any("furthest apart on picture" in note for note in found.notes)


def test_a_sample_far_back_is_found_in_batches_that_are_held_as_well() -> None:
    whole = images(batch=40) / 100
    whole[33] *= 3000
    found = verify(network(), network(Sharper, seed=1), whole, batch_size=8)
    exactly = found.cells[0]
    assert (exactly.role, exactly.batch_size) == ("semantics", 3)
    assert exactly.verdict is Verdict.DIVERGED


class Averaged(nn.Module):
    """Tokens to scores, the mean over their length; a little more of it for those that begin with 49."""

    def __init__(self, more: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.last, self.more = nn.Embedding(50, 16), nn.Linear(16, 4), more

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        mean = x.mean(1) if not self.more else (x * (1 / x.shape[1])).sum(1)
        y: Tensor = self.last(mean)
        return torch.where(tokens[:, :1] == 49, y * (1 + self.more), y)


def lengths() -> Stream:
    """Batches of 4 samples, of other lengths; sample 9 begins with 49."""
    source = Slices(torch.zeros(1), 1)
    generator = torch.Generator().manual_seed(1)
    source.parts = tuple(torch.randint(0, 49, (4, n), generator=generator) for n in (6, 9, 5, 12))
    source.parts[2][1, 0] = 49
    return Stream(source)


@pytest.mark.parametrize(
    ("more", "verdict"), [(1e-30, Verdict.MATCH), (3e-6, Verdict.DIVERGED), (0.5, Verdict.DIVERGED)]
)
def test_the_worst_sample_is_looked_at_where_others_have_other_lengths(more: float, verdict: Verdict) -> None:
    found = verify(Averaged().eval(), Averaged(more).eval(), lengths())
    assert found.verdict is verdict, found.reason
    exactly = found.cells[0]
    if verdict is Verdict.MATCH:
        assert any("furthest apart on picture" in note for note in found.notes)
    else:
        assert (exactly.role, exactly.verdict, exactly.batch_size) == ("semantics", Verdict.DIVERGED, 1)


class Counting(Slices):
    """Tells how many of the batches that it has given are still there."""

    def __init__(self, whole: Tensor, size: int) -> None:
        super().__init__(whole, size)
        self.most = 0

    def read(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, int, Inputs]]:
        alive: list[weakref.ref[Tensor]] = []
        for number, offset, inputs in super().read(wanted):
            alive.append(weakref.ref(inputs.args[0]))
            yield number, offset, inputs
            del inputs
            gc.collect()
            self.most = max(self.most, sum(each() is not None for each in alive))


def test_batches_are_gone_when_the_next_one_comes() -> None:
    source = Counting(images(batch=16), 2)
    assert verify(network(), network(seed=1), Stream(source)).verdict is Verdict.MATCH
    assert source.most <= 3  # the head, the last one and its successor


class Routed(nn.Module):
    """Does otherwise where a batch is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.one(x)) if bool(x.max() < 100) else torch.sigmoid(self.two(self.one(x)))


def test_control_flow_that_depends_on_a_batch_far_back_is_never_a_match() -> None:
    whole = torch.randn(20, 8)
    whole[17] = 1000
    with pytest.raises(UsageError, match="control flow depends on what is in a batch"):
        verify(Routed(), Routed(), streamed(whole, 4))


def test_the_candidate_is_given_no_samples_of_its_own_beside_a_stream() -> None:
    with pytest.raises(UsageError, match="streamed to both models alike"):
        verify(network(), network(), streamed(images(batch=4), 2), candidate_inputs=images(batch=4))
