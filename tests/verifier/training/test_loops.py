"""Loops as people write them: what a loop does anywhere is seen, and other ways to the same weights are no fault."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.sweeps import swept
from tests.verifier.training.conftest import RECIPE
from verifier.errors import ModelError
from verifier.training.records import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from verifier.training.recipe import TrainingRecipe
    from verifier.training.records import TrainingParity

    Batches = Iterable[tuple[Tensor, Tensor]]
    Loop = Callable[[Any, Batches], None]
    Parity = Callable[..., TrainingParity]
    Pair = tuple[Any, Any]


def other(**changes: Any) -> TrainingRecipe:
    return msgspec.structs.replace(RECIPE, **changes)


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def sgd(model: Any, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, "momentum": 0.9, **options})


def loop(
    *,
    after: Callable[[Any], object] = lambda _: None,
    last: Callable[[Any], object] = lambda _: None,
    back: Callable[[Tensor], object] = backward,
    optimiser: Callable[[Any], torch.optim.Optimizer] = sgd,
) -> Loop:
    def train(model: Any, batches: Batches) -> None:
        made = optimiser(model)
        for images, labels in batches:
            made.zero_grad()
            back(F.cross_entropy(model(images), labels))
            made.step()
            with torch.no_grad():
                after(model)
        with torch.no_grad():
            last(model)

    return train


def shrink(model: Any) -> None:
    for parameter in model.parameters():
        parameter.mul_(0.99)


def clear_one(model: Any) -> None:
    model[7].weight.zero_()


AFTER = {"shrunk": (shrink, "0.weight"), "one layer cleared": (clear_one, "7.weight")}


@pytest.mark.parametrize(("change", "tensor"), AFTER.values(), ids=AFTER)
def test_what_is_done_to_weights_after_the_step_is_found(
    twins: Pair, parity: Parity, change: Callable[[Any], object], tensor: str
) -> None:
    found = parity(*twins, trainer=loop(), candidate_trainer=loop(after=change))
    assert found.verdict == "diverged"
    first = found.first_divergence
    assert first is not None
    assert (first.step, first.phase, first.what, first.tensor) == (0, Phase.AFTER, "weight", tensor)
    assert parity(*twins, trainer=loop(after=change)).bit_exact  # on both sides it is no difference


@pytest.mark.parametrize("buffer", [False, True])
def test_what_is_done_after_the_last_batch_is_found(twins: Pair, parity: Parity, buffer: bool) -> None:
    def change(model: Any) -> None:
        (model[1].running_mean if buffer else model[7].weight).add_(1)

    found = parity(*twins, trainer=loop(), candidate_trainer=loop(last=change))
    kind, name = ("buffer", "1.running_mean") if buffer else ("weight", "7.weight")
    assert [(each.what, each.tensor) for each in found.culprits] == [(f"{kind} at the end", name)]


WAYS: dict[str, Callable[[Tensor], object]] = {
    "torch.autograd.backward": lambda loss: torch.autograd.backward(loss),  # noqa: PLW0108 - looked up when called
    "of a vector": lambda loss: (loss * torch.ones(2)).backward(torch.full((2,), 0.5)),  # type: ignore[no-untyped-call]
}


@pytest.mark.parametrize("back", WAYS.values(), ids=WAYS)
def test_a_backward_pass_is_seen_however_it_is_called(
    twins: Pair, parity: Parity, back: Callable[[Tensor], object]
) -> None:
    both = parity(*twins, trainer=loop(back=back))
    assert (both.verdict, both.bit_exact) == ("match", True)
    assert all(math.isfinite(ours) for ours, _ in both.losses)
    assert parity(*twins, trainer=loop(), candidate_trainer=loop(back=back)).verdict == "match"
    assert torch.autograd.backward.__module__ == "torch.autograd"
    assert not hasattr(torch.autograd.backward, "__wrapped__")


def micro_batches(model: Any, batches: Batches) -> None:
    optimiser = sgd(model)
    for images, labels in batches:
        optimiser.zero_grad()
        for some, theirs in zip(images.chunk(2), labels.chunk(2), strict=True):
            backward(F.cross_entropy(model(some), theirs) / 2)
        optimiser.step()


def two_losses(model: Any, batches: Batches) -> None:
    optimiser = sgd(model)
    for images, labels in batches:
        optimiser.zero_grad()
        scores = model(images)
        F.cross_entropy(scores, labels).backward(retain_graph=True)  # type: ignore[no-untyped-call]
        backward(1e-3 * scores.square().mean())
        optimiser.step()


@pytest.mark.parametrize("train", [micro_batches, two_losses])
def test_passes_of_one_batch_are_compared_one_by_one(
    twins: Pair, rewritten: Pair, parity: Parity, train: Loop
) -> None:
    assert parity(*rewritten, trainer=train).verdict == "match"
    twins[1][3].bn2.eps = 1e-3
    found = parity(*twins, trainer=train)
    assert found.first_divergence is not None
    assert (found.first_divergence.phase, found.first_divergence.tensor) == (Phase.FORWARD, "3.bn2")


def test_a_pass_too_many_is_found(twins: Pair, parity: Parity) -> None:
    def twice(model: Any, batches: Batches) -> None:
        optimiser = sgd(model)
        for images, labels in batches:
            model(images)  # updates the running statistics
            optimiser.zero_grad()
            backward(F.cross_entropy(model(images), labels))
            optimiser.step()

    found = parity(*twins, trainer=loop(), candidate_trainer=twice)
    assert found.verdict == "diverged"
    assert found.first_divergence is not None
    assert "2 times in a batch" in found.first_divergence.reason


class InTwoSteps(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight) + self.bias


class OneByOne(nn.Module):
    """The mean over rows, then over columns, where the baseline takes both at once."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(3).mean(2)[:, :, None, None]


