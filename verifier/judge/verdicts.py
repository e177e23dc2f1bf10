"""Statuses, first divergence, culprits and the verdict. Works on rows alone, so saved ones can be judged again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from verifier.graph.operators import MOVES
from verifier.judge.consistency import contradiction
from verifier.judge.criteria import deciding, judged_by_task
from verifier.judge.rows import CALL
from verifier.records import (
    Cause,
    CellResult,
    Comparison,
    Coverage,
    Criterion,
    Excited,
    PairResult,
    Probe,
    Status,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.judge.policy import Policy

# A pair that inherits an error and hands on more than twice of it (relative to its own tensor) amplifies it.
_AMPLIFIES = 2.0


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgement of one cell."""

    rows: tuple[PairResult, ...]
    first_divergence: PairResult | None
    culprits: tuple[PairResult, ...]
    verdict: Verdict
    reason: str


def differs(row: PairResult) -> bool:
    """Whether a row diverged in the free pass: another shape, or a total error beyond its budget."""
    return (
        row.candidate_shape is not None
        or not within(row.total, _limit(row, intrinsic=False))
        or less_accurate(row, intrinsic=False)
    )


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
        limit = getattr(row.budget, f"oracle_{kind}")
        if measured is not None and limit is not None and not measured <= limit:
            return Excess(kind, measured, getattr(row.accuracy, f"baseline_{kind}"), limit)
    return None


def main_cell(cells: Sequence[CellResult]) -> CellResult:
    """The cell whose figures stand for all: the first numerics cell that ran, else the first that ran."""
    ran = [cell for cell in cells if cell.verdict is not Verdict.SKIPPED] or list(cells)
    return next((cell for cell in ran if cell.role == "numerics"), ran[0])


def within(error: Comparison | None, limit: float) -> bool:
    """Whether an error was measured and is inside its limit."""
    return error is not None and error.within(limit)


def judge_rows(bare: Sequence[PairResult]) -> Judged:
    """Give every row its status and reason, and find the first divergence and the culprits.

    Where a row disagrees because of sites without a partner above it, those are named instead of the row: the
    first of them on the baseline's side and, if the candidate has others in their place, on the candidate's.
    """
    judge = _Judge(bare)
    rows = tuple(judge.judged(row) for row in bare)
    first: PairResult | None = None
    culprits: dict[tuple[int, bool], PairResult] = {}
    for row in rows:
        if row.status is Status.UNMATCHED:
            continue
        named = judge.stand_in(row, rows)
        if named is not row:
            culprits[named.index, False] = named
        if row.status is Status.CULPRIT:
            culprits[row.index, True] = row
        if first is None and judge.diverged[row.index]:
            first = named
    blamed = tuple(culprits[key] for key in sorted(culprits))
    if first is None and blamed:  # an intrinsic error that the free pass happened to cancel
        first = blamed[0]
    if first is not None:
        where = first.baseline or first.candidate
        return Judged(rows, first, blamed, Verdict.DIVERGED, f"{where}: {first.reason}")
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

    def judged(self, row: PairResult) -> PairResult:
        """`row` with its status and reason."""
        if row.status is Status.UNMATCHED:
            return row
        if row.excited is not None and not self.region_at_fault(row):
            return msgspec.structs.replace(row, status=Status.CULPRIT, reason=_unreached(row, row.excited))
        status = self._status(row)
        return msgspec.structs.replace(row, status=status, reason=self._reason(row, status))

    def _status(self, row: PairResult) -> Status:
        if row.op == "state" and any(self._spoilt(self.rows[a]) for a in row.above):
            return self._inherited(row)  # what a site leaves behind then says nothing more
        if row.op == CALL:  # the call before it is the same program on the same inputs
            alone = self.diverged[row.index] and not any(self.diverged[a] for a in row.above)
            return Status.CULPRIT if alone else self._inherited(row)
        if row.replayed_shape is not None:
            if _own_fault(row) or (row.inputs_differ and not row.apart):
                return Status.CULPRIT
            return self._inherited(row)
        if row.misshapen:
            alone = _clean(row) and self._same_shapes_above(row)
            return Status.CULPRIT if alone or self._rewired_at_fault(row) else Status.CARRIES
        if _clean(row) and self._same_shapes_above(row):
            if _wrong_alone(row):
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
        if row.candidate_shape is not None:
            return Status.CARRIES
        came_in = max((_nrmse(self.rows[a].total) for a in row.above if self.diverged[a]), default=0.0)
        return Status.AMPLIFIES if _nrmse(row.total) > _AMPLIFIES * came_in else Status.CARRIES

    def _same_shapes_above(self, row: PairResult) -> bool:
        """Whether all this row reads could be overwritten, so that its intrinsic error is its own."""
        return not any(self.rows[a].misshapen for a in row.above)

    def _rewired_at_fault(self, row: PairResult) -> bool:
        return row.rewired and not row.apart and self._disagrees(row)

    def region_at_fault(self, row: PairResult) -> bool:
        """Whether sites without a partner above this row make the difference."""
        if row.composed:
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
        if self.localised:
            return _wrong_alone(row)
        if less_accurate(row, intrinsic=True):
            return True
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


