"""Which rule made the updates that were recorded: the smallest change of a known one that gives every number."""

from __future__ import annotations

import contextlib
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch

from verifier.training.update_rules import SETTINGS, Rule, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

_CLOSE = 1e-9  # relative to a step; a setting that differs by less than this shows in no number
_ROUNDED = 16  # roundings an update may carry from what it was computed from
_TIMES = 1e3  # so many times closer a rule has to come than one that is known to be wrong
_AHEAD = 6  # steps beyond the first difference that are looked at
_ITERATIONS = 12

Changes = dict[str, Any]

_FLAGS: dict[str, tuple[Changes, ...]] = {
    "eps_inside": ({"eps_inside": True}, {"eps_inside": False}),
    "eps_first": ({"eps_first": True},),
    "corrected_first": ({"corrected_first": False, "corrected_second": False}, {"corrected_first": False}),
    "corrected_second": ({"corrected_second": False},),
    "averages": (
        {"averages": True, "damped_first": True},
        {"averages": True, "damped_first": False},
        {"averages": False, "dampening": 0.0},
    ),
    "damped_first": ({"damped_first": True}, {"damped_first": False}),
    "nesterov": ({"nesterov": True}, {"nesterov": False}),
    "rate_inside": ({"rate_inside": True},),
    "decoupled": (
        {"decoupled": True, "decay_by_rate": True},
        {"decoupled": True, "decay_by_rate": False},
        {"decoupled": False},
    ),
    "decay": ({"decay": 0.0},),
    "momentum": ({"momentum": 0.0},),
    "centered": ({"centered": True}, {"centered": False}),
    "amsgrad": ({"amsgrad": True}, {"amsgrad": False}),
    "start": ({"start": 1.0}, {"start": 0.0}),
    "ascends": ({"ascends": True}, {"ascends": False}),
    "clip": ({"clip": 0.0},),
}
_SOLVED = ("rate", "momentum", "second", "eps", "decay", "dampening", "start", "clip")
# Where a number is looked for first, if the rule it starts from has none.
_FROM = {
    "momentum": 0.9,
    "second": 0.99,
    "eps": 1e-8,
    "decay": 1e-3,
    "dampening": 0.1,
    "start": 0.1,
    "clip": 1e-4,
}


