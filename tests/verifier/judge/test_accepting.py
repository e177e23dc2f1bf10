"""Budgets and waivers of a policy: they accept what they name, nothing else, and what they accept is no match."""

from __future__ import annotations

import tomllib
from datetime import date
from typing import Any

import pytest
from msgspec.structs import replace

from tests import samples
from verifier.judge import STRICT, Policy, concluded, judge_again, judge_rows
from verifier.judge.rules import SiteBudget, Waiver
from verifier.judge.suggesting import suggested
from verifier.judge.verdicts import AS_GIVEN
from verifier.records import (
    Budget,
    Cause,
    CellResult,
    CertificateInfo,
    Comparison,
    Coverage,
    Interval,
    PairResult,
    Probe,
    Repeatability,
    Result,
    Status,
    Verdict,
)
from verifier.records.soundness import contradictions

TODAY = date(2026, 6, 1)
COVERED = Coverage(compared=4, baseline_sites=4, candidate_sites=4, baseline_share=1.0, candidate_share=1.0)
EPS = Cause(code="batchnorm-eps", summary="eps differs", confirmed=True)


def row(index: int, total: float = 0.0, intrinsic: float | None = 0.0, **changes: Any) -> PairResult:
    made = PairResult(
        index=index,
        baseline=f"b{index}",
        candidate=f"c{index}",
        op="conv2d",
        shape=(10,),
        total=samples.comparison(total),
        intrinsic=None if intrinsic is None else samples.comparison(intrinsic),
        budget=Budget(rule="semantics/float64", total=1e-12, intrinsic=1e-12),
        above=(index - 1,) if index else (),
    )
    return replace(made, **changes)


def cell(*rows: PairResult, name: str = "cpu/float64", **changes: Any) -> CellResult:
    judged = judge_rows(rows)
    role = "semantics" if name == "cpu/float64" else "numerics"
    made = CellResult(
        name=name,
        role=role,
        verdict=judged.verdict,
        reason=judged.reason,
        batch_size=2,
        first_divergence=judged.first_divergence,
        culprits=judged.culprits,
        layers=judged.rows,
    )
    return replace(made, **changes)


def waiver(**changes: Any) -> Waiver:
    return Waiver(**{"site": "b1", "reason": "known", "expires": TODAY, **changes})


def judged(policy: Policy, *cells: CellResult, **changes: Any) -> Result:
    found = concluded(policy, cells, changes.pop("covered", COVERED), today=TODAY, **changes)
    result = replace(samples.verification(), **found._asdict(), policy=policy.name)
    assert list(contradictions(result)) == []
    return result


FAULT = (row(0), row(1, 1e-3, 1e-3, cause=EPS), row(2, 1e-3))
"""A culprit, and a site that carries what comes from it."""


def test_a_waived_culprit_is_accepted_and_no_match() -> None:
    found = judged(Policy(waivers=(waiver(),)), cell(*FAULT))

    assert (found.verdict, found.culprits) == (Verdict.ACCEPTED, ())
    assert [str(each.status) for each in found.layers] == ["ok", "waived", "carries"]
    [told] = found.accepted
    assert (told.by, told.baseline, told.reason, told.expires, told.code) == (
        "waiver", "b1", "known", "2026-06-01", "batchnorm-eps",
    )  # fmt: skip
    assert found.reason.startswith("cpu/float64: accepted by policy: b1 waived")


def test_where_the_criteria_decide_what_is_waived_is_no_match_either() -> None:
    other = row(3, 1e-2, 1e-2)
    fine = Policy(
        criteria_decide=True, output_mse=1.0, pearson_probabilities=0.0, layer_mse=1.0, waivers=(waiver(),)
    )
    known = replace(cell(*FAULT, other, name="cpu/float32"), output=samples.verification().output)

    assert judged(replace(fine, waivers=()), known).verdict is Verdict.MATCH
    assert judged(fine, known).verdict is Verdict.ACCEPTED


def test_another_culprit_is_blamed_all_the_same() -> None:
    second = row(3, 1e-2, 1e-2)

    found = judged(Policy(waivers=(waiver(),)), cell(*FAULT, second))

    assert found.verdict is Verdict.DIVERGED
    assert [each.baseline for each in found.culprits] == ["b3"]
    assert found.first_divergence is not None
    assert found.first_divergence.baseline == "b3"
    assert [each.baseline for each in found.accepted] == ["b1"]


