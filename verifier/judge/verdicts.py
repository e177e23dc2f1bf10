"""The verdict of a cell and over all of them. Works on records alone, so saved ones can be judged again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from verifier.judge.consistency import contradiction
from verifier.judge.criteria import OUTPUT, deciding, judged_by_task
from verifier.records import CellResult, Coverage, Criterion, Probe, Verdict, brief

AS_GIVEN = "as given"
"""The rule of rows that hold a model as it was given against its program."""

QUANTISED = "quantised"
"""The rule of rows of a quantised model, whose numbers are rounded on purpose: by a strict policy none may be."""

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.judge.policy import Policy


def main_cell(cells: Sequence[CellResult]) -> CellResult:
    """The cell whose figures stand for all: the first numerics cell that ran, else the first that ran."""
    ran = [cell for cell in cells if cell.verdict is not Verdict.SKIPPED] or list(cells)
    return next((cell for cell in ran if cell.role == "numerics"), ran[0])


def overall(
    policy: Policy,
    cells: Sequence[CellResult],
    criteria: Sequence[Criterion],
    covered: Coverage,
) -> tuple[Verdict, str]:
    """The verdict over all cells, and the reason in one sentence of at most `records.HEADLINE` characters."""
    verdict, reason = _overall(policy, cells, criteria, covered)
    return verdict, brief(reason)


def _overall(
    policy: Policy,
    cells: Sequence[CellResult],
    criteria: Sequence[Criterion],
    covered: Coverage,
) -> tuple[Verdict, str]:
    # No policy makes up for an answer that is missing: its budgets are for what both models return.
    if covered.outputs[0] != covered.outputs[1]:
        return (
            Verdict.DIVERGED,
            f"the baseline returns {covered.outputs[0]} tensors, the candidate {covered.outputs[1]}",
        )
    if otherwise := "; ".join(covered.returned) or _other_program(cells):
        return Verdict.DIVERGED, otherwise
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
    if covered.hidden:
        return (
            Verdict.INCONCLUSIVE,
            f"{covered.hidden[0]} has no partner, and nothing that was compared depends on it: parameters that are "
            "all 0 hide it (use calibrated weights), or these inputs do",
        )
    if thin := too_thin(covered, policy):
        return Verdict.INCONCLUSIVE, thin
    if covered.parameterised and not covered.parameterised_compared:
        return Verdict.INCONCLUSIVE, "no site with parameters could be paired"
    verdict, reason = _left_open(policy, cells, criteria)
    against = contradiction(cells, criteria) if verdict is Verdict.MATCH else ""
    if against:
        return (
            Verdict.INCONCLUSIVE,
            f"figures of the same record speak against a match: {against}",
        )
    return verdict, reason


def _other_program(cells: Sequence[CellResult]) -> str:
    """That a model as it was given is not the program that was compared, which no policy makes up for either."""
    for cell in cells:
        if any(row.budget is not None and row.budget.rule == AS_GIVEN for row in cell.culprits):
            return f"{cell.name}: {cell.reason}"
    return ""


def too_thin(covered: Coverage, policy: Policy) -> str:
    """Why too little was paired for a verdict; empty where enough was."""
    least, needed = min(covered.baseline_share, covered.candidate_share), policy.minimum_coverage
    if least >= needed:
        return ""
    return f"only {least:.0%} of the sites could be paired; {needed:.0%} are needed to say more"


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
    return Verdict.DIVERGED, brief(f"the given inputs do not show it, a probe does ({shown.name}): {where}")


def beside_quantisation(cells: Sequence[CellResult]) -> str | None:
    """What else is wrong with a quantised candidate: the first fault of another stage, in words; None if nothing is.

    What quantisation costs is a matter of the task. A wrong graph beside it is not, however few classes it changes.
    """
    rows = [row for cell in cells for row in cell.layers]
    if not any(row.budget is not None and row.budget.rule == QUANTISED for row in rows):
        return None
    for cell in cells:
        for row in cell.culprits:  # operators without a partner among them
            if row.stage in ("translation", "fusion"):
                said = row.cause.summary if row.cause is not None else row.reason
                name = row.baseline or row.candidate
                return f"{name} is wrong beside what is quantised ({cell.name}, {row.stage}): {said}"
    for cell in cells:
        if cell.role == "semantics" and cell.verdict is Verdict.DIVERGED:
            return f"with nothing rounded it is not the baseline's function ({cell.name}): {cell.reason}"
    return None


def left_open(cell: CellResult) -> CellResult:
    """The cell, without a verdict where it would be a match of models of which one gives other numbers every time."""
    reason = cell.repeatable.broken if cell.repeatable is not None else ""
    if not reason or cell.verdict is not Verdict.MATCH:
        return cell
    return msgspec.structs.replace(cell, verdict=Verdict.INCONCLUSIVE, reason=reason)


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
    if policy.criteria_decide and all(criterion.name != OUTPUT for criterion in criteria):
        return Verdict.INCONCLUSIVE, "no number is returned to hold the published criteria against"
    if policy.task_decides:
        judged = {criterion.cell for criterion in deciding(policy, criteria)}
        for cell in judged_by_task(cells):
            if cell.name not in judged:
                return Verdict.INCONCLUSIVE, f"{cell.name}: no class scores are there to judge the task by"
    return Verdict.MATCH, ""
