"""Judging a saved verification by another policy. Nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from verifier.cells import Cell
from verifier.judge.budgets import (
    DOUBLE_ROUNDOFF,
    NARROWED,
    narrowed_budget,
    numerics_budget,
    semantics_budget,
)
from verifier.judge.criteria import evaluate
from verifier.judge.hardware import hardware
from verifier.judge.statuses import judge_rows
from verifier.judge.verdicts import AS_GIVEN, left_open, main_cell, overall, with_probes
from verifier.records import CellResult, PairResult, Result, Verdict

if TYPE_CHECKING:
    from verifier.judge.policy import Policy


def judge_again(verification: Result, policy: Policy) -> Result:
    """The same measurements with verdicts, statuses and criteria by `policy`."""
    cells = tuple(_cell(cell, policy) for cell in verification.cells)
    judged = msgspec.structs.replace(verification, cells=cells)
    main = main_cell(cells)
    criteria = evaluate(policy, verification.output, main.layers, cells)
    verdict, reason = overall(policy, cells, criteria, verification.coverage)
    verdict, reason = with_probes(policy, verdict, reason, verification.probes)
    deciding = next((cell for cell in cells if cell.verdict is Verdict.DIVERGED), None)
    return msgspec.structs.replace(
        judged,
        verdict=verdict,
        reason=reason,
        criteria=criteria,
        policy=policy.name,
        first_divergence=deciding.first_divergence if deciding else None,
        culprits=deciding.culprits if deciding else (),
    )


def _cell(cell: CellResult, policy: Policy) -> CellResult:
    if cell.verdict is Verdict.SKIPPED:
        return cell
    rows = [_budgeted(row, cell, policy) for row in cell.layers]
    judged = judge_rows(rows)
    exact = None if cell.role == "semantics" else hardware(policy, Cell.parse(cell.name), judged.rows)
    again = msgspec.structs.replace(
        cell,
        hardware=exact,
        verdict=judged.verdict,
        reason=judged.reason,
        first_divergence=judged.first_divergence,
        culprits=judged.culprits,
        layers=judged.rows,
    )
    return left_open(again)


def _budgeted(row: PairResult, cell: CellResult, policy: Policy) -> PairResult:
    if row.budget is None:
        return row
    old = row.budget
    if old.total == 0 or old.rule == AS_GIVEN:  # whole numbers are exact by any policy
        return row
    if old.rule in NARROWED:
        budget = narrowed_budget(policy, old.noise_total or 0.0, old.reduction, here=old.rule == NARROWED[0])
    elif cell.role == "semantics":
        budget = semantics_budget(policy, (old.noise_total or 0.0) / DOUBLE_ROUNDOFF)
    else:
        setting = Cell.parse(cell.name)
        budget = numerics_budget(
            policy,
            setting.dtype,
            setting.unit_roundoff,
            old.noise_total,
            old.noise_intrinsic,
            None if row.accuracy is None else row.accuracy.baseline_systematic,
            old.reduction,
            old.accumulated,
        )
    return msgspec.structs.replace(row, budget=budget)
