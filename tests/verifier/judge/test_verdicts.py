"""Judging rows: statuses, first divergence, culprits and the overall verdict, from records alone."""

from __future__ import annotations

from typing import Any

import mpmath
import msgspec
import pytest

from verifier.judge import CRITERIA, STRICT, Policy, judge_rows, overall
from verifier.judge.budgets import numerics_budget, semantics_budget
from verifier.judge.excess import within
from verifier.records import (
    Budget,
    CellResult,
    Comparison,
    Coverage,
    Criterion,
    PairResult,
    Status,
    Verdict,
)

LIMIT = 1e-12


def error(size: float, **changes: Any) -> Comparison:
    made = Comparison(
        mse=size**2,
        pearson=1.0,
        one_minus_pearson=0.0,
        cosine=1.0,
        nrmse=size,
        sqnr_db=0.0,
        max_abs=size,
        max_abs_index=(0,),
        max_rel=size,
        nonfinite_baseline=0,
        nonfinite_candidate=0,
        elements=10,
    )
    return msgspec.structs.replace(made, **changes)


def row(index: int, size: float, intrinsic: float | None = 0.0, **changes: Any) -> PairResult:
    made = PairResult(
        index=index,
        baseline=f"b{index}",
        candidate=f"c{index}",
        op="conv2d",
        shape=(10,),
        total=error(size),
        intrinsic=None if intrinsic is None else error(intrinsic),
        budget=Budget(rule="test", total=LIMIT, intrinsic=LIMIT),
        above=(index - 1,) if index else (),
    )
    return msgspec.structs.replace(made, **changes)


def lonely(index: int, side: str) -> PairResult:
    name = f"{side[0]}{index}"
    return PairResult(
        index=index,
        baseline=name if side == "baseline" else None,
        candidate=name if side == "candidate" else None,
        op="relu",
        shape=(10,),
        status=Status.UNMATCHED,
    )


def statuses(rows: list[PairResult]) -> list[str]:
    return [str(each.status) for each in judge_rows(rows).rows]


def test_rows_inside_their_budget_match() -> None:
    judged = judge_rows([row(0, 0.0), row(1, 1e-13)])
    assert judged.verdict is Verdict.MATCH
    assert judged.first_divergence is None
    assert [each.reason for each in judged.rows] == ["", ""]


def test_a_culprit_is_told_from_what_carries_and_what_amplifies_it() -> None:
    rows = [row(0, 0.0), row(1, 1e-6, 1e-6), row(2, 1.5e-6), row(3, 1e-5), row(4, 5e-6)]
    assert statuses(rows) == ["ok", "culprit", "carries", "amplifies", "carries"]
    judged = judge_rows(rows)
    assert judged.first_divergence == judged.culprits[0] == judged.rows[1]
    assert "intrinsic relative error 1.0e-06, allowed 1.0e-12 (rule test)" in judged.culprits[0].reason


def test_every_culprit_is_named_in_order() -> None:
    rows = [row(0, 1e-6, 1e-6), row(1, 1e-6), row(2, 1e-3, 1e-3), row(3, 1e-3)]
    assert [each.baseline for each in judge_rows(rows).culprits] == ["b0", "b2"]


def test_a_fault_that_the_free_pass_cancels_is_still_a_divergence() -> None:
    judged = judge_rows([row(0, 0.0), row(1, 0.0, 1e-3)])
    assert judged.verdict is Verdict.DIVERGED
    assert judged.first_divergence is not None
    assert judged.first_divergence.baseline == "b1"


def test_another_shape_is_a_culprit_where_it_arises_and_carried_below() -> None:
    strange: dict[str, Any] = {"candidate_shape": (5,), "total": None, "intrinsic": None}
    rows = [row(0, 0.0), row(1, 0, **strange), row(2, 0, **strange), row(3, 1.0, 1.0), row(4, 1.0)]
    assert statuses(rows) == ["ok", "culprit", "carries", "amplifies", "carries"]
    assert judge_rows(rows).rows[1].reason.startswith("shape (5,) instead of (10,)")


@pytest.mark.parametrize("bad", [{"nrmse": float("nan")}, {"nonfinite_mismatched": 1}])
def test_what_is_not_a_number_never_passes(bad: dict[str, Any]) -> None:
    assert not within(error(0.5, **bad), float("inf") if "nonfinite_mismatched" in bad else 1e9)
    assert judge_rows([row(0, 0.0, total=error(0.5, **bad))]).verdict is Verdict.DIVERGED


def test_a_missing_site_is_named_instead_of_the_row_it_spoils() -> None:
    rows = [
        row(0, 0.0),
        lonely(1, "baseline"),
        row(2, 0.5, 0.5, above=(0,), between_baseline=("b1",)),
        row(3, 0.5),
    ]
    judged = judge_rows(rows)
    assert judged.first_divergence is not None
    assert (judged.first_divergence.baseline, judged.first_divergence.candidate) == ("b1", None)
    assert "no relu here; behind it, at b2" in judged.first_divergence.reason
    assert [each.baseline for each in judged.culprits] == ["b1"]


def test_sites_without_partner_between_rows_that_agree_are_no_divergence() -> None:
    rows = [row(0, 0.0), lonely(1, "candidate"), row(2, 0.0, above=(0,), between_candidate=("c1",))]
    assert judge_rows(rows).verdict is Verdict.MATCH


