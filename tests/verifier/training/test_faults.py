"""Faults of training loops as people make them: the step, the phase, the tensor and why, by arithmetic."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.verifier.training.loops import (
    adam,
    adam_rule,
    adamw,
    averaging,
    by_all,
    by_hand,
    clip_each,
    clip_together,
    clip_values,
    counted,
    dense,
    dense_labels,
    exponential,
    halves,
    loop,
    momentum_rule,
    normed,
    own,
    rmsprop_rule,
    scorer,
    sgd,
    smoothed,
    tokens,
    with_sgd,
)
from verifier.training.records import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.verifier.training.loops import Batches, Loop
    from verifier.training.records import TrainingParity

    Parity = Callable[..., TrainingParity]

optim = torch.optim
LOSS, CLIP, OPTIMISER, AFTER = Phase.LOSS, Phase.CLIP, Phase.OPTIMISER, Phase.AFTER


@dataclass
class Fault:
    """A candidate's loop against the baseline's, and what has to be said of it."""

    candidate: Loop
    step: int
    phase: Phase
    what: str
    code: str
    words: tuple[str, ...]
    baseline: Loop = field(default_factory=loop)
    net: Callable[[], Any] = scorer
    steps: int = 4


UPDATES = {
    "no momentum": Fault(
        with_sgd(momentum=0.0),
        1,
        OPTIMISER,
        "weight",
        "optimiser-momentum",
        ("momentum is 0, the baseline's 0.9",),
    ),
    "dampening": Fault(
        with_sgd(dampening=0.9),
        1,
        OPTIMISER,
        "momentum_buffer",
        "dampening",
        ("dampening is 0.9", "averages", "the baseline's 0"),
    ),
    "Nesterov": Fault(with_sgd(nesterov=True), 0, OPTIMISER, "weight", "nesterov", ("nesterov is on",)),
    "uphill": Fault(with_sgd(maximize=True), 0, OPTIMISER, "momentum_buffer", "update-sign", ("uphill",)),
    "another rate": Fault(
        with_sgd(lr=0.02), 0, OPTIMISER, "weight", "learning-rate", ("the rate is 0.02, the baseline's 0.05",)
    ),
    "a momentum that averages, by hand": Fault(
        loop(optimiser=by_hand(momentum_rule, share=0.1)),
        0,
        AFTER,
        "weight",
        "momentum-averaged",
        ("averages",),
    ),
    "a momentum that averages, in an optimiser of one's own": Fault(
        loop(optimiser=own(momentum_rule, lr=0.05, momentum=0.9, share=0.1)),
        0,
        OPTIMISER,
        "weight",
        "momentum-averaged",
        ("averages",),
    ),
    "Adam's eps": Fault(
        loop(optimiser=adam(eps=1e-5)),
        0,
        OPTIMISER,
        "weight",
        "optimiser-eps",
        ("eps is 1e-05, the baseline's 1e-08",),
        loop(optimiser=adam()),
    ),
    "Adam's eps inside the root, by hand": Fault(
        loop(optimiser=by_hand(adam_rule, inside=True)),
        0,
        AFTER,
        "weight",
        "optimiser-eps",
        ("inside the root",),
        loop(optimiser=adam()),
    ),
    "Adam without bias correction": Fault(
        loop(optimiser=own(adam_rule, lr=1e-3, corrected=False)),
        0,
        OPTIMISER,
        "weight",
        "bias-correction",
        ("bias correction",),
        loop(optimiser=adam()),
    ),
    "Adam without bias correction, both by hand": Fault(
        loop(optimiser=by_hand(adam_rule, corrected=False)),
        0,
        AFTER,
        "weight",
        "bias-correction",
        ("bias correction",),
        loop(optimiser=by_hand(adam_rule)),
    ),
    "Adam's second beta": Fault(
        loop(optimiser=adam(betas=(0.9, 0.99))),
        0,
        OPTIMISER,
        "exp_avg_sq",
        "optimiser-second-moment",
        ("beta2 is 0.99, the baseline's 0.999",),
        loop(optimiser=adam()),
    ),
    "coupled decay for decoupled": Fault(
        loop(optimiser=adam(weight_decay=0.1)),
        0,
        OPTIMISER,
        "exp_avg",
        "weight-decay-coupling",
        ("coupled",),
        loop(optimiser=adamw()),
    ),
    "decoupled decay for coupled, by hand": Fault(
        loop(optimiser=by_hand(adam_rule, decoupled=0.1)),
        0,
        AFTER,
        "weight",
        "weight-decay-coupling",
        ("decoupled",),
        loop(optimiser=adam(weight_decay=0.1)),
    ),
    "decay left out, by hand": Fault(
        loop(optimiser=by_hand(momentum_rule)),
        0,
        AFTER,
        "weight",
        "weight-decay",
        ("weight_decay is 0, the baseline's 0.01",),
        with_sgd(weight_decay=0.01),
    ),
    "RMSprop's eps inside the root": Fault(
        loop(optimiser=own(rmsprop_rule, lr=0.01, alpha=0.9, eps=1e-3)),
        0,
        OPTIMISER,
        "weight",
        "optimiser-eps",
        ("inside the root",),
        loop(optimiser=lambda model: optim.RMSprop(model.parameters(), lr=0.01, alpha=0.9, eps=1e-3)),
    ),
    "Adam for SGD": Fault(
        loop(optimiser=adam()), 0, OPTIMISER, "weight", "optimiser-different", ("Adam", "SGD")
    ),
    "amsgrad": Fault(
        loop(optimiser=adam(amsgrad=True, betas=(0.9, 0.5))),
        1,
        OPTIMISER,
        "weight",
        "optimiser-option",
        ("amsgrad is on",),
        loop(optimiser=adam(betas=(0.9, 0.5))),
        steps=8,
    ),
}


def smoothed_over_others(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    scores = model(images)
    wanted = torch.full_like(scores, 0.1 / 4).scatter_(1, labels[:, None], 0.9)
    loss: Tensor = -(wanted * scores.log_softmax(1)).sum(1).mean()
    return loss


def per_token(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    wanted = dense_labels(images, labels).flatten(1)
    return F.cross_entropy(model(images).transpose(1, 2), wanted, ignore_index=-100)


def per_sequence(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    wanted = dense_labels(images, labels).flatten(1)
    total = F.cross_entropy(model(images).transpose(1, 2), wanted, ignore_index=-100, reduction="sum")
    return total / len(images)


def shifted(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    wanted = dense_labels(images, labels).flatten(1)
    scores = model(images).transpose(1, 2)
    return F.cross_entropy(scores[..., :-1], wanted[:, 1:], ignore_index=-100)


def unshifted(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    wanted = dense_labels(images, labels).flatten(1)
    scores = model(images).transpose(1, 2)
    return F.cross_entropy(scores[..., :-1], wanted[:, :-1], ignore_index=-100)


def with_penalty(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    penalty = sum(parameter.square().sum() for parameter in model.parameters())
    loss: Tensor = F.cross_entropy(model(images), labels) + 0.005 * penalty
    return loss


def of(way: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda model, images, labels: F.cross_entropy(way(model(images)), labels)


def weighted(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(images), labels, weight=torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64))


def summed(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(images), labels, reduction="sum")


def ignoring(index: int) -> Callable[..., Tensor]:
    return lambda model, images, labels: F.cross_entropy(
        model(images), dense_labels(images, labels).clamp_min(0), ignore_index=index
    )


def ignoring_some(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(images), dense_labels(images, labels), ignore_index=-100)


def loss_fault(wrong: Callable[..., Tensor], code: str, *words: str, **options: Any) -> Fault:
    right = options.pop("right", None)
    baseline = loop() if right is None else loop(loss=right)
    return Fault(loop(loss=wrong), 0, LOSS, "loss", code, words, baseline, **options)


LOSSES = {
    "a sum for a mean": loss_fault(summed, "loss-scaled", "4 times", "samples"),
    "label smoothing": loss_fault(
        smoothed(0.1), "label-smoothing", "label smoothing is 0.1, the baseline's 0"
    ),
    "label smoothing left out": loss_fault(
        smoothed(0.0), "label-smoothing", "is 0, the baseline's 0.1", right=smoothed(0.1)
    ),
    "label smoothing over the others": loss_fault(
        smoothed_over_others, "label-smoothing", "0.1 spread over the other 4 classes", right=smoothed(0.1)
    ),
    "softmax twice": loss_fault(of(lambda scores: scores.softmax(1)), "loss-input", "softmax"),
    "a temperature": loss_fault(of(lambda scores: scores / 4), "loss-input", "divided by 4"),
    "class weights": loss_fault(
        weighted, "class-weights", "relative to the first class's", "the baseline's all the same"
    ),
    "a penalty": loss_fault(with_penalty, "loss-penalty", "0.01"),
    "per sequence for per token": loss_fault(
        per_sequence, "loss-scaled", "times", "samples", right=per_token, net=tokens
    ),
    "labels not shifted": loss_fault(unshifted, "labels-different", "shifted", right=shifted, net=tokens),
    "labels ignored": loss_fault(ignoring(0), "labels-ignored", "ignored", right=ignoring(-100), net=dense),
    "accumulated means": Fault(
        halves(lambda total, half, _: total / counted(half) / 2),
        0,
        LOSS,
        "loss",
        "loss-scaled",
        ("times", "labels that count"),
        by_all,
        dense,
    ),
    "accumulated and not divided": Fault(
        halves(lambda total, half, _: total / counted(half)),
        0,
        LOSS,
        "loss",
        "loss-scaled",
        ("times", "labels that count"),
        by_all,
        dense,
    ),
}

scaled = loop(scale=1024.0, before_step=clip_together(0.1))
CLIPS = {
    "not clipped": Fault(
        loop(),
        0,
        CLIP,
        "gradient",
        "gradients-scaled",
        ("not clipped", "0.1"),
        loop(before_step=clip_together(0.1)),
    ),
    "clipped to another norm": Fault(
        loop(before_step=clip_together(0.2)),
        0,
        CLIP,
        "gradient",
        "gradients-scaled",
        ("to 0.2, the baseline's to 0.1", "2 times"),
        loop(before_step=clip_together(0.1)),
    ),
    "clipped before unscaling": Fault(
        loop(scale=1024.0, before_unscaling=clip_together(0.1)),
        0,
        CLIP,
        "gradient",
        "clip-before-unscale",
        ("clipped to 0.1 before", "1024"),
        scaled,
    ),
    "each tensor by its own norm": Fault(
        loop(before_step=clip_each(0.1)),
        0,
        CLIP,
        "gradient",
        "clip-each",
        ("own norm, to 0.1",),
        loop(before_step=clip_together(0.1)),
    ),
    "by value": Fault(
        loop(before_step=clip_values(0.01)),
        0,
        CLIP,
        "gradient",
        "clip-value",
        ("0.01",),
        loop(before_step=clip_together(0.1)),
    ),
    "by the largest value": Fault(
        loop(
            before_step=lambda model: nn.utils.clip_grad_norm_(
                model.parameters(), 0.1, norm_type=float("inf")
            )
        ),
        0,
        CLIP,
        "gradient",
        "clip-norm",
        ("largest absolute value",),
        loop(before_step=clip_together(0.1)),
    ),
    "some tensors alone": Fault(
        loop(before_step=lambda model: nn.utils.clip_grad_norm_(model[1].parameters(), 0.1)),
        0,
        CLIP,
        "gradient",
        "clip-some",
        ("2 of 4",),
        loop(before_step=clip_together(0.1)),
    ),
    "some tensors scaled, where nothing is clipped": Fault(
        loop(before_step=lambda model: [p.grad.div_(3) for p in model[1].parameters()]),
        0,
        CLIP,
        "gradient",
        "gradients-scaled",
        ("2 of 4", "0.333333 times"),
        loop(),
    ),
    "not unscaled": Fault(
        loop(scale=1024.0, before_unscaling=lambda model: [p.grad.mul_(1024) for p in model.parameters()]),
        0,
        CLIP,
        "gradient",
        "gradients-scaled",
        ("1024 times", "not unscaled"),
        loop(scale=1024.0),
    ),
}


def end_fault(wrong: Loop, what: str, code: str, *words: str) -> Fault:
    return Fault(wrong, 3, AFTER, f"{what} at the end", code, words, averaging(0.9), normed)


ENDS = {
    "an average without its buffers": end_fault(
        averaging(0.9, buffers=False), "buffer", "buffer-never-moved", "initial values"
    ),
    "another share": end_fault(averaging(0.8), "weight", "average-different", "keeps 0.8", "keeps 0.9"),
    "shares exchanged": end_fault(averaging(0.1), "weight", "average-different", "exchanged"),
    "the average is not taken": end_fault(
        averaging(0.9, load=False), "weight", "average-different", "last batch"
    ),
    "an average that lags": end_fault(averaging(0.9, late=True), "weight", "average-different", "began with"),
}


def every(n: int) -> Callable[[Any], Any]:
    return lambda optimiser: optim.lr_scheduler.StepLR(optimiser, n, 0.5)


def rate_fault(wrong: Loop, step: int, code: str, *words: str) -> Fault:
    return Fault(
        wrong, step, Phase.SCHEDULE, "learning rate", code, words, loop(schedule=exponential(0.9)), steps=6
    )


def mean_from(first: int) -> Loop:
    """Ends with the mean of the weights from one batch on."""

    def train(model: Any, batches: Batches) -> None:
        optimiser, average = sgd(model), torch.optim.swa_utils.AveragedModel(model)
        for number, (images, labels) in enumerate(batches):
            optimiser.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if number >= first:
                average.update_parameters(model)
        model.load_state_dict(average.module.state_dict())

    return train


def accumulating(batches_a_step: int, divided_by: int) -> Loop:
    """Gradients of several batches make a step."""

    def train(model: Any, batches: Batches) -> None:
        optimiser = sgd(model)
        for number, (images, labels) in enumerate(batches, 1):
            (F.cross_entropy(model(images), labels) / divided_by).backward()  # type: ignore[no-untyped-call]
            if number % batches_a_step == 0:
                optimiser.step()
                optimiser.zero_grad()

    return train


def clamp(model: Any, _: int) -> None:
    for parameter in model.parameters():
        parameter.clamp_(-0.05, 0.05)


OTHERS = {
    "accumulated batches not divided": Fault(
        accumulating(2, 1), 0, LOSS, "loss", "loss-scaled", ("2 times",), accumulating(2, 2), steps=4
    ),
    "another number of batches a step": Fault(
        accumulating(3, 2),
        0,
        CLIP,
        "gradient",
        "steps-different",
        ("no step in this batch",),
        accumulating(2, 2),
    ),
    "weights clamped": Fault(
        loop(after=clamp), 0, AFTER, "weight", "weight-clamped-after", ("-0.05 .. 0.05",)
    ),
    "a mean that begins later": Fault(
        mean_from(2),
        3,
        AFTER,
        "weight at the end",
        "average-different",
        ("from batch 2 on", "over all batches"),
        mean_from(0),
    ),
    "means of portions for a mean over all": Fault(
        halves(lambda total, half, _: total / counted(half) / 2),
        0,
        LOSS,
        "loss",
        "loss-scaled",
        ("labels that count",),
        loop(loss=ignoring_some),
        dense,
    ),
}

RATES = {
    "another gamma": rate_fault(
        loop(schedule=exponential(0.8)), 0, "schedule-gamma", "0.04, 0.032", "0.045, 0.0405"
    ),
    "another schedule": rate_fault(
        loop(schedule=every(2)), 0, "schedule-different", "0.05, 0.025", "0.045, 0.0405"
    ),
    "no schedule": rate_fault(loop(), 0, "schedule-missing", "never changes", "0.045"),
}

FAULTS = {
    f"{kind}: {name}": fault
    for kind, faults in (
        ("update", UPDATES),
        ("loss", LOSSES),
        ("clipping", CLIPS),
        ("end", ENDS),
        ("rate", RATES),
        ("other", OTHERS),
    )
    for name, fault in faults.items()
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_by_step_phase_tensor_and_cause(parity: Parity, fault: Fault) -> None:
    found = parity(
        fault.net(), fault.net(), trainer=fault.baseline, candidate_trainer=fault.candidate, steps=fault.steps
    )
    first = found.first_divergence
    assert found.verdict == "diverged"
    assert first is not None
    assert (first.step, first.phase, first.what) == (fault.step, fault.phase, fault.what)
    assert first.cause is not None
    assert (first.cause.code, first.cause.confirmed) == (fault.code, True), first.cause
    assert all(word in first.cause.summary for word in fault.words), first.cause.summary


class Times(nn.Module):
    """A factor that one side has and the other has not."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class DropPath(nn.Module):
    """Leaves a branch out for some samples, in training alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.new_empty(len(x), 1).bernoulli_(0.5).div_(0.5) if self.training else x


class Branched(nn.Module):
    """Two branches that are added, with something at their ends."""

    def __init__(self, end: Callable[[], nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Linear(192, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.end, self.head = end(), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x.flatten(1)))
        x = x + self.end(self.one(x))
        x = x + self.end(self.two(x).tanh())
        scores: Tensor = self.head(x)
        return scores


def branched(end: Callable[[], nn.Module] = nn.Identity) -> Any:
    torch.manual_seed(0)
    return Branched(end)


class Doubled(nn.Module):
    """Multiplies the gradient, as a hook or a reversal of gradients does."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient * -0.5)  # type: ignore[no-untyped-call]
        return x + 0


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


