"""The loss of a batch as several processes have it, and its rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from verifier.training.fitting import factor_between, near
from verifier.training.records import TrainingCause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.training.candidate_batch import CandidateBatch
    from verifier.training.sharded.part_batch import PartBatch

_NOTHING = 1e-12  # of the largest gradient's size: what rounding leaves of one that is 0


def total(kept: Any) -> float:
    """The sum of what a batch's backward passes start from; NaN where there was none."""
    return sum(map(float, kept.losses)) if kept.losses else float("nan")


def nearest(whole: float, parts: Sequence[PartBatch]) -> float:
    """The batch's loss as the ranks have it; which way is meant they alone know: the nearest to the whole's."""
    ways = losses_of(parts)
    return min(ways, key=lambda each: abs(each - whole)) if math.isfinite(whole) else ways[0]


def losses_of(parts: Sequence[PartBatch]) -> list[float]:
    """The batch's loss as the ranks may mean it: each its own, or a share of it, all at once or in portions."""
    totals = [found for each in parts if not math.isnan(found := total(each))]
    if not totals:
        return [float("nan")]
    passes = max(len(each.losses) for each in parts)
    ways = [*totals, sum(totals), sum(totals) / len(totals)]
    return ways + [each / passes for each in ways]


def loss_cause(compared: CandidateBatch, whole: float, parts: Sequence[PartBatch]) -> TrainingCause | None:
    """The loss is a number of times the whole's, and so are the gradients that arrive."""
    pairs = [(b.double(), c.double()) for b, c in compared.evidence.gradients.values()]
    most = max((float(b.norm()) for b, _ in pairs), default=0.0)
    factors = [factor_between(b, c) for b, c in pairs if float(b.norm()) > _NOTHING * most]
    known = [each for each in factors if each is not None]
    if not known or len(known) < len(factors) or not all(near(each, known[0]) for each in known):
        return None
    if near(known[0], 1.0) or not any(near(each, known[0] * whole) for each in losses_of(parts)):
        return None
    told = f"the loss is {known[0]:.6g} times the baseline's, and all gradients with it"
    return TrainingCause(code="loss-scaled", summary=told, confirmed=True)


def first(rates: Mapping[str, float]) -> float:
    """The first of several rates; NaN where there is none."""
    return next(iter(rates.values()), float("nan"))
