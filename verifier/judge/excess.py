"""Whether what was measured at a row is inside what it is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from verifier.records import Cause, Comparison, PairResult


def less_accurate(row: PairResult, *, intrinsic: bool) -> bool:
    """Whether the candidate is further from the float64 oracle than it may be: at this step alone, or in all."""
    return excess(row, intrinsic=intrinsic) is not None


class Excess(NamedTuple):
    """A distance from the oracle that is too large: which one, the candidate's, the baseline's, and the limit."""

    kind: str
    candidate: float
    baseline: float
    limit: float


def excess(row: PairResult, *, intrinsic: bool) -> Excess | None:
    """The first distance from the oracle that exceeds its limit: of this step alone, or in all."""
    if row.accuracy is None or row.budget is None:
        return None
    for kind in ("intrinsic", "systematic") if intrinsic else ("total",):
        measured = getattr(row.accuracy, f"candidate_{kind}")
        allowed = getattr(row.budget, f"oracle_{kind}")
        if measured is not None and allowed is not None and not measured <= allowed:
            return Excess(kind, measured, getattr(row.accuracy, f"baseline_{kind}"), allowed)
    return None


def within(error: Comparison | None, limit: float) -> bool:
    """Whether an error was measured and is inside its limit."""
    return error is not None and error.within(limit)


def near_limit(row: PairResult) -> bool:
    """Whether a total error is at least half of what it may be, or was not measured."""
    return row.budget is not None and not within(row.total, limit(row, intrinsic=False) / 2)


def numeric(cause: Cause | None) -> bool:
    """Whether a cause says that the program is the same and only its arithmetic is worse."""
    return cause is not None and cause.family == "precision"


def limit(row: PairResult, *, intrinsic: bool) -> float:
    """The relative error a row is allowed: on identical inputs, or in all."""
    if row.budget is None:
        return 0.0
    return row.budget.intrinsic if intrinsic else row.budget.total