@pytest.mark.parametrize(
    ("end", "words"),
    [(DropPath, ("bernoulli, div, mul", "missing")), (lambda: Times(0.7), ("mul",))],
    ids=["no drop path", "no factor"],
)
def test_an_operator_that_is_missing_is_named_once_a_branch(
    parity: Parity, end: Callable[[], nn.Module], words: tuple[str, ...]
) -> None:
    found = parity(branched(end), branched(), trainer=loop(), steps=2)
    assert [(each.step, each.phase, each.tensor) for each in found.culprits] == [
        (0, Phase.FORWARD, "add"),
        (0, Phase.FORWARD, "add_1"),
    ]
    for each in found.culprits:
        assert each.cause is not None
        assert each.cause.confirmed
        assert all(word in each.cause.summary for word in words), each.cause.summary


def test_a_gradient_that_is_multiplied_on_its_way_is_told_by_the_factor(parity: Parity) -> None:
    found = parity(branched(lambda: Times(1.0)), branched(Doubled), trainer=loop(), steps=2)
    first = found.first_divergence
    assert first is not None
    assert (first.step, first.phase) == (0, Phase.BACKWARD)
    assert first.cause is not None
    assert (first.cause.code, first.cause.confirmed) == ("gradient-scaled", True)
    assert "-0.5 times" in first.cause.summary