@pytest.mark.parametrize(
    ("cause", "verdict"),
    [
        (EPS, Verdict.ACCEPTED),
        (replace(EPS, confirmed=False), Verdict.DIVERGED),
        (replace(EPS, also=("weight-values",)), Verdict.DIVERGED),
        (replace(EPS, code="relu-missing"), Verdict.DIVERGED),
        (None, Verdict.DIVERGED),
    ],
)
def test_a_waiver_of_a_cause_is_for_that_cause_confirmed_and_alone(
    cause: Cause | None, verdict: Verdict
) -> None:
    fault = (FAULT[0], replace(FAULT[1], cause=cause), FAULT[2])

    assert (
        judged(Policy(waivers=(waiver(site="b*", cause="batchnorm-eps"),)), cell(*fault)).verdict is verdict
    )


def test_a_cell_without_causes_is_told_those_of_others() -> None:
    rows = (FAULT[0], replace(FAULT[1], cause=None), FAULT[2])

    found = judged(
        Policy(waivers=(waiver(cause="batchnorm-eps"),)), cell(*FAULT), cell(*rows, name="cpu/float32")
    )

    assert found.verdict is Verdict.ACCEPTED
    assert [each.cell for each in found.accepted] == ["cpu/float64", "cpu/float32"]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"expires": date(2026, 5, 31)}, Verdict.DIVERGED),
        ({"site": "c1"}, Verdict.ACCEPTED),
        ({"site": "b"}, Verdict.DIVERGED),
        ({"cell": "cpu/float32"}, Verdict.DIVERGED),
        ({"cell": "*/float64"}, Verdict.ACCEPTED),
    ],
)
def test_a_waiver_is_for_its_site_and_cell_and_until_its_day(
    changes: dict[str, Any], verdict: Verdict
) -> None:
    assert judged(Policy(waivers=(waiver(**changes),)), cell(*FAULT)).verdict is verdict


@pytest.mark.parametrize(
    "beside",
    [
        row(2, 1e-3, 0.0, above=()),  # reads nothing of what is waived
        row(2, 1e-3, None),  # was not looked at alone
        row(2, 1e-3, 1e-6, between_baseline=("b9",), inputs_differ=False),  # and is wrong alone
    ],
)
def test_what_a_waived_culprit_does_not_account_for_is_not_accepted(beside: PairResult) -> None:
    known = cell(FAULT[0], FAULT[1], beside)
    culprits = tuple(each for each in known.culprits if each.baseline == "b1")
    rows = tuple(replace(each, status=Status.CARRIES) if each.index == 2 else each for each in known.layers)

    found = concluded(
        Policy(waivers=(waiver(),)), [replace(known, culprits=culprits, layers=rows)], COVERED, today=TODAY
    )

    assert found.verdict is Verdict.DIVERGED


def test_a_program_that_is_not_the_one_given_is_never_waived_nor_allowed() -> None:
    given = row(1, 1e-3, 1e-3, budget=Budget(rule=AS_GIVEN, total=1e-9, intrinsic=1e-9))
    policy = Policy(
        waivers=(waiver(),),
        budgets=(SiteBudget(site="*", cell="*/float64", total=1.0, intrinsic=1.0, reason="x"),),
    )

    assert judged(policy, cell(row(0), given)).verdict is Verdict.DIVERGED


def test_an_answer_that_is_missing_is_never_waived() -> None:
    found = judged(Policy(waivers=(waiver(),)), cell(*FAULT), covered=replace(COVERED, outputs=(2, 1)))

    assert found.verdict is Verdict.DIVERGED


def test_a_probe_that_differs_is_never_waived() -> None:
    probe = Probe(name="scaled", verdict=Verdict.DIVERGED, site="b1", error=1e-3, allowed=1e-12)

    assert judged(Policy(waivers=(waiver(),)), cell(*FAULT), probes=(probe,)).verdict is Verdict.DIVERGED


def test_models_that_never_give_the_same_numbers_are_not_accepted() -> None:
    shaken = replace(cell(*FAULT), repeatable=Repeatability(runs=2, baseline="b0", candidate=None))

    assert judged(Policy(waivers=(waiver(),)), shaken).verdict is Verdict.INCONCLUSIVE