def test_operands_from_elsewhere_make_a_culprit() -> None:
    judged = judge_rows([row(0, 0.0), row(1, 0.3, 0.3, rewired=True)])
    assert judged.rows[1].status is Status.CULPRIT
    assert "reads other tensors" in judged.rows[1].reason


def test_a_row_that_follows_from_another_is_no_culprit() -> None:
    rows = [row(0, 0.5, 0.5), row(1, 0.6, 0.6, above=(0,)), row(2, 0.6, 0.6, above=(1,), follows=0)]
    judged = judge_rows(rows)
    assert [each.index for each in judged.culprits] == [0, 1]
    assert judged.rows[2].status == "amplifies"
    assert "it follows from" in judged.rows[2].reason


def test_nothing_compared_is_inconclusive() -> None:
    assert judge_rows([]).verdict is Verdict.INCONCLUSIVE
    blind = error(0.0, nonfinite_baseline=10, nonfinite_candidate=10)
    assert judge_rows([row(0, 0.0, None, total=blind)]).verdict is Verdict.INCONCLUSIVE


def test_an_output_without_a_finite_number_is_inconclusive_but_a_mask_is_not() -> None:
    blind = error(0.0, nonfinite_baseline=10, nonfinite_candidate=10)
    mask, output = row(0, 0.0, total=blind), row(1, 0.0)
    assert judge_rows([mask, output]).verdict is Verdict.MATCH
    assert judge_rows([row(0, 0.0), row(1, 0.0, total=blind)]).verdict is Verdict.INCONCLUSIVE


def test_budgets_grow_with_the_baselines_own_noise() -> None:
    quiet, loud = (numerics_budget(STRICT, "float32", 2**-24, noise, noise / 10) for noise in (0.0, 1e-5))
    assert quiet.total == quiet.intrinsic == STRICT.floor * 2**-24
    assert loud.total == pytest.approx(STRICT.factor * 1e-5 + quiet.total)
    assert semantics_budget(STRICT, 10.0).total == STRICT.semantics
    chaotic = semantics_budget(STRICT, 1e6)
    assert chaotic.total == pytest.approx(STRICT.factor * 1e6 * 2**-53)
    assert chaotic.intrinsic == STRICT.semantics


@pytest.mark.parametrize("elements", [5, 6, 8])
def test_what_few_numbers_may_err_by_is_what_chance_gives_once_in_ten_thousand(elements: int) -> None:
    noise = 1e-3
    budget = numerics_budget(STRICT, "float32", 2**-24, noise, 0.0, elements=elements)
    assert budget.oracle_total is not None
    ratio, half = (budget.oracle_total / noise) ** 2, mpmath.mpf(elements) / 2
    beyond = mpmath.betainc(half, half, 0, 1 / (1 + mpmath.mpf(ratio)), regularized=True)
    assert float(beyond) == pytest.approx(1e-4, rel=1e-6)


def cell(verdict: Verdict) -> CellResult:
    return CellResult(name="cpu/float32", role="numerics", verdict=verdict, batch_size=1, reason="because")


def covered(**changes: Any) -> Coverage:
    made = Coverage(
        compared=4,
        baseline_sites=4,
        candidate_sites=4,
        baseline_share=1.0,
        candidate_share=1.0,
        parameterised=2,
        parameterised_compared=2,
    )
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Verdict.MATCH),
        ({"baseline_share": 0.4}, Verdict.INCONCLUSIVE),
        ({"candidate_share": 0.4}, Verdict.INCONCLUSIVE),
        ({"parameterised_compared": 0}, Verdict.INCONCLUSIVE),
        ({"outputs": (1, 2)}, Verdict.DIVERGED),
    ],
)
def test_coverage_decides_what_may_be_called_a_match(changes: dict[str, Any], expected: Verdict) -> None:
    assert overall(STRICT, [cell(Verdict.MATCH)], [], covered(**changes))[0] is expected


def test_a_thin_alignment_does_not_hide_a_divergence() -> None:
    assert overall(STRICT, [cell(Verdict.DIVERGED)], [], covered(baseline_share=0.1))[0] is Verdict.DIVERGED


@pytest.mark.parametrize(("passed", "expected"), [(True, Verdict.MATCH), (False, Verdict.DIVERGED)])
def test_criteria_decide_only_where_the_policy_says_so(passed: bool, expected: Verdict) -> None:
    criterion = Criterion(name="output MSE", value=1.0, comparison="<", limit=1.0, passed=passed)
    assert overall(CRITERIA, [cell(Verdict.DIVERGED)], [criterion], covered())[0] is expected
    assert overall(STRICT, [cell(Verdict.MATCH)], [criterion], covered())[0] is Verdict.MATCH
    assert overall(CRITERIA, [cell(Verdict.MATCH)], [], covered())[0] is Verdict.INCONCLUSIVE


def test_policies_are_immutable() -> None:
    with pytest.raises(AttributeError):
        Policy().factor = 1  # type: ignore[misc]


def test_what_a_long_sum_cost_may_come_along_to_the_sites_below_it() -> None:
    here, below = (
        numerics_budget(STRICT, "float32", 2**-24, 1e-8, 0.0, reduction=1, accumulated=longest)
        for longest in (None, 400)
    )
    assert here.oracle_intrinsic == below.oracle_intrinsic
    assert below.oracle_total is not None
    assert here.oracle_total is not None
    # 0.3 roundoffs times the root of the number of terms
    assert below.oracle_total - here.oracle_total == pytest.approx(0.3 * 2**-24 * (20 - 1))