def numeric(cause: Cause | None) -> bool:
    """Whether a cause says that the program is the same and only its arithmetic is worse."""
    return cause is not None and cause.code.startswith("precision-")


def _wrong_alone(row: PairResult) -> bool:
    """Whether the row is beyond a budget on identical inputs, as far as that was measured."""
    wrong = row.intrinsic is not None and not within(row.intrinsic, _limit(row, intrinsic=True))
    return wrong or less_accurate(row, intrinsic=True)


def _clean(row: PairResult) -> bool:
    return not (row.apart or row.rewired)


def _own_fault(row: PairResult) -> bool:
    """Whether a site that was run again on the baseline's inputs is wrong there."""
    return row.replayed_shape != row.shape or not within(row.replayed, _limit(row, intrinsic=True))


def _limit(row: PairResult, *, intrinsic: bool) -> float:
    if row.budget is None:
        return 0.0
    return row.budget.intrinsic if intrinsic else row.budget.total


def _said(row: PairResult, *, intrinsic: bool) -> str:
    """What was measured at a row and what was allowed: on identical inputs if `intrinsic` and measured."""
    error, limited = row.intrinsic, intrinsic and row.intrinsic is not None
    if not limited:
        error = row.total
    if within(error, _limit(row, intrinsic=limited)) or (error is None and row.candidate_shape is None):
        for alone in (True, False) if intrinsic else (False,):
            found = excess(row, intrinsic=alone)
            if found is not None and row.budget is not None:
                return (
                    f"{found.kind} distance from float64 {found.candidate:.1e}, the baseline's {found.baseline:.1e}, "
                    f"allowed {found.limit:.1e} (rule {row.budget.rule})"
                )
    return _measured(row, error, intrinsic=limited)


def _measured(row: PairResult, error: Comparison | None, *, intrinsic: bool) -> str:
    if error is None:
        return f"shape {row.candidate_shape} instead of {row.shape}"
    if error.nonfinite_mismatched:
        return f"{error.nonfinite_mismatched} values are not finite or not the same infinity on both sides"
    at = "" if error.max_abs_index is None else f" at {error.max_abs_index}"
    rule = row.budget.rule if row.budget else "none"
    return (
        f"{'intrinsic' if intrinsic else 'total'} relative error {error.nrmse:.1e}, allowed "
        f"{_limit(row, intrinsic=intrinsic):.1e} (rule {rule}), max abs difference {error.max_abs:.1e}{at}"
    )


def _nrmse(error: Comparison | None) -> float:
    return math.inf if error is None or math.isnan(error.nrmse) else error.nrmse


