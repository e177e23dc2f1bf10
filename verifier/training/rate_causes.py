"""Why learning rates differ: one schedule as the other at other times, times a number, or as its numbers stand."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from verifier.training.fitting import CLOSE, near
from verifier.training.records import TrainingCause
from verifier.training.wording import numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENOUGH = 3  # two numbers would tell nothing


def cause(rates: Sequence[tuple[float, float]], *, alone: bool) -> TrainingCause:
    """How the candidate's learning rates, batch by batch after each, are the baseline's at other times.

    Args:
        rates: The baseline's and the candidate's.
        alone: Whether nothing else differs once the candidate is given the baseline's rates: they are the cause
            then, however they come about.
    """
    baseline, candidate = [rate for rate, _ in rates], [rate for _, rate in rates]
    first = next((k for k, (b, c) in enumerate(rates) if not near(b, c, 1e-12)), 0)
    shown = (
        f"after batch {first} the rates are {numbers(*candidate[first:])}, "
        f"the baseline's {numbers(*baseline[first:])}"
    )
    code, told = _recognised(baseline, candidate)
    if code:
        return TrainingCause(code=code, summary=f"{told}: {shown}", confirmed=True)
    return TrainingCause(
        code="schedule-different", summary=f"the schedule is another: {shown}", confirmed=alone
    )


def _recognised(baseline: Sequence[float], candidate: Sequence[float]) -> tuple[str, str]:
    for every in (2, 3, 4):
        expected = baseline[every - 1 :: every]
        if _same(expected, candidate[: len(expected)]):
            times = {2: "twice", 3: "three times", 4: "four times"}[every]
            return "schedule-steps", f"the schedule is stepped {times} a step of the optimiser"
        expected = candidate[every - 1 :: every]
        if _same(baseline[: len(expected)], expected) and _held(candidate, every):
            return "schedule-steps", f"the schedule is stepped once in {every} steps of the optimiser"
    if _same(baseline[:-1], candidate[1:]):
        return "schedule-late", "the schedule is one step behind"
    if _same(baseline[1:], candidate[:-1]):
        return "schedule-early", "the schedule is one step ahead"
    if len(set(candidate)) == 1 and len(set(baseline)) > 1:
        return "schedule-missing", "the learning rate never changes"
    if len(set(baseline)) == 1 and len(set(candidate)) > 1:
        return "schedule-extra", "the learning rate changes, the baseline's never does"
    factor = _factor(baseline, candidate)
    if factor is not None:
        return "learning-rate", f"the learning rate is {factor:.6g} times the baseline's"
    ratios = _ratio(baseline), _ratio(candidate)
    if None not in ratios:
        return (
            "schedule-gamma",
            f"the rate is multiplied by {ratios[1]:.6g} a step, the baseline's by {ratios[0]:.6g}",
        )
    return "", ""


def _held(rates: Sequence[float], every: int) -> bool:
    """Whether rates change only once in so many steps."""
    return len(set(rates)) <= math.ceil(len(rates) / every) + 1


def _factor(baseline: Sequence[float], candidate: Sequence[float]) -> float | None:
    pairs = [(b, c) for b, c in zip(baseline, candidate, strict=True) if b or c]
    if not pairs or not pairs[0][0]:
        return None
    factor = pairs[0][1] / pairs[0][0]
    return factor if all(near(c, factor * b) for b, c in pairs) else None


def _ratio(rates: Sequence[float]) -> float | None:
    """What each rate is of the one before, if that is always the same."""
    if len(rates) < _ENOUGH or not all(rates):
        return None
    ratio = rates[1] / rates[0]
    return ratio if all(near(b, ratio * a) for a, b in itertools.pairwise(rates)) else None


def _same(baseline: Sequence[float], candidate: Sequence[float]) -> bool:
    """Whether rates agree; two numbers or a rate that never changes would tell nothing."""
    if len(baseline) != len(candidate) or len(baseline) < _ENOUGH or len(set(baseline)) < 2:
        return False
    scale = max(map(abs, baseline))
    return all(abs(a - b) <= CLOSE * scale for a, b in zip(baseline, candidate, strict=True))