def evaluating(model: Any, batches: Batches) -> None:
    for module in model:
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
    loop()(model, batches)


def dropping() -> Any:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Dropout(0.25), nn.Tanh(), nn.Linear(6, 5))


@pytest.mark.parametrize(("net", "tensor"), [(normed, "1"), (dropping, "2")], ids=["batch norm", "dropout"])
def test_a_module_in_evaluation_mode_is_named_and_proved(
    parity: Parity, net: Callable[[], Any], tensor: str
) -> None:
    net = functools.partial(copy.deepcopy, net())
    found = parity(net(), net(), trainer=loop(), candidate_trainer=evaluating)
    first = found.first_divergence
    assert first is not None
    assert (first.step, first.phase, first.tensor) == (0, Phase.FORWARD, tensor)
    assert first.cause is not None
    assert (first.cause.code, first.cause.confirmed) == ("evaluation-mode", True)
    assert first.cause.summary == f"{tensor} is in evaluation mode, the baseline's in training mode"
    assert parity(net(), net(), trainer=evaluating).bit_exact  # on both sides it is none


def test_a_gradient_that_never_arrives_is_cut(parity: Parity) -> None:
    found = parity(branched(), branched(Cut), trainer=loop(), steps=2)
    cut = {each.tensor for each in found.culprits if each.cause and each.cause.code == "gradient-cut"}
    assert {"one.weight", "one.bias", "two.weight", "two.bias"} <= cut


