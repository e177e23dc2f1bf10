"""Judging a saved verification by another policy. Nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from verifier.cells import Cell
from verifier.judge.accepting import own_budget
from verifier.judge.budgets import (
    DOUBLE_ROUNDOFF,
    NARROWED,
    narrowed_budget,
    numerics_budget,
    semantics_budget,
)
from verifier.judge.conclusion import concluded
from verifier.judge.hardware import hardware
from verifier.judge.recorded import RECORDED, WHOLE, left_between, recorded_budget
from verifier.judge.statuses import judge_rows
from verifier.judge.verdicts import AS_GIVEN, QUANTISED, left_open
from verifier.records import CellResult, PairResult, Result, Verdict

if TYPE_CHECKING:
    from verifier.judge.policy import Policy


def judge_again(verification: Result, policy: Policy) -> Result:
    """The same measurements with verdicts, statuses and criteria by `policy`."""
    cells = tuple(_cell(cell, policy) for cell in verification.cells)
    found = concluded(policy, cells, verification.coverage, verification.probes)
    return msgspec.structs.replace(verification, policy=policy.name, **found._asdict())


def _cell(cell: CellResult, policy: Policy) -> CellResult:
    if cell.verdict is Verdict.SKIPPED or any(
        row.budget and row.budget.rule == QUANTISED for row in cell.layers
    ):
        return cell
    rows = [_budgeted(row, cell, policy) for row in cell.layers]
    judged = left_between(judge_rows(rows))
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
    row = own_budget(row)
    old = row.budget
    if old is None:
        return row
    if old.total == 0 or old.rule == AS_GIVEN:  # whole numbers are exact by any policy
        return row
    if old.rule in NARROWED:
        budget = narrowed_budget(policy, old.noise_total or 0.0, old.reduction, here=old.rule == NARROWED[0])
    elif cell.role == "semantics":
        budget = semantics_budget(policy, (old.noise_total or 0.0) / DOUBLE_ROUNDOFF)
    elif old.rule.startswith(RECORDED):
        setting = Cell.parse(cell.name)
        noise = old.noise_total or 0.0, old.noise_intrinsic or 0.0
        whole = old.rule == WHOLE
        budget = recorded_budget(policy, setting.dtype, setting.unit_roundoff, *noise, whole=whole)
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
