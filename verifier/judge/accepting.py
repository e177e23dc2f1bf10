"""What a policy's budgets and waivers make of cells. What they accept is listed, and never a match."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import asdict, replace

from verifier.judge.excess import less_accurate, limit, within
from verifier.judge.rules import LIMITS, words
from verifier.judge.statuses import differs, judge_rows
from verifier.judge.verdicts import AS_GIVEN
from verifier.records import Accepted, Limits, Status, Verdict, brief

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import date

    from verifier.judge.policy import Policy
    from verifier.judge.rules import SiteBudget, Waiver
    from verifier.records import Cause, CellResult, Comparison, PairResult

_Place = tuple[int, str | None, str | None]


class Standing(NamedTuple):
    """Cells as a policy lets them stand, and what it accepts in them."""

    cells: tuple[CellResult, ...]
    accepted: tuple[Accepted, ...]


def accepting(policy: Policy, cells: Sequence[CellResult], today: date) -> Standing:
    """The cells by a policy's budgets and by the waivers that have not expired."""
    waivers = [each for each in policy.waivers if each.expires >= today]
    causes = _causes(cells)
    found: list[CellResult] = []
    accepted: list[Accepted] = []
    for cell in cells:
        by_budget, allowed = _budgeted(cell, policy.budgets)
        by_both, waived = _waived(by_budget, waivers, causes)
        found.append(_open(by_both))
        accepted += [*allowed, *waived]
    return Standing(tuple(found), tuple(accepted))


def budgeted(row: PairResult, cell: str, budgets: Iterable[SiteBudget]) -> PairResult:
    """The row with the limits that the last budget gives that fits; those of its rule stay beside them.

    Whole numbers are exact by any policy, and no policy makes up for a program that is not the one given.
    """
    if row.budget is None or row.budget.total == 0 or row.budget.rule == AS_GIVEN:
        return row
    fitting = [each for each in budgets if each.fits((row.baseline, row.candidate), cell)]
    if not fitting:
        return row
    own = own_budget(row).budget
    assert own is not None  # noqa: S101 - the row has one
    limits = Limits(**{name: getattr(own, name) for name in LIMITS})
    return replace(row, budget=replace(own, instead=limits, **fitting[-1].limits))


def beyond(row: PairResult) -> bool:
    """Whether anything that was measured at a row is beyond what it is allowed."""
    return any(
        (error is not None and not within(error, limit(row, intrinsic=alone)))
        or less_accurate(row, intrinsic=alone)
        for error, alone in ((row.total, False), (row.intrinsic, True))
    )


def own_budget(row: PairResult) -> PairResult:
    """The row with its rule's own budget."""
    own = row.budget and row.budget.instead
    if row.budget is None or own is None:
        return row
    return replace(row, budget=replace(row.budget, instead=None, **asdict(own)))


def _budgeted(cell: CellResult, budgets: Sequence[SiteBudget]) -> tuple[CellResult, list[Accepted]]:
    if cell.verdict is Verdict.SKIPPED or not budgets:
        return cell, []
    rows = [budgeted(row, cell.name, budgets) for row in cell.layers]
    if all(row is before for row, before in zip(rows, cell.layers, strict=True)):
        return cell, []
    judged = judge_rows(rows)
    allowed = [
        _accepted_by_budget(row, cell, budgets)
        for row in judged.rows
        if cell.verdict is Verdict.DIVERGED
        and row.budget is not None
        and row.budget.instead
        and beyond(own_budget(row))
        and not beyond(row)
    ]
    verdict, reason = judged.verdict, judged.reason
    if verdict is Verdict.MATCH and cell.verdict is not Verdict.MATCH:
        if cell.verdict is Verdict.DIVERGED and allowed:
            verdict, reason = Verdict.ACCEPTED, told(allowed)
        else:  # what keeps it from being a match is no matter of budgets
            return cell, []
    return (
        replace(
            cell,
            verdict=verdict,
            reason=reason,
            first_divergence=judged.first_divergence,
            culprits=judged.culprits,
            layers=judged.rows,
        ),
        allowed,
    )


def _accepted_by_budget(row: PairResult, cell: CellResult, budgets: Sequence[SiteBudget]) -> Accepted:
    rule = [each for each in budgets if each.fits((row.baseline, row.candidate), cell.name)][-1]
    error = row.total if row.intrinsic is None else row.intrinsic
    own = own_budget(row).budget
    measured = (
        ""
        if error is None or own is None
        else (
            f"relative error {_errors(row)}; the rule {own.rule} allows {own.total:.1e} and {own.intrinsic:.1e}"
            f"{'' if error.interval is None else '; of an estimate the lower end is judged'}"
        )
    )
    return Accepted(
        by="budget",
        cell=cell.name,
        baseline=row.baseline,
        candidate=row.candidate,
        pattern=words(rule),
        reason=rule.reason,
        said=measured,
    )


def _errors(row: PairResult) -> str:
    """What was measured at a row, in all and alone; of an estimate with its interval."""
    return ", ".join(
        f"{error.nrmse:.1e}{_interval(error)} {where}"
        for error, where in ((row.total, "in all"), (row.intrinsic, "alone"))
        if error is not None
    )


def _interval(error: Comparison) -> str:
    if error.interval is None:
        return ""
    low, high = error.interval.nrmse
    return f" (95 %: {low:.1e} to {high:.1e})"