def test_operators_written_out_are_trained_alike(twins: Pair, parity: Parity) -> None:
    twins[1][7].__class__ = InTwoSteps
    twins[1][5] = OneByOne()
    found = parity(*twins)
    assert found.verdict == "match", found.culprits[:2]
    assert found.coverage.candidate_share == 1


class OwnSGD(torch.optim.Optimizer):
    """The same arithmetic, under another name."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.05})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            state["velocity"] = (
                state["velocity"] * 0.9 + parameter.grad if "velocity" in state else parameter.grad.clone()
            )
            parameter.add_(state["velocity"], alpha=-self.param_groups[0]["lr"])


def by_hand(model: Any, batches: Batches) -> None:
    for images, labels in batches:
        model.zero_grad()
        backward(F.cross_entropy(model(images), labels))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.05 * parameter.grad)


def divided_late(model: Any, batches: Batches) -> None:
    optimiser = sgd(model, momentum=0.0)
    for images, labels in batches:
        optimiser.zero_grad()
        backward(F.cross_entropy(model(images), labels) * 2)
        for parameter in model.parameters():
            parameter.grad /= 2
        optimiser.step()


OTHER_WAYS = {
    "an optimiser of one's own": (loop(), loop(optimiser=lambda model: OwnSGD(model.parameters()))),
    "an update by hand": (loop(optimiser=lambda model: sgd(model, momentum=0.0)), by_hand),
    "gradients divided and not the loss": (loop(optimiser=lambda m: sgd(m, momentum=0.0)), divided_late),
}


@pytest.mark.parametrize(("ours", "theirs"), OTHER_WAYS.values(), ids=OTHER_WAYS)
def test_another_way_to_the_same_weights_is_told_and_no_fault(
    twins: Pair, parity: Parity, ours: Loop, theirs: Loop
) -> None:
    found = parity(*twins, trainer=ours, candidate_trainer=theirs)
    assert found.verdict == "match", found.culprits[:2]
    assert any(note.startswith("the trainings go other ways, to the same weights") for note in found.notes)


def test_another_momentum_is_found_before_it_shows_in_the_weights(twins: Pair, parity: Parity) -> None:
    found = parity(
        *twins,
        trainer=loop(),
        candidate_trainer=loop(optimiser=lambda model: sgd(model, momentum=0.8)),
        steps=2,
    )
    assert found.verdict == "diverged"
    assert {each.what for each in found.culprits} == {"momentum_buffer"}


def test_statistics_that_one_side_does_not_keep_leave_the_verdict_open(twins: Pair, parity: Parity) -> None:
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    norm.load_state_dict(twins[1][1].state_dict(), strict=False)
    twins[1][1] = norm
    for pair, role in ((twins, "baseline"), (twins[::-1], "candidate")):
        found = parity(*pair)
        assert found.verdict == "inconclusive"
        assert f"training writes the {role}'s 1.running_mean, which has no partner" in found.reason


def test_a_loop_in_evaluation_mode_shows_no_training(twins: Pair, parity: Parity) -> None:
    def evaluating(model: Any, batches: Batches) -> None:
        model.eval()
        loop()(model, batches)

    found = parity(*twins, trainer=evaluating)
    assert found.verdict == "inconclusive"
    assert "no forward pass in training mode" in found.reason


def test_a_loop_without_a_backward_pass_is_not_said_to_have_an_infinite_loss(
    twins: Pair, parity: Parity
) -> None:
    def forgetful(model: Any, batches: Batches) -> None:
        optimiser = sgd(model)
        for images, _ in batches:
            model(images)
            optimiser.step()

    found = parity(*twins, trainer=forgetful)
    assert found.verdict == "inconclusive"
    assert "no backward pass of the baseline was seen" in found.reason


def test_fetching_ahead_is_refused_in_a_sentence(twins: Pair, parity: Parity) -> None:
    def ahead(model: Any, batches: Batches) -> None:
        loop()(model, list(batches))

    with pytest.raises(
        ModelError, match="asks for a second batch before it has done anything with the first"
    ):
        parity(*twins, trainer=loop(), candidate_trainer=ahead)


AUTOCASTS = [("off", "bfloat16"), ("bfloat16", "off"), ("bfloat16", "float16")]


@pytest.mark.parametrize(("ours", "theirs"), swept(AUTOCASTS, AUTOCASTS[::2]))
def test_autocast_on_one_side_is_a_difference(twins: Pair, parity: Parity, ours: str, theirs: str) -> None:
    found = parity(
        *twins,
        recipe=other(amp=ours, loss_scale=1.0),
        candidate_recipe=other(amp=theirs, loss_scale=1.0),
    )
    assert found.verdict == "diverged"
    assert found.first_divergence is not None
    assert (found.first_divergence.phase, found.first_divergence.tensor) == (Phase.FORWARD, "0")
    assert found.first_divergence.reason.startswith("it is computed in")


@pytest.mark.parametrize("narrow", [{"recipe": other(amp="bfloat16")}, {"dtype": "float32"}])
def test_what_a_narrow_dtype_hides_is_found_in_float64(
    twins: Pair, parity: Parity, narrow: dict[str, Any]
) -> None:
    twins[1][3].bn1.eps = 1.1e-5
    found = parity(*twins, **narrow)
    assert found.verdict == "diverged"
    assert found.first_divergence is not None
    assert (found.first_divergence.phase, found.first_divergence.tensor) == (Phase.FORWARD, "3.bn1")
    assert any("found by training in float64" in note for note in found.notes)


def test_a_narrow_dtype_without_a_fault_says_that_float64_agrees(twins: Pair, parity: Parity) -> None:
    twins[1][5] = OneByOne()
    found = parity(*twins, recipe=other(amp="bfloat16"))
    assert found.verdict == "match"
    assert any(
        "in float64, without autocast: every phase of every step agrees" in note for note in found.notes
    )


@pytest.mark.parametrize(
    ("changes", "phase"),
    [({"label_smoothing": 0.105}, Phase.LOSS), ({"clip_norm": 0.505}, Phase.CLIP)],
)
def test_what_autocast_leaves_in_float32_is_judged_as_float32(
    twins: Pair, parity: Parity, changes: dict[str, Any], phase: Phase
) -> None:
    base = other(amp="bfloat16", label_smoothing=0.1, clip_norm=0.5)
    found = parity(*twins, recipe=base, candidate_recipe=msgspec.structs.replace(base, **changes))
    assert found.verdict == "diverged"
    assert found.first_divergence is not None
    assert (found.first_divergence.phase, found.first_divergence.allowed.rule.rpartition(" ")[2]) == (
        phase,
        "float32",
    )


def test_a_schedule_that_nothing_shows_of_is_told(twins: Pair, parity: Parity) -> None:
    found = parity(*twins, recipe=other(schedule="step", step_size=30))
    assert any("schedules were not compared" in note for note in found.notes)
    assert parity(*twins).notes == ()
