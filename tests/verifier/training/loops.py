"""Loops, losses and optimisers as people write them, right and wrong, for small networks."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Batches = Iterable[tuple[Tensor, Tensor]]
    Loop = Callable[[Any, Batches], None]


def scorer(classes: int = 5) -> Any:
    """A classifier of images of 3 x 8 x 8, without anything that mixes samples."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Tanh(), nn.Linear(6, classes))


class Dense(nn.Module):
    """A class for each of 16 positions: (N, 5, 4, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.tanh(self.a(x)))
        return y


class Tokens(nn.Module):
    """A sequence of 16 tokens over 5 words: (N, 16, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = Dense()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dense(x).flatten(2).transpose(1, 2)
        return y


def dense() -> Any:
    torch.manual_seed(0)
    return Dense()


def tokens() -> Any:
    torch.manual_seed(0)
    return Tokens()


def dense_labels(images: Tensor, labels: Tensor) -> Tensor:
    """A label for each of 4 x 4 positions, of which another number is ignored in each image."""
    ink = F.avg_pool2d(images.mean(1), 2)
    made = (labels[:, None, None] + (ink > ink.mean()).long()) % 5
    return made.masked_fill(ink < ink.median(), -100)


def plain_loss(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(images), labels)


def sgd(model: Any, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, "momentum": 0.9, **options})


def loop(
    *,
    optimiser: Callable[[Any], Any] = sgd,
    loss: Callable[[Any, Tensor, Tensor], Tensor] = plain_loss,
    before_step: Callable[[Any], object] = lambda _: None,
    after: Callable[[Any, int], object] = lambda *_: None,
    scale: float = 1.0,
    before_unscaling: Callable[[Any], object] = lambda _: None,
    schedule: Callable[[Any], Any] | None = None,
    zero: bool = True,
) -> Loop:
    """A loop of the usual order; `scale` is a loss scale as a gradient scaler uses one."""

    def train(model: Any, batches: Batches) -> None:
        made = optimiser(model)
        rates = None if schedule is None else schedule(made)
        for number, (images, labels) in enumerate(batches):
            if zero:
                model.zero_grad()
            value = loss(model, images, labels)
            (value * scale if scale != 1 else value).backward()  # type: ignore[no-untyped-call]
            before_unscaling(model)
            if scale != 1:
                for parameter in model.parameters():
                    parameter.grad /= scale
            before_step(model)
            made.step()
            if rates is not None:
                rates.step()
            with torch.no_grad():
                after(model, number)

    return train


class ByHand:
    """An optimiser that is none of torch's: a rule of one gradient and what it keeps, for each parameter.

    It has no param groups and no hooks, so that nothing of it can be seen but the weights.
    """

    def __init__(self, model: Any, rule: Callable[[Tensor, Tensor, dict[str, Any]], Tensor]) -> None:
        self._parameters = list(model.parameters())
        self._kept: list[dict[str, Any]] = [{} for _ in self._parameters]
        self._rule = rule

    @torch.no_grad()
    def step(self) -> None:
        for parameter, kept in zip(self._parameters, self._kept, strict=True):
            kept["t"] = kept.get("t", 0) + 1
            parameter.sub_(self._rule(parameter, parameter.grad, kept))


class Own(torch.optim.Optimizer):
    """The same as an optimiser of torch's kind, with options and state of its own."""

    def __init__(self, model: Any, rule: Callable[..., Tensor], **options: Any) -> None:
        super().__init__(model.parameters(), options)
        self._rule = rule

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            options = {key: value for key, value in group.items() if key != "params"}
            for parameter in group["params"]:
                kept = self.state[parameter]
                kept["t"] = kept.get("t", 0) + 1  # a Python number, where torch keeps a tensor
                parameter.sub_(self._rule(parameter, parameter.grad, kept, **options))


def momentum_rule(
    _: Tensor,
    gradient: Tensor,
    kept: dict[str, Any],
    *,
    lr: float = 0.05,
    momentum: float = 0.9,
    share: float = 1.0,
    ahead: bool = False,
) -> Tensor:
    kept["velocity"] = momentum * kept.get("velocity", torch.zeros_like(gradient)) + share * gradient
    velocity: Tensor = kept["velocity"]
    return lr * (gradient + momentum * velocity if ahead else velocity)


