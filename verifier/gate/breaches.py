"""What fails in a policy itself, once all is verified: what has expired, and what was for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.judge.accepting import budgeted
from verifier.judge.rules import is_for, several, words
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date

    from verifier.judge.policy import Policy
    from verifier.judge.rules import Rule, SiteBudget, Waiver
    from verifier.records import CellResult, PairResult, Result


def expired(policy: Policy, today: date) -> tuple[str, ...]:
    """A sentence for each waiver whose last day was before this one."""
    return tuple(
        f"waiver {number} ({words(each)}) expired on {each.expires.isoformat()}: mend what it was for, or decide "
        "anew."
        for number, each in enumerate(policy.waivers, 1)
        if each.expires < today
    )


def unused(policy: Policy, results: Mapping[str, Result | None], today: date) -> tuple[str, ...]:
    """A sentence for each waiver that waived nothing, and each budget that is of no site.

    Of what could not be verified nothing is known: rules that are for it are let be.

    Args:
        policy: All budgets and waivers.
        results: What was verified, by what the policy calls it; None for what could not run.
        today: Waivers that have expired by this day are `expired`, and not told again.
    """
    return (*_idle_budgets(policy, results), *_idle_waivers(policy, results, today))


def _idle_budgets(policy: Policy, results: Mapping[str, Result | None]) -> Iterator[str]:
    for number, each in enumerate(policy.budgets, 1):
        cells = _cells(each, results)
        if cells is None or any(_applies(each, cell) for cell in cells):
            continue
        hint = ""
        if any(cell.role == "semantics" and _named(each, cell) for cell in cells) and not each.cell:
            hint = " In float64 it counts where its cell names that (cell = '*/float64')."
        yield (
            f"budget {number} ({words(each)}) is for no site that was compared in its cells: "
            f"mend its pattern or remove it.{hint}"
        )


def _idle_waivers(policy: Policy, results: Mapping[str, Result | None], today: date) -> Iterator[str]:
    for number, each in enumerate(policy.waivers, 1):
        if each.expires < today:
            continue
        cells = _cells(each, results)
        if cells is None:
            continue
        used = any(
            (told.by, told.pattern, told.reason, told.expires)
            == ("waiver", words(each), each.reason, each.expires.isoformat())
            for name, result in results.items()
            if result is not None and is_for(each, name)
            for told in result.accepted
        )
        if not used:
            yield f"waiver {number} ({words(each)}) waived nothing: remove it{_instead(each, cells)}."


def _instead(waiver: Waiver, cells: list[CellResult]) -> str:
    """What is wrong where a waiver looks that names another cause."""
    for cell in cells:
        for row in cell.culprits:
            if waiver.cause and waiver.covers((row.baseline, row.candidate), cell.name):
                found = row.cause
                where = row.baseline or row.candidate
                what = "no known cause" if found is None else f"{', '.join([found.code, *found.also])}"
                sure = "" if found is None or found.confirmed else ", which is not confirmed"
                return f", or mend it: at {where} it would have to name {what}{sure}"
    return ""


def _cells(rule: Rule, results: Mapping[str, Result | None]) -> list[CellResult] | None:
    """The cells of the models that a rule is for; None where one could not be run."""
    concerned = [result for name, result in results.items() if is_for(rule, name)]
    cells = [cell for result in concerned if result is not None for cell in result.cells]
    if None in concerned or any(cell.verdict is Verdict.SKIPPED for cell in cells):
        return None
    return cells


def _applies(budget: SiteBudget, cell: CellResult) -> bool:
    return any(budgeted(row, cell.name, (budget,)) is not row for row in cell.layers)


def _named(budget: SiteBudget, cell: CellResult) -> bool:
    def by(row: PairResult) -> bool:
        return bool({row.baseline, row.candidate} & {*several(budget.site)})

    return any(map(by, cell.layers))