def test_a_training_that_moves_nothing_excuses_no_difference(parity: Parity) -> None:
    """A model is taught by its own copy: no loss has a gradient, so that all lead to the same weights."""

    def taught(factor: float) -> Loop:
        def train(model: Any, batches: Batches) -> None:
            optimiser, teacher = sgd(model), copy.deepcopy(model)
            for images, _ in batches:
                optimiser.zero_grad()
                wanted = teacher(images).detach()
                (1 + factor * F.mse_loss(model(images), wanted)).mul(factor).backward()  # type: ignore[no-untyped-call]
                optimiser.step()

        return train

    found = parity(scorer(), scorer(), trainer=taught(1.0), candidate_trainer=taught(2.0))
    assert found.verdict == "diverged"
    assert found.first_divergence is not None
    assert found.first_divergence.phase is Phase.LOSS


def test_what_nothing_explains_is_said_to_be_unexplained(parity: Parity) -> None:
    def by_sign(_: Tensor, gradient: Tensor, __: dict[str, Any]) -> Tensor:
        return 1e-3 * gradient.sign()

    found = parity(scorer(), scorer(), trainer=loop(), candidate_trainer=loop(optimiser=by_hand(by_sign)))
    assert found.first_divergence is not None
    assert found.first_divergence.cause is not None
    assert (found.first_divergence.cause.code, found.first_divergence.cause.confirmed) == (
        "unexplained",
        False,
    )
    assert {each.what for each in found.culprits} == {"weight"}  # not the velocity that one side keeps alone


