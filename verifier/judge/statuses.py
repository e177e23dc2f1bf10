"""Statuses, first divergence and culprits of one cell. Works on rows alone, so saved ones can be judged again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from verifier.graph.operators import MOVES
from verifier.judge.excess import excess, less_accurate, limit, numeric, within
from verifier.records import Comparison, Excited, PairResult, Status, Verdict, brief

if TYPE_CHECKING:
    from collections.abc import Sequence

# A pair that inherits an error and hands on more than twice of it (relative to its own tensor) amplifies it.
_AMPLIFIES = 2.0


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgement of one cell; `wrong_at` are the rows, by index, at which the culprits show."""

    rows: tuple[PairResult, ...]
    first_divergence: PairResult | None
    culprits: tuple[PairResult, ...]
    verdict: Verdict
    reason: str
    wrong_at: tuple[int, ...] = ()

    def told(self) -> dict[str, Any]:
        """What a record of the cell says of it, as fields of `CellResult`."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "first_divergence": self.first_divergence,
            "culprits": self.culprits,
            "layers": self.rows,
        }


def differs(row: PairResult) -> bool:
    """Whether a row diverged in the free pass: another shape, or a total error beyond its budget, that is read."""
    return not row.unread and (
        row.candidate_shape is not None
        or not within(row.total, limit(row, intrinsic=False))
        or less_accurate(row, intrinsic=False)
    )


def judge_rows(bare: Sequence[PairResult]) -> Judged:
    """Give every row its status and reason, and find the first divergence and the culprits.

    Where a row disagrees because of sites without a partner above it, those are named instead of the row: the
    first of them on the baseline's side and, if the candidate has others in their place, on the candidate's.
    """
    judge = _Judge(bare)
    rows = tuple(judge.judged(row) for row in bare)
    first: PairResult | None = None
    culprits: dict[tuple[int, bool], PairResult] = {}
    wrong_at: list[int] = []
    for row in rows:
        if row.status is Status.UNMATCHED:
            continue
        named = judge.stand_in(row, rows)
        if named is not row:
            culprits[named.index, False] = named
        if row.status is Status.CULPRIT:
            culprits[row.index, True] = row
        if named is not row or row.status is Status.CULPRIT:
            wrong_at.append(row.index)
        if first is None and judge.diverged[row.index]:
            first = named
    blamed = tuple(culprits[key] for key in sorted(culprits))
    if first is None and blamed:  # an intrinsic error that the free pass happened to cancel
        first = blamed[0]
    if first is not None:
        where = first.baseline or first.candidate
        reason = brief(f"{where}: {first.reason}")
        return Judged(rows, first, blamed, Verdict.DIVERGED, reason, tuple(wrong_at))
    if not any(_tells_something(row) for row in rows):
        return Judged(rows, None, (), Verdict.INCONCLUSIVE, "no two finite numbers were compared")
    read = {above for row in rows for above in row.above}
    for row in rows:  # a mask may be infinite everywhere; what the models return may not
        if (
            row.index not in read
            and row.total is not None
            and row.total.elements
            and not _tells_something(row)
        ):
            reason = f"{row.baseline}: not one number of this output is finite on both sides"
            return Judged(rows, None, (), Verdict.INCONCLUSIVE, reason)
    return Judged(rows, None, (), Verdict.MATCH, "")


class _Judge:
    def __init__(self, rows: Sequence[PairResult]) -> None:
        self.rows = rows
        self.localised = any(row.intrinsic is not None for row in rows)
        self.diverged = [row.status is not Status.UNMATCHED and differs(row) for row in rows]
        self._first_sized: dict[tuple[int, int], int] = {}
        for row in rows:
            for sizes in () if row.unread else _resized(row):
                self._first_sized.setdefault(sizes, row.index)

    def judged(self, row: PairResult) -> PairResult:
        """`row` with its status and reason."""
        if row.status is Status.UNMATCHED:
            return row
        if row.unread:
            return msgspec.structs.replace(row, status=Status.OK)
        if row.excited is not None and not self.region_at_fault(row):
            return msgspec.structs.replace(row, status=Status.CULPRIT, reason=_unreached(row, row.excited))
        status = self._status(row)
        return msgspec.structs.replace(row, status=status, reason=self._reason(row, status))

    def _status(self, row: PairResult) -> Status:
        if row.follows is not None:
            return self._inherited(row)
        if row.kind == "state" and any(self._spoilt(self.rows[a]) for a in row.above):
            return self._inherited(row)  # what a site leaves behind then says nothing more
        if row.kind == "call":  # the call before it is the same program on the same inputs
            alone = self.diverged[row.index] and not any(self.diverged[a] for a in row.above)
            return Status.CULPRIT if alone else self._inherited(row)
        if row.replayed_shape is not None:
            # A number of the other shape, which the baseline's tensors do not allow, or a tensor of that shape.
            unlike = row.inputs_differ and not row.differences
            if (row.replayed_shape == () != row.shape or unlike) and self._sized_above(row):
                return self._inherited(row)
            if _own_fault(row) or (row.inputs_differ and not row.apart):
                return Status.CULPRIT
            return self._inherited(row)
        if row.misshapen:
            follows = not row.differences and self._sized_above(row)
            alone = (_clean(row) or row.composed) and self._same_shapes_above(row) and not follows
            return Status.CULPRIT if alone or self._rewired_at_fault(row) else Status.CARRIES
        if _clean(row) and self._same_shapes_above(row):
            if self._wrong_alone(row):
                return Status.CULPRIT
        elif self._rewired_at_fault(row) or (row.composed and self._disagrees(row)):
            return Status.CULPRIT
        return self._inherited(row)

    def _spoilt(self, row: PairResult) -> bool:
        """Whether a site is at fault, or reads what others above it have spoilt."""
        return (
            self._status(row) is Status.CULPRIT
            or self.region_at_fault(row)
            or not self._same_shapes_above(row)
            or bool(row.inputs_differ)
        )

    def _inherited(self, row: PairResult) -> Status:
        """The status of a row that is not at fault itself."""
        if not self.diverged[row.index]:
            return Status.OK
        if row.intrinsic is not None and not within(row.intrinsic, limit(row, intrinsic=True)):
            return Status.AMPLIFIES
        if row.candidate_shape is not None:
            return Status.CARRIES
        came_in = max((_nrmse(self.rows[a].total) for a in row.above if self.diverged[a]), default=0.0)
        return Status.AMPLIFIES if _nrmse(row.total) > _AMPLIFIES * came_in else Status.CARRIES

    def _same_shapes_above(self, row: PairResult) -> bool:
        """Whether all this row reads could be overwritten, so that its intrinsic error is its own."""
        return not any(self.rows[a].misshapen for a in row.above)

    def _sized_above(self, row: PairResult) -> bool:
        """Whether each size in which the row's shapes differ already differed in the same way before.

        A program hands a size on as a number, outside all tensors, so it need not come from what the row reads.
        """
        resized = _resized(row)
        return bool(resized) and all(self._first_sized.get(sizes, row.index) < row.index for sizes in resized)

    def _rewired_at_fault(self, row: PairResult) -> bool:
        return row.rewired and not row.apart and self._disagrees(row)

    def region_at_fault(self, row: PairResult) -> bool:
        """Whether sites without a partner above this row make the difference."""
        if row.composed or row.unread or row.follows is not None:
            return False
        if row.excited is not None:
            return row.apart
        if row.inputs_differ is not None:
            return row.apart and row.inputs_differ
        return row.apart and self._disagrees(row)

    def _disagrees(self, row: PairResult) -> bool:
        """Whether the row differs though all paired rows above it were made equal, or were equal anyway."""
        if not self._same_shapes_above(row):
            return False
        if row.misshapen:
            return True
        return self._wrong_alone(row) or (not self.localised and self._first_apart(row))

    def _wrong_alone(self, row: PairResult) -> bool:
        """Whether the row is beyond a budget on identical inputs, or on alike ones where no forced run came to it."""
        if less_accurate(row, intrinsic=True):
            return True
        if row.intrinsic is None:
            return self.localised and row.total is not None and self._first_apart(row)
        return not within(row.intrinsic, limit(row, intrinsic=True))

    def _first_apart(self, row: PairResult) -> bool:
        return self.diverged[row.index] and not any(self.diverged[a] for a in row.above)

    def stand_in(self, row: PairResult, rows: Sequence[PairResult]) -> PairResult:
        """The row to name for a divergence seen at `row`: where the operators first differ above it, if they do."""
        if not self.region_at_fault(row):
            return row
        missing = [r for r in rows if r.candidate is None and r.baseline in row.between_baseline]
        extra = [r for r in rows if r.baseline is None and r.candidate in row.between_candidate]
        return self._named(row, *_first_computing(missing, extra))

    def _named(self, row: PairResult, missing: PairResult | None, extra: PairResult | None) -> PairResult:
        place = missing or row
        if missing is None:
            what = f"the candidate has {extra.op if extra else 'something'} first"
        elif extra is None:
            what = f"the candidate has no {missing.op} here"
        else:
            other = f"another {extra.op}, of shape {extra.shape}," if extra.op == missing.op else extra.op
            what = f"the candidate has {other} instead of {missing.op}, of shape {missing.shape}"
        measured = _said(row, intrinsic=True) if row.excited is None else _unreached(row, row.excited)
        told = numeric(row.cause) or row.excited is not None
        return msgspec.structs.replace(
            place,
            candidate=extra.candidate if extra else None,
            status=Status.UNMATCHED,
            cause=row.cause if told else (missing or extra or row).cause,
            excited=row.excited,
            accuracy=row.accuracy,
            total=row.total,
            intrinsic=row.intrinsic,
            budget=row.budget,
            reason=f"{what}; behind it, at {row.baseline}: {measured}",
        )

    def _reason(self, row: PairResult, status: Status) -> str:
        if status is Status.OK:
            return ""
        if status is Status.CULPRIT and row.replayed_shape not in (None, row.shape):
            parts = [f"shape {row.replayed_shape} instead of {row.shape} on the baseline's inputs"]
        else:
            parts = [_said(row, intrinsic=status is Status.CULPRIT)]
        if row.rewired and status is Status.CULPRIT:
            parts.append("it reads other tensors than the baseline does")
        elif row.inputs_differ and not row.apart:
            parts.append("what it reads was changed on the way")
        if status is not Status.CULPRIT and self.region_at_fault(row):
            parts.append("what it reads comes through sites without a partner, which are at fault")
        if row.follows is not None:
            first = self.rows[row.follows]
            parts.append(f"it follows from {first.baseline or first.candidate}")
        return "; ".join([*parts, *row.differences])


def _unreached(row: PairResult, found: Excited) -> str:
    """What is said of a row that parts on other inputs than those that were given."""
    where = f"the given inputs do not reach what differs; on the baseline's tensors {found.inputs}"
    return "; ".join([f"{where}, relative error {found.error.nrmse:.1e}", *row.differences])


def _first_computing(
    missing: Sequence[PairResult], extra: Sequence[PairResult]
) -> tuple[PairResult | None, PairResult | None]:
    """The first operator of each side; those that only lay tensors out say nothing beside others."""
    computing = [[row for row in rows if row.op not in MOVES] for rows in (missing, extra)]
    first = computing if any(computing) else [missing, extra]
    return next(iter(first[0]), None), next(iter(first[1]), None)


def _tells_something(row: PairResult) -> bool:
    """Whether any two finite numbers were compared at the row; that both sides are NaN says nothing."""
    return row.total is not None and row.total.elements > row.total.nonfinite_baseline


def _resized(row: PairResult) -> set[tuple[int, int]]:
    """The baseline's and the candidate's sizes in which shapes of one rank differ."""
    other = row.candidate_shape
    if other is None or len(other) != len(row.shape):
        return set()
    return {(b, c) for b, c in zip(row.shape, other, strict=True) if b != c}


def _clean(row: PairResult) -> bool:
    return not (row.apart or row.rewired)


def _own_fault(row: PairResult) -> bool:
    """Whether a site that was run again on the baseline's inputs is wrong there."""
    return row.replayed_shape != row.shape or not within(row.replayed, limit(row, intrinsic=True))