def _waived(
    cell: CellResult, waivers: Sequence[Waiver], causes: dict[_Pair, PairResult]
) -> tuple[CellResult, list[Accepted]]:
    """The cell without the culprits that are waived; accepted if there is nothing wrong besides them."""
    if cell.verdict is not Verdict.DIVERGED:
        return cell, []
    taken: dict[_Place, Accepted] = {}
    for row in cell.culprits:
        cause = row.cause or _lent(row, causes.get(_pair(row)))
        waiver = next((each for each in waivers if waives(each, row, cell.name, cause)), None)
        if waiver is not None:
            taken[_place(row)] = Accepted(
                by="waiver",
                cell=cell.name,
                baseline=row.baseline,
                candidate=row.candidate,
                pattern=words(waiver),
                reason=waiver.reason,
                expires=waiver.expires.isoformat(),
                said=row.reason,
                code=cause.code if cause else "",
                cause=cause.summary if cause else "",
            )
    if not taken:
        return cell, []
    rows = tuple(
        replace(row, status=Status.WAIVED) if row.status is Status.CULPRIT and _place(row) in taken else row
        for row in cell.layers
    )
    left = tuple(row for row in cell.culprits if _place(row) not in taken)
    first = cell.first_divergence
    if left:
        if first is None or _place(first) in taken:
            first = left[0]
        verdict, reason = Verdict.DIVERGED, f"{first.baseline or first.candidate}: {first.reason}"
    elif (besides := _besides(cell)) is not None:
        first, why = besides
        where = first.baseline or first.candidate
        verdict, reason = Verdict.DIVERGED, f"{where} differs as well, {why}: {first.reason}"
    else:
        verdict, reason = Verdict.ACCEPTED, told(taken.values())
    waived = replace(
        cell, verdict=verdict, reason=brief(reason), first_divergence=first, culprits=left, layers=rows
    )
    return waived, list(taken.values())


def waives(waiver: Waiver, row: PairResult, cell: str, cause: Cause | None) -> bool:
    """Whether a waiver is for this very culprit. No policy makes up for a program that is not the one given."""
    if row.budget is not None and row.budget.rule == AS_GIVEN:
        return False
    return waiver.covers((row.baseline, row.candidate), cell) and waiver.names_cause(cause)


def _besides(cell: CellResult) -> tuple[PairResult, str] | None:
    """A row that differs and is not accounted for by the culprits, with why; None where they account for all.

    They do for what is read from them, directly or not, and was seen to be inside its budget on identical inputs.
    """
    again = judge_rows(cell.layers)
    if {*map(_place, again.culprits)} != {*map(_place, cell.culprits)}:
        return cell.first_divergence or cell.culprits[0], "and who is at fault is not sure"
    behind = _behind(cell.layers, again.wrong_at)
    for row in cell.layers:
        if row.status is Status.UNMATCHED or row.index in again.wrong_at or not differs(row):
            continue
        if row.index not in behind:
            return row, "and does not come from what is waived"
        if not _sound_alone(row):
            return row, "and was not seen to be right alone, behind what is waived"
    return None


def _behind(rows: Sequence[PairResult], wrong_at: Collection[int]) -> set[int]:
    found = set(wrong_at)
    while True:
        more = {
            row.index
            for row in rows
            if row.index not in found and (found & {*row.above} or row.follows in found)
        }
        if not more:
            return found
        found |= more


def _sound_alone(row: PairResult) -> bool:
    """Whether a row that differs was seen to add nothing of its own."""
    if row.follows is not None or row.kind == "call":  # a call is the same program once more
        return True
    if row.replayed_shape is not None:
        return row.replayed_shape == row.shape and within(row.replayed, limit(row, intrinsic=True))
    return within(row.intrinsic, limit(row, intrinsic=True)) and not less_accurate(row, intrinsic=True)


def _open(cell: CellResult) -> CellResult:
    """Without a verdict where models are accepted of which one gives other numbers every time."""
    broken = cell.repeatable.broken if cell.repeatable is not None else ""
    if cell.verdict is not Verdict.ACCEPTED or not broken:
        return cell
    return replace(cell, verdict=Verdict.INCONCLUSIVE, reason=broken)


_Pair = tuple[str | None, str | None, str]


def _causes(cells: Iterable[CellResult]) -> dict[_Pair, PairResult]:
    """The rows whose causes cells have shown, by pair, confirmed ones where there are any."""
    known = [row for cell in cells for row in cell.culprits if row.cause is not None]
    return {_pair(row): row for row in sorted(known, key=_confirmed)}


def _lent(row: PairResult, known: PairResult | None) -> Cause | None:
    """The cause another cell has shown, where it makes as large an error here: else there is another fault."""
    if known is None or row.candidate_shape != known.candidate_shape:
        return None
    errors = [each.total if each.intrinsic is None else each.intrinsic for each in (row, known)]
    here, there = errors
    if here is None or there is None:
        return known.cause if here is there else None
    few = None if row.accuracy is None else row.accuracy.candidate_intrinsic  # on the samples of float64
    near = abs((here.nrmse if few is None else few) - there.nrmse)
    rounding = limit(row, intrinsic=row.intrinsic is not None)
    alike = near <= _LIKE * there.nrmse + rounding and here.nrmse <= _MOST * there.nrmse + rounding
    return known.cause if alike else None


_LIKE = 0.1  # part of an error by which cells differ on the same samples
_MOST = 4.0  # times that it may be on others


def _confirmed(row: PairResult) -> bool:
    return row.cause is not None and row.cause.confirmed


def _pair(row: PairResult) -> _Pair:
    return row.baseline, row.candidate, row.kind


def _place(row: PairResult) -> _Place:
    return row.index, row.baseline, row.candidate


def told(accepted: Iterable[Accepted]) -> str:
    """What is accepted, in one sentence."""
    found = list(accepted)
    first = found[0]
    what = "waived" if first.by == "waiver" else "within a budget of the policy"
    more = f", and {len(found) - 1:,} more" if len(found) > 1 else ""
    until = f", until {first.expires}" if first.expires else ""
    return f"accepted by policy: {first.baseline or first.candidate} {what}{more} ({first.reason}{until})"
