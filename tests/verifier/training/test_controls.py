"""Correct loops that are written otherwise: nothing is blamed."""

from __future__ import annotations

import copy
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
    clip_together,
    counted,
    dense,
    exponential,
    halves,
    loop,
    momentum_rule,
    normed,
    own,
    plain_loss,
    rmsprop_rule,
    scorer,
    sgd,
    smoothed,
    with_sgd,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.verifier.training.loops import Batches, Loop
    from verifier.training.records import TrainingParity

    Parity = Callable[..., TrainingParity]

optim = torch.optim


def in_halves(model: Any, batches: Batches) -> None:
    """Each batch in two portions, each counted by its share."""
    optimiser = sgd(model)
    for images, labels in batches:
        optimiser.zero_grad()
        for x, y in zip(images.tensor_split([3]), labels.tensor_split([3]), strict=True):
            (F.cross_entropy(model(x), y, reduction="sum") / len(images)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def rate_within(_: Tensor, gradient: Tensor, kept: dict[str, Any], *, lr: float, momentum: float) -> Tensor:
    """The velocity of SGD times the rate, under the name torch has for the velocity."""
    kept["momentum_buffer"] = (
        momentum * kept.get("momentum_buffer", torch.zeros_like(gradient)) + lr * gradient
    )
    velocity: Tensor = kept["momentum_buffer"]
    return velocity.clone()


def smoothed_by_hand(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    logs = model(images).log_softmax(1)
    wanted = torch.full_like(logs, 0.1 / 5).scatter_(1, labels[:, None], 0.9 + 0.1 / 5)
    loss: Tensor = -(wanted * logs).sum(1).mean()
    return loss


def decay_by_hand(model: Any) -> None:
    for parameter in model.parameters():
        parameter.grad += 0.01 * parameter.detach()


def clip_by_hand(model: Any) -> None:
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    for parameter in model.parameters():
        parameter.grad *= min(1.0, float(0.1 / (norm + 1e-6)))


def with_gradient_scaler(model: Any, batches: Batches) -> None:
    optimiser, scaler = sgd(model), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for images, labels in batches:
        optimiser.zero_grad()
        scaler.scale(plain_loss(model, images, labels)).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimiser)
        clip_together(0.1)(model)
        scaler.step(optimiser)
        scaler.update()


def with_a_closure(model: Any, batches: Batches) -> None:
    optimiser = sgd(model)
    for images, labels in batches:

        def closure(images: Tensor = images, labels: Tensor = labels) -> Tensor:
            optimiser.zero_grad()
            loss = plain_loss(model, images, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[arg-type]


def rate_set_before(model: Any, batches: Batches) -> None:
    optimiser = sgd(model)
    for number, (images, labels) in enumerate(batches):
        optimiser.param_groups[0]["lr"] = 0.05 * 0.9**number
        optimiser.zero_grad()
        plain_loss(model, images, labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def taught(by_name: bool) -> Loop:
    """A teacher that is an average of the model and is called on each batch (a mean teacher)."""

    def train(model: Any, batches: Batches) -> None:
        optimiser = sgd(model)
        teacher = copy.deepcopy(model).requires_grad_(False)
        for images, labels in batches:
            optimiser.zero_grad()
            scores = model(images)
            with torch.no_grad():
                wanted = teacher(images).softmax(1)
            (F.cross_entropy(scores, labels) + F.mse_loss(scores.softmax(1), wanted)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            with torch.no_grad():
                if by_name:
                    weights = dict(model.named_parameters())
                    for name, mean in teacher.named_parameters():
                        mean.mul_(0.9).add_(0.1 * weights[name])
                else:
                    for mean, weight in zip(teacher.parameters(), model.parameters(), strict=True):
                        mean.lerp_(weight, 0.1)

    return train


def averaged_by_torch(model: Any, batches: Batches) -> None:
    optimiser = sgd(model)
    kept = optim.swa_utils.get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]
    average = optim.swa_utils.AveragedModel(model, multi_avg_fn=kept)
    average.update_parameters(model)  # the first takes the weights as they are
    for images, labels in batches:
        optimiser.zero_grad()
        plain_loss(model, images, labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        average.update_parameters(model)
    for buffer, source in zip(average.module.buffers(), model.buffers(), strict=True):
        buffer.copy_(source)
    model.load_state_dict(average.module.state_dict())


CONTROLS: dict[str, tuple[Loop, Loop, Callable[[], Any]]] = {
    "foreach Adam": (loop(optimiser=adam()), loop(optimiser=adam(foreach=True)), scorer),
    "fused AdamW": (loop(optimiser=adamw(foreach=False)), loop(optimiser=adamw(fused=True)), scorer),
    "fused SGD": (with_sgd(weight_decay=0.01), with_sgd(weight_decay=0.01, fused=True), scorer),
    "SGD by hand": (loop(), loop(optimiser=by_hand(momentum_rule)), scorer),
    "SGD of one's own": (loop(), loop(optimiser=own(momentum_rule, lr=0.05, momentum=0.9)), scorer),
    "Nesterov by hand": (with_sgd(nesterov=True), loop(optimiser=by_hand(momentum_rule, ahead=True)), scorer),
    "a velocity of another unit": (loop(), loop(optimiser=own(rate_within, lr=0.05, momentum=0.9)), scorer),
    "AdamW by hand": (loop(optimiser=adamw()), loop(optimiser=by_hand(adam_rule, decoupled=0.1)), scorer),
    "Adam of one's own": (
        loop(optimiser=adam(weight_decay=0.1)),
        loop(optimiser=own(adam_rule, lr=1e-3, coupled=0.1)),
        scorer,
    ),
    "two optimisers of one's own": (
        loop(optimiser=own(rmsprop_rule, lr=0.01, alpha=0.9, eps=1e-3)),
        loop(optimiser=by_hand(rmsprop_rule, lr=0.01, alpha=0.9, eps=1e-3)),
        scorer,
    ),
    "decay by hand": (with_sgd(weight_decay=0.01), loop(before_step=decay_by_hand), scorer),
    "clipped by hand": (loop(before_step=clip_together(0.1)), loop(before_step=clip_by_hand), scorer),
    "a gradient scaler": (loop(before_step=clip_together(0.1)), with_gradient_scaler, scorer),
    "a scaled loss": (loop(), loop(scale=1000.0), scorer),
    "half the rate of twice the loss": (
        with_sgd(lr=0.1),
        loop(loss=lambda model, images, labels: 2 * plain_loss(model, images, labels)),
        scorer,
    ),
    "smoothing by hand": (loop(loss=smoothed(0.1)), loop(loss=smoothed_by_hand), scorer),
    "portions for a whole batch": (loop(), in_halves, scorer),
    "a whole batch for portions": (in_halves, loop(), scorer),
    "portions by all labels that count": (
        by_all,
        halves(lambda t, _, whole: t * (1 / int(counted(whole)))),
        dense,
    ),
    "an average": (averaging(0.9), averaging(0.9), normed),
    "an average by torch": (averaging(0.9), averaged_by_torch, normed),
    "a teacher": (taught(by_name=False), taught(by_name=True), normed),
    "a closure": (loop(), with_a_closure, scorer),
    "a rate set by hand": (loop(schedule=exponential(0.9)), rate_set_before, scorer),
}


@pytest.mark.parametrize(("baseline", "candidate", "net"), CONTROLS.values(), ids=CONTROLS)
def test_a_correct_loop_written_otherwise_matches(
    parity: Parity, baseline: Loop, candidate: Loop, net: Callable[[], Any]
) -> None:
    found = parity(net(), net(), trainer=baseline, candidate_trainer=candidate, steps=5)
    assert found.verdict == "match", found.first_divergence
    assert len({loss for loss, _ in found.losses}) > 1  # something was learnt


def test_what_rounding_grows_to_in_free_training_makes_no_other_way_a_fault(parity: Parity) -> None:
    """So large a rate takes two roundings apart: the weights agree step by step alone."""
    wild = {"lr": 0.7, "momentum": 0.9}
    mine = loop(optimiser=lambda model: sgd(model, **wild))
    other = loop(optimiser=own(rate_within, **wild))
    found = parity(grown(), grown(), trainer=mine, candidate_trainer=other, steps=40)
    assert max(error or 0 for row in found.rows if row.what == "weight" for error in row.total) > 1e-12
    assert found.verdict == "match", found.first_divergence


def grown() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 5)
    )