@pytest.mark.parametrize(
    "name", ["update: Adam's eps", "loss: label smoothing", "clipping: each tensor by its own norm"]
)
def test_causes_are_confirmed_in_float32_as_well(parity: Parity, name: str) -> None:
    fault = FAULTS[name]
    found = parity(
        fault.net(), fault.net(), trainer=fault.baseline, candidate_trainer=fault.candidate, dtype="float32"
    )
    assert found.first_divergence is not None
    assert found.first_divergence.cause is not None
    assert (found.first_divergence.cause.code, found.first_divergence.cause.confirmed) == (fault.code, True)


def test_a_model_that_is_watched_can_be_copied_and_saved(parity: Parity, tmp_path: Any) -> None:
    def train(model: Any, batches: Batches) -> None:
        optimiser, teacher = sgd(model), copy.deepcopy(model)
        for images, labels in batches:
            optimiser.zero_grad()
            copied = copy.deepcopy(model)
            assert torch.equal(copied(images), model(images))
            torch.save(model, tmp_path / "model.pt")
            loaded = torch.load(tmp_path / "model.pt", weights_only=False)
            assert torch.equal(loaded(images), copied(images))
            wanted = teacher(images).detach().softmax(1)
            F.cross_entropy(model(images), wanted).backward()  # type: ignore[no-untyped-call]
            assert labels is not None
            optimiser.step()

    assert parity(scorer(), scorer(), trainer=train).bit_exact