def adam_rule(
    weight: Tensor,
    gradient: Tensor,
    kept: dict[str, Any],
    *,
    lr: float = 1e-3,
    eps: float = 1e-8,
    inside: bool = False,
    corrected: bool = True,
    coupled: float = 0.0,
    decoupled: float = 0.0,
    second: float = 0.999,
) -> Tensor:
    gradient = gradient + coupled * weight
    zero, t = torch.zeros_like(gradient), kept["t"]
    kept["m"] = 0.9 * kept.get("m", zero) + 0.1 * gradient
    kept["v"] = second * kept.get("v", zero) + (1 - second) * gradient * gradient
    m = kept["m"] / (1 - 0.9**t) if corrected else kept["m"]
    v = kept["v"] / (1 - second**t) if corrected else kept["v"]
    root = (v + eps).sqrt() if inside else v.sqrt() + eps
    step: Tensor = lr * m / root + lr * decoupled * weight
    return step


def rmsprop_rule(
    _: Tensor, gradient: Tensor, kept: dict[str, Any], *, lr: float, alpha: float, eps: float
) -> Tensor:
    kept["v"] = alpha * kept.get("v", torch.zeros_like(gradient)) + (1 - alpha) * gradient.square()
    step: Tensor = lr * gradient / (kept["v"] + eps).sqrt()
    return step


def clip_together(limit: float) -> Callable[[Any], object]:
    return lambda model: torch.nn.utils.clip_grad_norm_(model.parameters(), limit)


def clip_each(limit: float) -> Callable[[Any], object]:
    return lambda model: [torch.nn.utils.clip_grad_norm_([p], limit) for p in model.parameters()]


def clip_values(limit: float) -> Callable[[Any], object]:
    return lambda model: torch.nn.utils.clip_grad_value_(model.parameters(), limit)


def adam(**options: Any) -> Callable[[Any], Any]:
    return lambda model: torch.optim.Adam(model.parameters(), **{"lr": 1e-3, **options})


def adamw(**options: Any) -> Callable[[Any], Any]:
    return lambda model: torch.optim.AdamW(model.parameters(), **{"lr": 1e-3, "weight_decay": 0.1, **options})


def by_hand(rule: Callable[..., Tensor], **settings: Any) -> Callable[[Any], Any]:
    return lambda model: ByHand(model, lambda w, g, kept: rule(w, g, kept, **settings))


def own(rule: Callable[..., Tensor], **options: Any) -> Callable[[Any], Any]:
    return lambda model: Own(model, rule, **options)


def with_sgd(**options: Any) -> Loop:
    return loop(optimiser=lambda model: sgd(model, **options))


def smoothed(share: float) -> Callable[..., Tensor]:
    return lambda model, images, labels: F.cross_entropy(model(images), labels, label_smoothing=share)


def halves(divided: Callable[[Tensor, Tensor, Tensor], Any]) -> Loop:
    """Gradients of both halves of each batch, accumulated; `divided` makes a half's loss of it and of all labels."""

    def train(model: Any, batches: Batches) -> None:
        optimiser = sgd(model)
        for images, labels in batches:
            optimiser.zero_grad()
            wanted = dense_labels(images, labels)
            for x, y in zip(images.chunk(2), wanted.chunk(2), strict=True):
                total = F.cross_entropy(model(x), y, ignore_index=-100, reduction="sum")
                divided(total, y, wanted).backward()
            optimiser.step()

    return train


def counted(labels: Tensor) -> Tensor:
    return (labels != -100).sum()


by_all = halves(lambda total, half, whole: total / counted(whole))


def averaging(keep: float, *, buffers: bool = True, load: bool = True, late: bool = False) -> Loop:
    """Trains, and ends with an average of the weights, which a copy of the model holds."""

    def train(model: Any, batches: Batches) -> None:
        optimiser = sgd(model)
        average = copy.deepcopy(model).eval()
        for images, labels in batches:
            optimiser.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            before = [p.detach().clone() for p in model.parameters()]
            optimiser.step()
            with torch.no_grad():
                now = before if late else list(model.parameters())
                for mean, weight in zip(average.parameters(), now, strict=True):
                    mean.lerp_(weight, 1 - keep)
                for mean, buffer in zip(average.buffers(), model.buffers(), strict=True):
                    if buffers:
                        mean.copy_(buffer)
            average(images)  # as a teacher is called
        if load:
            model.load_state_dict(average.state_dict())

    return train


def normed() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


def exponential(gamma: float) -> Callable[[Any], Any]:
    return lambda optimiser: torch.optim.lr_scheduler.ExponentialLR(optimiser, gamma)