class Side:
    """The recorded updates of one side, which a rule is to reproduce.

    Args:
        weights: Before each step, (n,), float64.
        gradients: As applied.
        norms: Of the whole gradients.
        after: What this side made of them.
        rates: Its learning rates; None where none are known.
        roundoff: Unit roundoff of the dtype it computed in.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        norms: Sequence[float],
        after: Sequence[Tensor],
        rates: Sequence[float] | None,
        roundoff: float,
    ) -> None:
        self.weights, self.gradients, self.norms, self.after = weights, gradients, norms, after
        self.known_rates = rates is not None
        self.rates = [1.0] * len(weights) if rates is None else list(rates)
        moves = [float((a - w).norm()) for a, w in zip(after, weights, strict=True)]
        typical = max(moves, default=0.0)
        self._sizes = [max(move, 1e-6 * typical) for move in moves]
        self._rounding = [_ROUNDED * roundoff * float(w.norm()) for w in weights]
        self.tries = 0

    def error(self, rule: Rule) -> float:
        """The largest error of a step relative to the step, beyond rounding; infinite where nothing comes out."""
        self.tries += len(self.weights)
        worst = 0.0
        made = run(rule, self.weights, self.gradients, self.norms, self.rates)
        for each, wanted, size, rounding in zip(made, self.after, self._sizes, self._rounding, strict=True):
            error = max(0.0, float((each.weight - wanted).norm()) - rounding) / (size or 1.0)
            if not error <= worst:
                worst = error
            if not worst < 1e-3:  # NaN included: no use in going on
                return worst if worst == worst else float("inf")  # noqa: PLR0124
        return worst

    def residual(self, rule: Rule) -> Tensor:
        """All errors in one row, relative to their steps."""
        self.tries += len(self.weights)
        made = run(rule, self.weights, self.gradients, self.norms, self.rates)
        parts = [
            (each.weight - wanted) / (size or 1.0)
            for each, wanted, size in zip(made, self.after, self._sizes, strict=True)
        ]
        return torch.cat(parts)

    def limit(self, wrong: Rule | None = None) -> float:
        """How close a rule has to come; closer where one that is known to be wrong is close already."""
        if wrong is None:
            return _CLOSE
        apart = self.error(wrong)
        return min(_CLOSE, apart / _TIMES) if apart > 0 else _CLOSE


def steps_to_look_at(first: int, count: int) -> int:
    """How many steps are recorded of which the first different one is `first`."""
    return min(count, first + _AHEAD)


def nearest(side: Side, anchor: Rule, literals: Sequence[Changes], limit: float, tries: int) -> Rule | None:
    """The rule nearest to `anchor` that reproduces a side; None if there is none within so many tries.

    Args:
        side: What is to be reproduced.
        anchor: The rule to change as little as can be.
        literals: Changes that stand somewhere as written.
        limit: The relative error allowed.
        tries: Steps of rules allowed.
    """
    until = side.tries + tries
    free = () if side.known_rates else ("rate",)
    for changes, solved in _edits(anchor, literals):
        if side.tries > until:
            return None
        rule = anchor.but(**changes)
        fields = tuple(dict.fromkeys((*solved, *free)))
        found = _solved(side, rule, fields, limit) if fields else rule
        if found is not None and side.error(found) <= limit:
            return found
    return None


def _edits(anchor: Rule, literals: Sequence[Changes]) -> Iterator[tuple[Changes, tuple[str, ...]]]:
    """Changes by what they cost: none, one, two; what is written or a flag before a number that has to be found."""
    settings = SETTINGS[anchor.family]
    flags = [
        changes
        for name in settings
        for changes in _FLAGS.get(name, ())
        if any(getattr(anchor, key) != value for key, value in changes.items())
    ]
    written = [each for each in literals if any(getattr(anchor, key) != value for key, value in each.items())]
    numbers = [name for name in _SOLVED if name in settings]
    yield {}, ()
    for changes in (*written, *flags):
        yield changes, ()
    for name in numbers:
        yield {}, (name,)
    for one, other in combinations((*written, *flags), 2):
        if not one.keys() & other.keys():
            yield {**one, **other}, ()
    for changes in (*flags, *written):
        for name in numbers:
            if name not in changes:
                yield changes, (name,)
    for pair in combinations(numbers, 2):
        yield {}, pair
    if anchor.family == "sgd":
        yield {}, ("rate", "momentum", "decay")


def _solved(side: Side, rule: Rule, names: tuple[str, ...], limit: float) -> Rule | None:
    """The rule with some numbers such that it reproduces the side, as short as can be; None if there are none."""
    start = [getattr(rule, name) or _FROM.get(name, 1.0) for name in names]
    values = torch.tensor(start, dtype=torch.float64)
    rule = rule.but(**dict(zip(names, start, strict=True)))
    with contextlib.suppress(RuntimeError):  # a system without a solution
        for _ in range(_ITERATIONS):
            residual = side.residual(rule)
            if not bool(residual.isfinite().all()):
                return None
            if float(residual.norm()) <= limit * 1e-3:
                break
            columns = []
            for name, value in zip(names, values.tolist(), strict=True):
                by = 1e-7 * max(abs(value), 1e-12)
                columns.append((side.residual(rule.but(**{name: value + by})) - residual) / by)
            jacobian = torch.stack(columns, 1)
            if not bool(jacobian.isfinite().all()):
                return None
            scale = jacobian.norm(dim=0).clamp_min(1e-300)
            change = torch.linalg.lstsq(jacobian / scale, -residual.unsqueeze(1)).solution[:, 0] / scale
            if not bool(change.isfinite().all()):
                return None
            values = values + change
            for k, name in enumerate(names):
                if name in ("eps", "second", "momentum", "start"):  # those below 0 mean nothing
                    values[k] = values[k].clamp(0.0, None if name in ("eps", "start") else 1 - 1e-9)
            rule = rule.but(**dict(zip(names, values.tolist(), strict=True)))
    return _short(side, rule, names, limit)


def _short(side: Side, rule: Rule, names: tuple[str, ...], limit: float) -> Rule | None:
    """The rule with its numbers written with as few digits as reproduce the side."""
    if not side.error(rule) <= limit:
        return None
    for name in names:
        for digits in range(1, 10):
            shorter = rule.but(**{name: float(f"{getattr(rule, name):.{digits}g}")})
            if side.error(shorter) <= limit:
                rule = shorter
                break
    return rule
