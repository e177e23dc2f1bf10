"""How optimisers make an update of a gradient, in closed form: one family a rule, every way of writing it a setting.

The formulas are those of `torch.optim` (its documentation's boxes), and the ways in which other libraries and
implementations by hand depart from them: where eps stands, what is corrected, what decays, how a momentum is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """An optimiser's rule for one parameter.

    Attributes:
        family: `sgd`, `adam`, `rmsprop` or `adagrad`.
        rate: The learning rate where none is recorded, else a factor on what is.
        momentum: Share of the velocity that is kept; of `adam` the first beta.
        dampening: Share of the gradient that does not reach the velocity.
        averages: Whether the velocity is a mean: what it does not keep is the gradient's share.
        damped_first: Whether either holds for the first gradient too; torch's SGD takes it whole.
        nesterov: Whether the step looks ahead.
        rate_inside: Whether the velocity holds gradients times the rate they came with.
        second: Share of the mean of squares that is kept; of `adagrad` unused, as squares are summed.
        start: What the squares start from.
        centered: Whether the mean gradient's square is taken off.
        eps: Added to the denominator.
        eps_inside: Whether it is added below the root.
        eps_first: Whether it is added before the correction of the second moment (TensorFlow's epsilon hat).
        corrected_first: Whether the first moment is corrected for its start at zero.
        corrected_second: Whether the second is.
        amsgrad: Whether the largest second moment so far is taken.
        decay: Weight decay.
        decoupled: Whether it shrinks the weight, and does not reach the gradient.
        decay_by_rate: Whether the decoupled one is multiplied by the rate.
        ascends: Whether it goes uphill.
        clip: The norm to which it clips the parameter's gradient, by itself; 0 for none.
    """

    family: str
    rate: float = 1.0
    momentum: float = 0.0
    dampening: float = 0.0
    averages: bool = False
    damped_first: bool = False
    nesterov: bool = False
    rate_inside: bool = False
    second: float = 0.0
    start: float = 0.0
    centered: bool = False
    eps: float = 0.0
    eps_inside: bool = False
    eps_first: bool = False
    corrected_first: bool = True
    corrected_second: bool = True
    amsgrad: bool = False
    decay: float = 0.0
    decoupled: bool = False
    decay_by_rate: bool = True
    ascends: bool = False
    clip: float = 0.0

    def but(self, **changes: Any) -> Rule:
        """The rule with other settings."""
        return replace(self, **changes)

    def unlike(self, other: Rule) -> tuple[str, ...]:
        """The settings in which two rules differ and that have an effect in either."""
        if self.family != other.family:
            return ("family",)
        return tuple(
            name
            for name in SETTINGS[self.family]
            if getattr(self, name) != getattr(other, name) and not (self._idle(name) and other._idle(name))
        )

    def _idle(self, name: str) -> bool:
        """Whether a setting does nothing while others are as they are."""
        if name == "decay_by_rate":
            return not (self.decay and self.decoupled)
        if name == "decoupled":
            return not self.decay
        if name == "damped_first":
            return not (self.momentum and (self.dampening or self.averages))
        return name in _OF_VELOCITY and self.family != "adam" and not self.momentum


_OF_VELOCITY = ("dampening", "averages", "nesterov", "rate_inside")
_OF_ALL = ("decay", "decoupled", "decay_by_rate", "ascends", "clip", "rate")
_OF_EPS = ("eps", "eps_inside")
SETTINGS = {
    "sgd": ("momentum", *_OF_VELOCITY, "damped_first", *_OF_ALL),
    "adam": (
        "momentum",
        "second",
        *_OF_EPS,
        "eps_first",
        "corrected_first",
        "corrected_second",
        "amsgrad",
        "start",
        *_OF_ALL,
    ),
    "rmsprop": ("second", *_OF_EPS, "centered", "start", "momentum", *_OF_VELOCITY, "damped_first", *_OF_ALL),
    "adagrad": (*_OF_EPS, "start", *_OF_ALL),
}
"""What there is to set in each family."""


_SMALL = 1e-6  # what clip_grad_norm_ adds to the norm it divides by


@dataclass(frozen=True)
class Made:
    """What a rule makes of a step: the weight, and what it keeps under torch's names."""

    weight: Tensor
    states: Mapping[str, Tensor]


def run(
    rule: Rule,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    norms: Sequence[float],
    rates: Sequence[float],
) -> Iterator[Made]:
    """The steps of a rule, each from the weight that was there before it; what the rule keeps is its own.

    Args:
        rule: The rule.
        weights: Before each step, (n,), float64.
        gradients: As applied, likewise.
        norms: Of the whole gradients.
        rates: The learning rate of each step.
    """
    step = {"sgd": _sgd, "adam": _adam, "rmsprop": _rmsprop, "adagrad": _adagrad}[rule.family]
    states: dict[str, Tensor] = {}
    given = zip(weights, gradients, norms, rates, strict=True)
    for number, (weight, gradient, norm, recorded) in enumerate(given, 1):
        rate = recorded * rule.rate
        towards = -gradient if rule.ascends else gradient
        if rule.clip and norm + _SMALL > rule.clip:
            towards = towards * (rule.clip / (norm + _SMALL))
        if rule.decay and not rule.decoupled:
            towards = towards + rule.decay * weight
        move = step(rule, towards, states, rate, number)
        if rule.decay and rule.decoupled:
            move = move + (rate if rule.decay_by_rate else 1.0) * rule.decay * weight
        yield Made(weight - move, dict(states))


def _sgd(rule: Rule, gradient: Tensor, states: dict[str, Tensor], rate: float, _: int) -> Tensor:
    if not rule.momentum:
        return rate * gradient
    return _through_velocity(rule, gradient, states, rate)


def _through_velocity(rule: Rule, push: Tensor, states: dict[str, Tensor], rate: float) -> Tensor:
    """The step of what is pushed with momentum; `velocity` is torch's `momentum_buffer`."""
    own = push * rate if rule.rate_inside else push
    before = states.get("momentum_buffer")
    share = 1 - rule.momentum if rule.averages else 1 - rule.dampening
    if before is None and not rule.damped_first:
        share = 1.0
    velocity = share * own if before is None else rule.momentum * before + share * own
    states["momentum_buffer"] = velocity
    ahead = own + rule.momentum * velocity if rule.nesterov else velocity
    return ahead if rule.rate_inside else rate * ahead


def _adam(rule: Rule, gradient: Tensor, states: dict[str, Tensor], rate: float, number: int) -> Tensor:
    zero = torch.zeros_like(gradient)
    mean = rule.momentum * states.get("exp_avg", zero) + (1 - rule.momentum) * gradient
    square = rule.second * states.get("exp_avg_sq", zero + rule.start) + (1 - rule.second) * gradient.square()
    states["exp_avg"], states["exp_avg_sq"] = mean, square
    if rule.amsgrad:
        square = torch.maximum(states.get("max_exp_avg_sq", zero), square)
        states["max_exp_avg_sq"] = square
    first = _correction(rule.momentum, number) if rule.corrected_first else 1.0
    second = _correction(rule.second, number) if rule.corrected_second else 1.0
    if rule.eps_inside:
        root = (square / second + rule.eps).sqrt()
    elif rule.eps_first:
        root = (square.sqrt() + rule.eps) / math.sqrt(second)
    else:
        root = (square / second).sqrt() + rule.eps
    return rate * (mean / first) / root


def _correction(kept: float, number: int) -> float:
    """What a mean that started at zero amounts to after so many steps; never 0, for a beta that is tried may be 1."""
    return max(1 - kept**number, 1e-300)


def _rmsprop(rule: Rule, gradient: Tensor, states: dict[str, Tensor], rate: float, _: int) -> Tensor:
    zero = torch.zeros_like(gradient)
    square = rule.second * states.get("square_avg", zero + rule.start) + (1 - rule.second) * gradient.square()
    states["square_avg"] = square
    if rule.centered:
        mean = rule.second * states.get("grad_avg", zero) + (1 - rule.second) * gradient
        states["grad_avg"] = mean
        square = square - mean.square()
    root = (square + rule.eps).sqrt() if rule.eps_inside else square.sqrt() + rule.eps
    push = gradient / root
    return _through_velocity(rule, push, states, rate) if rule.momentum else rate * push


def _adagrad(rule: Rule, gradient: Tensor, states: dict[str, Tensor], rate: float, _: int) -> Tensor:
    zero = torch.zeros_like(gradient)
    square = states.get("sum", zero + rule.start) + gradient.square()
    states["sum"] = square
    root = (square + rule.eps).sqrt() if rule.eps_inside else square.sqrt() + rule.eps
    return rate * gradient / root


_TORCH = {"SGD": "sgd", "Adam": "adam", "AdamW": "adam", "RMSprop": "rmsprop", "Adagrad": "adagrad"}
_NUMBERS = {
    "momentum": ("momentum", "mu", "beta", "beta1", "b1"),
    "second": ("alpha", "rho", "beta2", "b2", "decay_rate"),
    "eps": ("eps", "epsilon", "e"),
    "decay": ("weight_decay", "wd", "l2"),
    "dampening": ("dampening",),
    "clip": ("max_grad_norm", "clip_norm", "clip", "max_norm"),
    "start": ("initial_accumulator_value",),
}


def of_torch(maker: type, options: Mapping[str, Any]) -> Rule | None:
    """The rule of an optimiser of `torch.optim` by its options; None for one that is not described here."""
    if not maker.__module__.startswith("torch.optim") or maker.__name__ not in _TORCH:
        return None
    if options.get("lr_decay"):
        return None
    rule = of_numbers(_TORCH[maker.__name__], options)
    return rule.but(
        nesterov=bool(options.get("nesterov", False)),
        centered=bool(options.get("centered", False)),
        amsgrad=bool(options.get("amsgrad", False)),
        ascends=bool(options.get("maximize", False)),
        decoupled=bool(options.get("decoupled_weight_decay", maker.__name__ == "AdamW")),
    )


_USUAL = {
    "sgd": Rule("sgd"),
    "adam": Rule("adam", momentum=0.9, second=0.999, eps=1e-8),
    "rmsprop": Rule("rmsprop", second=0.99, eps=1e-8),
    "adagrad": Rule("adagrad", eps=1e-10),
}
FAMILIES = tuple(_USUAL)


def of_numbers(family: str, options: Mapping[str, Any]) -> Rule:
    """The usual rule of a family with the numbers that stand among an optimiser's options, by their usual names."""
    found: dict[str, float] = {}
    betas = options.get("betas")
    if isinstance(betas, tuple | list) and len(betas) == 2 and family == "adam":
        found |= {"momentum": float(betas[0]), "second": float(betas[1])}
    for setting, names in _NUMBERS.items():
        number = next((options[name] for name in names if _is_number(options.get(name))), None)
        if number is not None:
            found.setdefault(setting, float(number))
    return _USUAL[family].but(**found)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