def test_a_thin_alignment_stays_inconclusive() -> None:
    found = judged(Policy(waivers=(waiver(),)), cell(*FAULT), covered=replace(COVERED, candidate_share=0.1))

    assert found.verdict is Verdict.INCONCLUSIVE


ALLOWING: dict[str, Any] = {"site": "b*", "total": 1e-2, "intrinsic": 1e-2, "reason": "fast kernel"}


@pytest.mark.parametrize(
    ("name", "changes", "verdict"),
    [
        ("cpu/float64", {}, Verdict.DIVERGED),
        ("cpu/float64", {"cell": "cpu/*"}, Verdict.DIVERGED),
        ("cpu/float64", {"cell": "*"}, Verdict.DIVERGED),
        ("cpu/float64", {"cell": "*/float64"}, Verdict.ACCEPTED),
        ("cpu/float32", {}, Verdict.ACCEPTED),
        ("cpu/float32", {"cell": "*/float64"}, Verdict.DIVERGED),
        ("cpu/float32", {"site": "b1"}, Verdict.DIVERGED),
        ("cpu/float32", {"total": 1e-4}, Verdict.DIVERGED),
    ],
)
def test_a_budget_loosens_float64_only_where_it_names_it(
    name: str, changes: dict[str, Any], verdict: Verdict
) -> None:
    policy = Policy(budgets=(SiteBudget(**{**ALLOWING, **changes}),))

    found = judged(policy, cell(*FAULT, name=name))

    assert found.verdict is verdict
    if verdict is Verdict.ACCEPTED:
        assert [(each.by, each.baseline, each.reason) for each in found.accepted] == [
            ("budget", "b1", "fast kernel"), ("budget", "b2", "fast kernel"),
        ]  # fmt: skip


def test_a_budget_may_be_tighter_than_the_rule() -> None:
    near = cell(row(0, 1e-13), name="cpu/float32")

    assert judged(STRICT, near).verdict is Verdict.MATCH
    tight = Policy(budgets=(SiteBudget(site="b0", total=1e-14, reason="exact so far"),))
    assert judged(tight, near).verdict is Verdict.DIVERGED


def test_a_budget_that_was_not_needed_leaves_a_match() -> None:
    found = judged(Policy(budgets=(SiteBudget(**ALLOWING),)), cell(row(0, 1e-13), name="cpu/float32"))

    assert (found.verdict, found.accepted) == (Verdict.MATCH, ())


def test_whole_numbers_stay_exact() -> None:
    whole = row(1, 1e-3, 1e-3, budget=Budget(rule="rounding/float32", total=0.0, intrinsic=0.0))

    found = judged(Policy(budgets=(SiteBudget(**ALLOWING),)), cell(row(0), whole, name="cpu/float32"))

    assert found.verdict is Verdict.DIVERGED


def test_of_several_budgets_the_last_counts() -> None:
    tight = SiteBudget(site="b2", total=1e-4, reason="no more")

    found = judged(Policy(budgets=(SiteBudget(**ALLOWING), tight)), cell(*FAULT, name="cpu/float32"))

    assert found.verdict is Verdict.DIVERGED


