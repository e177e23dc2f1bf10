"""Why updates differ that are made of the same weights and gradients: two rules that give all numbers, compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from verifier.training.records import TrainingCause
from verifier.training.update_rules import FAMILIES, Rule, of_numbers, of_torch
from verifier.training.update_search import Side, nearest, steps_to_look_at
from verifier.training.wording import numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.training.history import History, Update

    Makers = tuple[type | None, type | None]

_TRIES = 20_000  # steps of rules a parameter; of some twenty operations on a few numbers each
_TRIES_IN_ALL = 40_000
_TRIES_AFTER_FAILING = 6_000  # what one parameter has no rule for, others will have none for either


class _Found(NamedTuple):
    baseline: Rule
    candidate: Rule


class UpdateCauses:
    """Explains the updates of parameters, one after the other; what explained one is tried first on the next.

    Args:
        history: What was recorded.
        roundoff: Unit roundoff of the dtype of the training.
    """

    def __init__(self, history: History, roundoff: float) -> None:
        self._history = history
        self._roundoff = roundoff
        self._known: list[_Found] = []
        self._tries = _TRIES_IN_ALL

    def cause(self, name: str, makers: Makers) -> TrainingCause | None:
        """Why the candidate's parameter of this name is updated otherwise; None where no pair of rules tells.

        `makers` are the classes of the optimisers that have it, the baseline's and the candidate's.
        """
        updates = self._history.updates.get(name, [])
        differing = [k for k, each in enumerate(updates) if not _same(each)]
        if not differing:
            return None
        updates = updates[: steps_to_look_at(differing[0], len(updates))]
        sides = tuple(self._side(updates, k) for k in (0, 1))
        found = self._rules(updates, sides, makers)
        self._tries -= sum(side.tries for side in sides)
        if found is None:
            self._tries = min(self._tries, _TRIES_AFTER_FAILING)
            return None
        if found not in self._known:
            self._known.append(found)
        return _told(found, sides, differing[0])

    def _side(self, updates: Sequence[Update], k: int) -> Side:
        rates = [each.options[k].get("lr") for each in updates]
        known = all(isinstance(rate, float) for rate in rates)
        return Side(
            [each.weight for each in updates],
            [each.gradient for each in updates],
            [each.norm for each in updates],
            [each.after[k] for each in updates],
            [float(rate) for rate in rates if rate is not None] if known else None,
            self._roundoff,
        )

    def _rules(self, updates: Sequence[Update], sides: tuple[Side, ...], makers: Makers) -> _Found | None:
        options = updates[0].options
        known = tuple(
            _known(side, maker, each) for side, maker, each in zip(sides, makers, options, strict=True)
        )
        baseline, candidate = known
        if baseline is not None and candidate is not None:
            return _Found(baseline, candidate)
        for found in self._known:
            if all(side.error(rule) <= side.limit() for side, rule in zip(sides, found, strict=True)):
                return found
        literals = [dict(each) for each in _literals(options)]
        tries = min(_TRIES, self._tries)
        for k in (0, 1):
            anchor = known[k]
            if anchor is not None:
                other = nearest(
                    sides[1 - k],
                    anchor,
                    literals,
                    sides[1 - k].limit(anchor if sides[1 - k].known_rates else None),
                    tries,
                )
                return None if other is None else _Found(*((anchor, other) if k == 0 else (other, anchor)))
        for family in FAMILIES:
            baseline = nearest(
                sides[0],
                of_numbers(family, {**options[1], **options[0]}),
                literals,
                sides[0].limit(),
                tries // 4,
            )
            if baseline is None:
                continue
            candidate = nearest(sides[1], baseline, literals, sides[1].limit(baseline), tries)
            if candidate is not None:
                return _Found(baseline, candidate)
        return None


def _same(update: Update) -> bool:
    b, c = update.after
    size = max(float((b - update.weight).norm()), 1e-300)
    return float((b - c).norm()) <= 1e-9 * size + 16 * 2.0**-53 * float(b.norm())


def _known(side: Side, maker: type | None, options: Mapping[str, Any]) -> Rule | None:
    """The rule of an optimiser of torch, if it gives what was recorded."""
    rule = None if maker is None else of_torch(maker, options)
    return rule if rule is not None and side.error(rule) <= side.limit() else None


def _literals(options: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, float]]:
    """The numbers that stand among the options of either side, setting by setting."""
    for family in FAMILIES:
        for each in options:
            rule = of_numbers(family, each)
            for name in ("momentum", "second", "eps", "decay", "dampening", "start", "clip"):
                yield {name: getattr(rule, name)}


_NAMES = {"sgd": "SGD", "adam": "Adam", "rmsprop": "RMSprop", "adagrad": "Adagrad"}
_FLAGS: dict[
    str, tuple[str, str, str, str]
] = {  # code, subject, what is said of it where it is on, and where off
    "eps_inside": (
        "optimiser-eps",
        "eps is added",
        "inside the root (sqrt(v + eps))",
        "outside the root (sqrt(v) + eps)",
    ),
    "eps_first": ("optimiser-eps", "eps is added", "before the bias correction", "after it"),
    "averages": ("momentum-averaged", "its momentum", "averages (m v + (1 - m) g)", "sums (m v + g)"),
    "damped_first": ("dampening", "the first gradient's dampening is", "on", "off"),
    "nesterov": ("nesterov", "nesterov is", "on", "off"),
    "rate_inside": (
        "learning-rate",
        "its velocity is made of",
        "gradients times the rate of their time",
        "gradients, and multiplied by the rate of the step",
    ),
    "centered": ("optimiser-option", "centered is", "on", "off"),
    "amsgrad": ("optimiser-option", "amsgrad is", "on", "off"),
    "decoupled": (
        "weight-decay-coupling",
        "weight decay is",
        "decoupled (it shrinks the weight)",
        "coupled (L2: it is added to the gradient)",
    ),
    "decay_by_rate": (
        "weight-decay-coupling",
        "decoupled weight decay is",
        "multiplied by the learning rate",
        "not multiplied by the learning rate",
    ),
    "ascends": ("update-sign", "the step goes", "uphill", "downhill"),
}
_NUMBERS: dict[str, tuple[str, str]] = {
    "decay": ("weight-decay", "weight_decay"),
    "momentum": ("optimiser-momentum", "momentum"),
    "second": ("optimiser-second-moment", "alpha"),
    "eps": ("optimiser-eps", "eps"),
    "dampening": ("dampening", "dampening"),
    "start": ("optimiser-start", "what squares are summed on"),
    "clip": ("clip-each", "the norm to which the step clips each tensor's gradient by itself"),
}


def _told(found: _Found, sides: tuple[Side, ...], first: int) -> TrainingCause | None:
    baseline, candidate = found
    said = [*_settings(baseline, candidate)]
    rates = [[rate * rule.rate for rate in side.rates] for side, rule in zip(sides, found, strict=True)]
    same = all(_is(b, c) for b, c in zip(*rates, strict=True))
    if not same and baseline.family == candidate.family:
        kept = candidate.momentum
        averaged = not said and kept and _is(rates[1][first], (1 - kept) * rates[0][first])
        text = _rates(rates, first)
        if averaged:  # the same numbers by another edit, which is the likelier
            text = f"its momentum averages (m v + (1 - m) g), the baseline's sums (m v + g); or {text}"
        said.append(("momentum-averaged" if averaged else "learning-rate", text))
    if not said:
        return None
    return TrainingCause(code=said[0][0], summary="; ".join(text for _, text in said), confirmed=True)


def _settings(baseline: Rule, candidate: Rule) -> Iterator[tuple[str, str]]:
    """In what two rules differ, as codes and clauses."""
    if baseline.family != candidate.family:
        here, there = _NAMES[candidate.family], _NAMES[baseline.family]
        yield "optimiser-different", f"it is updated as by {here}, the baseline's as by {there}"
        return
    unlike = [name for name in candidate.unlike(baseline) if name != "rate"]
    if "averages" in unlike or "dampening" in unlike:  # which gradient it begins with goes without saying
        unlike = [name for name in unlike if name != "damped_first"]
    uncorrected = {"corrected_first", "corrected_second"} & {*unlike}
    if uncorrected:
        yield _correction(uncorrected, on=getattr(candidate, min(uncorrected)))
    for name in unlike:
        b, c = getattr(baseline, name), getattr(candidate, name)
        if name in _FLAGS:
            code, subject, on, off = _FLAGS[name]
            here, there = (on, off) if c else (off, on)
            yield code, f"{subject} {here}, the baseline's {there}"
        elif name in _NUMBERS:
            code, plain = _NUMBERS[name]
            if baseline.family == "adam":
                plain = {"momentum": "beta1", "second": "beta2"}.get(name, plain)
            here, there = (numbers(each) if each or name != "clip" else "none" for each in (c, b))
            averages = (
                ", so that momentum averages" if name == "dampening" and _is(c, candidate.momentum) else ""
            )
            yield code, f"{plain} is {here}{averages}, the baseline's {there}"


def _is(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-9 * abs(other)


def _correction(which: set[str], *, on: bool) -> tuple[str, str]:
    moments = (
        "both moments"
        if len(which) == 2
        else "the first moment"
        if "corrected_first" in which
        else "the second moment"
    )
    verb = "are" if len(which) == 2 else "is"
    here, there = ("", "not ") if on else ("not ", "")
    told = f"{moments} {verb} {here}corrected for starting at zero (bias correction)"
    return "bias-correction", f"{told}, the baseline's {verb} {there}corrected"


def _rates(rates: Sequence[Sequence[float]], first: int) -> str:
    b, c = rates[0][first], rates[1][first]
    times = f"its step is {c / b:.6g} times the baseline's: " if b else ""
    return f"{times}the rate is {numbers(c)}, the baseline's {numbers(b)}"