def overall(
    policy: Policy,
    cells: Sequence[CellResult],
    criteria: Sequence[Criterion],
    covered: Coverage,
) -> tuple[Verdict, str]:
    """The verdict over all cells, and the reason in a few words."""
    # No policy makes up for an answer that is missing: its budgets are for what both models return.
    if covered.outputs[0] != covered.outputs[1]:
        return (
            Verdict.DIVERGED,
            f"the baseline returns {covered.outputs[0]} tensors, the candidate {covered.outputs[1]}",
        )
    if covered.returned:
        return Verdict.DIVERGED, "; ".join(covered.returned)
    if policy.criteria_decide or policy.task_decides:
        failed = [each.title for each in deciding(policy, criteria) if not each.passed]
        if failed:
            whose = "published criteria" if policy.criteria_decide else f"budgets of the task ({policy.name})"
            return Verdict.DIVERGED, f"{whose} failed: {', '.join(failed)}"
    else:
        for cell in cells:
            if cell.verdict is Verdict.DIVERGED:
                return Verdict.DIVERGED, f"{cell.name}: {cell.reason}"
    if not (covered.baseline_sites or covered.candidate_sites):
        return Verdict.INCONCLUSIVE, "neither model computes anything: there is nothing to compare"
    least = min(covered.baseline_share, covered.candidate_share)
    if least < policy.minimum_coverage:
        return (
            Verdict.INCONCLUSIVE,
            f"only {least:.0%} of the sites could be paired; {policy.minimum_coverage:.0%} are needed to say more",
        )
    if covered.parameterised and not covered.parameterised_compared:
        return Verdict.INCONCLUSIVE, "no site with parameters could be paired"
    if covered.hidden:
        return (
            Verdict.INCONCLUSIVE,
            f"{covered.hidden[0]} has no partner, and parameters that are all 0 or 1 hide what it leads to; "
            "use calibrated weights",
        )
    verdict, reason = _left_open(policy, cells, criteria)
    against = contradiction(cells, criteria) if verdict is Verdict.MATCH else ""
    if against:
        return (
            Verdict.INCONCLUSIVE,
            f"figures of the same record speak against a match: {against}",
        )
    return verdict, reason


def with_probes(
    policy: Policy, verdict: Verdict, reason: str, probes: Sequence[Probe]
) -> tuple[Verdict, str]:
    """The verdict with what probes showed: a difference on any is one, though the given inputs do not show it.

    Where criteria or what becomes of the classes decide, numbers of other inputs do not.
    """
    shown = next((each for each in probes if each.verdict is Verdict.DIVERGED), None)
    if verdict is Verdict.DIVERGED or shown is None or policy.criteria_decide or policy.task_decides:
        return verdict, reason
    where = f"at {shown.site}" if shown.site else shown.reason
    return Verdict.DIVERGED, f"the given inputs do not show it, a probe does ({shown.name}): {where}"


def left_open(cell: CellResult) -> CellResult:
    """The cell, without a verdict where it would be a match of models of which one gives other numbers every time."""
    if cell.repeatable is None or cell.verdict is not Verdict.MATCH:
        return cell
    for side, site in (("baseline", cell.repeatable.baseline), ("candidate", cell.repeatable.candidate)):
        if site is not None:
            runs = cell.repeatable.runs
            reason = f"the {side} is not repeatable: in {runs} runs {site} is the first that differs"
            return msgspec.structs.replace(cell, verdict=Verdict.INCONCLUSIVE, reason=reason)
    return cell


def _left_open(
    policy: Policy, cells: Sequence[CellResult], criteria: Sequence[Criterion]
) -> tuple[Verdict, str]:
    """Whether some cell keeps what did not diverge from being a match."""
    for cell in cells:
        if cell.verdict is Verdict.INCONCLUSIVE:
            return Verdict.INCONCLUSIVE, f"{cell.name}: {cell.reason}"
    for cell in cells:
        if cell.verdict is Verdict.SKIPPED and cell.named:
            return Verdict.INCONCLUSIVE, f"{cell.name} was skipped: {cell.reason}"
    decide = policy.criteria_decide or policy.task_decides
    if all(cell.verdict is Verdict.SKIPPED for cell in cells) or (decide and not deciding(policy, criteria)):
        return Verdict.INCONCLUSIVE, "nothing was compared"
    if policy.task_decides:
        judged = {criterion.cell for criterion in deciding(policy, criteria)}
        for cell in judged_by_task(cells):
            if cell.name not in judged:
                return Verdict.INCONCLUSIVE, f"{cell.name}: no class scores are there to judge the task by"
    return Verdict.MATCH, ""