def _said(row: PairResult, *, intrinsic: bool) -> str:
    """What was measured at a row and what was allowed: on identical inputs if `intrinsic` and measured."""
    error, limited = row.intrinsic, intrinsic and row.intrinsic is not None
    if not limited:
        error = row.total
    if within(error, limit(row, intrinsic=limited)) or (error is None and row.candidate_shape is None):
        for alone in (True, False) if intrinsic else (False,):
            found = excess(row, intrinsic=alone)
            if found is not None and row.budget is not None:
                return (
                    f"{found.kind} distance from float64 {found.candidate:.1e}, the baseline's {found.baseline:.1e}, "
                    f"allowed {found.limit:.1e} (rule {row.budget.rule})"
                )
    return _measured(row, error, intrinsic=limited)


def _measured(row: PairResult, error: Comparison | None, *, intrinsic: bool) -> str:
    if error is None and row.candidate_shape == row.shape:
        return "it differs in what no number tells"
    if error is None:
        return f"shape {row.candidate_shape} instead of {row.shape}"
    if error.nonfinite_mismatched:
        return f"{error.nonfinite_mismatched} values are not finite or not the same infinity on both sides"
    at = "" if error.max_abs_index is None else f" at {error.max_abs_index}"
    rule = row.budget.rule if row.budget else "none"
    if error.interval is not None:
        low, high = error.interval.nrmse
        return (
            f"{'intrinsic' if intrinsic else 'total'} relative error about {error.nrmse:.1e} (95 %: {low:.1e} to "
            f"{high:.1e}), allowed {limit(row, intrinsic=intrinsic):.1e} (rule {rule})"
        )
    return (
        f"{'intrinsic' if intrinsic else 'total'} relative error {error.nrmse:.1e}, allowed "
        f"{limit(row, intrinsic=intrinsic):.1e} (rule {rule}), max abs difference {error.max_abs:.1e}{at}"
    )


def _nrmse(error: Comparison | None) -> float:
    return math.inf if error is None or math.isnan(error.nrmse) else error.nrmse