@pytest.mark.parametrize(
    "policy",
    [
        Policy(name="mine", waivers=(waiver(expires=date(9999, 1, 1)),)),
        Policy(name="mine", budgets=(SiteBudget(**ALLOWING, cell=("*/float64", "*/float32")),)),
    ],
)
def test_what_was_accepted_is_blamed_again_by_a_policy_without(policy: Policy) -> None:
    before = judge_again(judged(STRICT, cell(*FAULT), cell(*FAULT, name="cpu/float32")), STRICT)
    accepted = judge_again(before, policy)

    assert accepted.verdict is Verdict.ACCEPTED
    assert judge_again(accepted, STRICT) == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"reason": "  "}, "reason"),
        ({"site": "b*"}, "whatever goes wrong"),
        ({"site": "*"}, "whatever goes wrong"),
        ({"model": "*"}, "whatever goes wrong"),
        ({"site": ("b1", "b?")}, "whatever goes wrong"),
        ({"site": ()}, "no site"),
        ({"site": ("b1", "")}, "empty name"),
        ({"cause": "unexplained"}, "no cause"),
    ],
)
def test_a_waiver_names_one_fault(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        waiver(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"reason": ""}, "reason"),
        ({"total": None, "intrinsic": None}, "no limit"),
        ({"total": float("nan")}, "total is nan"),
        ({"intrinsic": float("inf")}, "intrinsic is inf"),
        ({"total": -1.0}, "not negative"),
    ],
)
def test_a_budget_is_a_number_with_a_reason(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SiteBudget(**{**ALLOWING, **changes})


def test_what_is_suggested_passes_and_nothing_tighter_does() -> None:
    saved = judged(STRICT, cell(*FAULT), cell(*FAULT, name="cpu/float32"))

    text, none = suggested(saved, STRICT)

    assert none == ""
    table = tomllib.loads(text)
    assert judge_again(saved, Policy.of(table, "f", "f")).verdict is Verdict.ACCEPTED
    assert all("not approved" in each["reason"] for each in table["budgets"])
    for k, budget in enumerate(table["budgets"]):
        for name in ("total", "intrinsic"):
            if name in budget:
                less = [dict(each) for each in table["budgets"]]
                less[k][name] = budget[name] * 0.89  # less than a digit of two below
                tighter = Policy.of({**table, "budgets": less}, "f", "f")
                assert judge_again(saved, tighter).verdict is Verdict.DIVERGED, (k, name)


def test_where_waivers_of_a_few_faults_do_they_are_told_beside_the_budgets() -> None:
    saved = judged(STRICT, cell(*FAULT), cell(*FAULT, name="cpu/float32"))

    text, _ = suggested(saved, STRICT)

    told = tomllib.loads("\n".join(line[4:] for line in text.splitlines() if line.startswith("#   ")))
    assert [set(each) for each in told["waivers"]] == [{"site", "cause", "reason", "expires"}]
    assert judge_again(saved, Policy.of(told, "f", "f")).verdict is Verdict.ACCEPTED


def estimated(error: float) -> Comparison:
    interval = Interval(mse=(0.0, 1.0), nrmse=(0.8 * error, 1.2 * error))
    return replace(samples.comparison(error), interval=interval)


def test_of_estimates_the_lower_end_is_suggested_and_only_what_was_measured_is_told() -> None:
    fault = row(1, total=1e-3, intrinsic=1e-3)
    behind = row(2, total=2e-3, above=(1,))
    rows = (
        row(0),
        replace(fault, total=estimated(1e-3), intrinsic=estimated(1e-3)),
        replace(behind, total=estimated(2e-3), intrinsic=None),
    )
    recording = CertificateInfo(
        source="net.safetensors", digest="", created="", environment=samples.verification().environment
    )
    saved = replace(judged(STRICT, cell(*rows)), certificate=recording)

    text, _ = suggested(saved, STRICT)

    table = tomllib.loads(text)
    assert [each["total"] for each in table["budgets"]] == [8e-4, 1.6e-3]
    assert "lower end of the 95 % interval" in text
    assert "with a live baseline" in text
    first, second = judge_again(saved, Policy.of(table, "f", "f")).accepted
    assert "1.0e-03 (95 %: 8.0e-04 to 1.2e-03) alone" in first.said
    assert "2.0e-03 (95 %: 1.6e-03 to 2.4e-03) in all; " in second.said
    assert "alone" not in second.said


def test_where_no_number_helps_nothing_is_suggested() -> None:
    other_shape = row(1, total=0.0, intrinsic=None, candidate_shape=(9,))
    saved = judged(STRICT, cell(row(0), replace(other_shape, total=None)))

    _, none = suggested(saved, STRICT)

    assert none.startswith("what is wrong at b1 is no error of a size")


def test_sites_that_need_the_same_are_named_together() -> None:
    names = ("layer1.0", "layer1.1", "layer1.2")
    rows = [row(k, 1e-3, 1e-3, baseline=name, candidate=name) for k, name in enumerate(names)]
    saved = judged(STRICT, cell(*rows, row(3)))

    [budget] = tomllib.loads(suggested(saved, STRICT)[0])["budgets"]

    assert (budget["site"], budget["total"]) == ("layer1.*", 1e-3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"accepted": ()}, "accepted"),
        ({"verdict": Verdict.MATCH}, "verdict is match"),
    ],
)
def test_a_record_that_contradicts_what_is_accepted_is_damaged(changes: dict[str, Any], says: str) -> None:
    found = replace(judged(Policy(waivers=(waiver(),)), cell(*FAULT)), **changes)

    assert any(says in each for each in contradictions(found))
