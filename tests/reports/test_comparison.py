from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from reports import comparison
from tests import samples
from verifier.records import HEADLINE, Criterion, PairResult, Status, Verdict

if TYPE_CHECKING:
    from verifier.storage.saving import Verification


def of(*rows: PairResult, **fields: Any) -> Verification:
    cell = msgspec.structs.replace(samples.verification().cells[0], layers=rows)
    return samples.verification(cells=(cell,), **fields)


def test_a_result_beside_itself_shows_no_change(sample: Verification) -> None:
    found = comparison.compare(sample, sample)
    assert found.unchanged
    assert (found.worse, found.better, found.appeared, found.vanished, found.grounds) == ((), (), (), (), ())
    assert found.headline.startswith(f"still {sample.verdict}: ")
    assert [section.title for section in comparison.sections(found)] == ["The same in both"]


def test_a_mended_fault_is_told_with_all_that_got_better() -> None:
    before, after = samples.diverged(), of(*(samples.pair(k) for k in range(8)))
    after = msgspec.structs.replace(
        after, cells=(msgspec.structs.replace(after.cells[0], name="cpu/float64"),)
    )
    found = comparison.compare(before, after)
    assert found.headline == "diverged before, match now: 8 of 8 sites agree exactly"
    assert ("cpu/float64", "diverged", "match") in found.verdicts
    assert ("cpu/float32", "diverged", "not run") in found.verdicts
    assert len(found.gone) == 1
    assert "batchnorm-eps" in found.gone[0]
    # The candidate's bn1 has another name now; it is the baseline's bn1 all the same.
    assert found.better[0].site == "bn1"
    assert len(found.better) == 7
    assert (found.worse, found.new) == ((), ())


def test_new_culprits_of_one_cause_are_one_sentence() -> None:
    before, after = samples.caused(samples.cause(), each=1, other=2), samples.caused(samples.cause(), each=3)
    [new] = comparison.compare(before, after).new
    assert new.startswith("2 of 3 batch_norm sites, first layer0.1.bn: eps is 0.001")
    assert new.endswith("; fix: set eps to 1e-05")
    [gone] = comparison.compare(after, before).gone
    assert gone == new.removesuffix("; fix: set eps to 1e-05")


def test_what_a_policy_accepts_is_no_culprit_in_a_comparison() -> None:
    before, after = samples.verification(), samples.accepted()
    cell = msgspec.structs.replace(before.cells[0], name="cpu/float64")
    found = comparison.compare(msgspec.structs.replace(before, cells=(cell,)), after)
    said = str([(section.title, section.rows) for section in comparison.sections(found)])
    assert "culprit" not in said
    assert "ok, now accepted by policy" in said
    assert ("cpu/float64", "match", "accepted by policy") in found.verdicts
    assert "fix:" not in said


def test_a_site_that_now_carries_is_told_with_the_error_that_it_carries() -> None:
    before = of(samples.pair(2, intrinsic=samples.comparison(0.0)))
    after = of(
        samples.pair(2, total=1e-3, intrinsic=samples.comparison(0.0), status=Status.CARRIES),
    )
    [change] = comparison.compare(before, after).worse
    assert (change.kind, change.error_before, change.error_after) == ("total", 0.0, 1e-3)


def test_better_and_worse_are_the_same_seen_from_either_side() -> None:
    one, other = samples.diverged(), samples.three_culprits()
    there, back = comparison.compare(one, other), comparison.compare(other, one)
    assert {change.site for change in there.worse} == {change.site for change in back.better}
    assert [each.partition("; fix: ")[0] for each in there.new] == list(back.gone)
    assert [each.partition("; fix: ")[0] for each in back.new] == list(there.gone)
    assert (there.appeared, there.vanished) == (back.vanished, back.appeared)


def test_sites_that_only_one_result_has_appeared_or_vanished() -> None:
    found = comparison.compare(
        of(samples.pair(0), samples.pair(1)), of(samples.pair(1), samples.pair(2), samples.pair(3))
    )
    assert (found.appeared, found.vanished) == (("relu", "layer1.0.conv1"), ("conv1",))


@pytest.mark.parametrize(
    ("before", "after", "worse", "better"),
    [
        (1e-7, 1.9e-7, 0, 0),
        (1e-7, 3e-7, 1, 0),
        (3e-7, 1e-7, 0, 1),
        (0.0, 1e-9, 1, 0),
        (1e-9, 0.0, 0, 1),
        (1.0, math.nan, 1, 0),
        (math.nan, 1.0, 0, 1),
        (math.nan, math.nan, 0, 0),
        (0.0, 0.0, 0, 0),
        (math.inf, math.inf, 0, 0),
    ],
)
def test_an_error_has_changed_when_it_more_than_doubled_or_halved(
    before: float, after: float, worse: int, better: int
) -> None:
    found = comparison.compare(of(samples.pair(0, total=before)), of(samples.pair(0, total=after)))
    assert (len(found.worse), len(found.better)) == (worse, better)


def test_a_worse_status_weighs_more_than_a_larger_error() -> None:
    before = of(samples.pair(0, total=1e-7), samples.pair(1, total=1e-7))
    after = of(samples.pair(0, total=1e-1), samples.pair(1, total=1e-6, status=Status.CULPRIT))
    assert [change.site for change in comparison.compare(before, after).worse] == ["bn1", "conv1"]


def test_the_intrinsic_error_counts_where_both_have_it() -> None:
    one = samples.pair(0, total=1e-3, intrinsic=samples.comparison(1e-9))
    other = samples.pair(0, total=1e-1, intrinsic=samples.comparison(1e-9))
    assert comparison.compare(of(one), of(other)).unchanged


def test_what_only_one_result_tells_has_a_heading_of_its_own() -> None:
    def judged(name: str) -> Criterion:
        return Criterion(name=name, value=0.5, comparison=">=", limit=0.9, passed=False)

    alone = msgspec.structs.replace(samples.pair(1), total=None, candidate=None, status=Status.UNMATCHED)
    before = of(samples.pair(0), alone, criteria=(judged("top-1"),))
    after = of(samples.pair(0), samples.pair(1, total=1e-7), criteria=(judged("top-5"),))
    found = comparison.compare(before, after)
    assert found.uncompared == (
        ("criterion top-1", "0.5, failed", "not judged"),
        ("criterion top-5", "not judged", "0.5, failed"),
        ("bn1, cpu/float32", "unmatched", "ok, total 1e-07"),
    )
    assert (found.worse, found.better, found.appeared, found.vanished) == ((), (), (), ())
    assert not found.unchanged
    section, _ = comparison.sections(found)
    assert (section.title, section.rows) == ("Cannot be compared: 3", found.uncompared)


def test_a_site_that_went_wrong_without_a_figure_is_worse() -> None:
    wrong = msgspec.structs.replace(samples.pair(0), total=None, status=Status.CULPRIT)
    found = comparison.compare(of(samples.pair(0, total=1e-7)), of(wrong))
    assert (len(found.worse), found.uncompared) == (1, ())


@pytest.mark.parametrize("there", [True, False])
def test_cells_without_sites_in_both_are_said_to_be_all_there_is(*, there: bool) -> None:
    before = of(samples.pair(0))
    name = "cpu/float32" if there else "cpu/float64"
    cell = msgspec.structs.replace(before.cells[0], name=name, layers=(), verdict=Verdict.SKIPPED)
    found = comparison.compare(before, msgspec.structs.replace(before, cells=(cell,)))
    titles = [section.title for section in comparison.sections(found)]
    assert "Cannot be compared: no cell has sites in both results" in titles
    assert ("cell cpu/float32", "match", "skipped" if there else "not run") in found.uncompared
    assert (found.appeared, found.vanished) == ((), ())


def test_another_ground_is_told() -> None:
    one = samples.verification()
    other = msgspec.structs.replace(
        one,
        policy="criteria",
        inputs=msgspec.structs.replace(one.inputs, digest="b", description="photographs"),
        weights=msgspec.structs.replace(one.weights, baseline_digest="d"),
        environment=msgspec.structs.replace(one.environment, packages={"torch": "2.12"}, processor="Another"),
    )
    one = msgspec.structs.replace(
        one,
        inputs=msgspec.structs.replace(one.inputs, digest="a"),
        weights=msgspec.structs.replace(one.weights, baseline_digest="c"),
    )
    assert comparison.compare(one, other).grounds == (
        "inputs: standard normal numbers, now photographs",
        "the baseline's weights are others",
        "policy strict, now criteria",
        "processor Imaginary CPU, now Another",
        "torch 2.11, now 2.12",
    )


def test_the_same_ground_is_told_as_far_as_it_is_known() -> None:
    one = samples.verification()
    assert comparison.compare(one, one).same == ("baseline", "policy", "processor", "versions")
    known = msgspec.structs.replace(
        one,
        inputs=msgspec.structs.replace(one.inputs, digest="a"),
        weights=msgspec.structs.replace(one.weights, baseline_digest="c"),
    )
    last = comparison.sections(comparison.compare(known, known))[-1]
    assert last.title == "The same in both"
    assert last.rows == (("baseline, inputs, weights, policy, processor, versions",),)
    newer = msgspec.structs.replace(known.environment, python="3.13.0")
    found = comparison.compare(known, msgspec.structs.replace(known, environment=newer))
    assert (found.grounds, "versions" in found.same) == (("Python 3.11.7, now 3.13.0",), False)


def test_the_page_of_a_comparison_is_named_at_its_end() -> None:
    one = samples.verification()
    assert "Report" not in [section.title for section in comparison.sections(comparison.compare(one, one))]
    last = comparison.sections(comparison.compare(one, one), page="out/comparison.html")[-1]
    assert (last.title, last.rows) == ("Report", (("out/comparison.html",),))


def test_a_long_headline_keeps_its_cause_behind_both_verdicts() -> None:
    why = "the constant of the division by the root of the width is 3.0 where 2.82843 is right and so on"
    bad = samples.diverged()
    named = msgspec.structs.replace(
        bad.culprits[0],
        baseline="blocks.0.attn.multi_head_attention_forward",
        cause=samples.cause(summary=why),
    )
    bad = msgspec.structs.replace(bad, culprits=(named,), first_divergence=named)
    said = comparison.compare(samples.verification(), bad).headline
    assert said.startswith("match before, diverged now: ")
    assert f" is wrong: {why} (confirmed, batchnorm-eps)" in said
    assert len(said) <= HEADLINE


def test_long_lists_are_cut_and_counted() -> None:
    before = of(*(msgspec.structs.replace(samples.pair(0), index=k, baseline=f"s{k}") for k in range(30)))
    after = of(
        *(msgspec.structs.replace(samples.pair(0, total=1.0), index=k, baseline=f"s{k}") for k in range(30))
    )
    section, _ = comparison.sections(comparison.compare(before, after))
    assert section.title == "Worse: 30"
    assert len(section.rows) == comparison.SHOWN + 1
    assert section.rows[-1][0] == "and 20 more"


def test_a_changed_verdict_is_no_silence() -> None:
    before, after = samples.verification(), samples.verification(verdict=Verdict.INCONCLUSIVE, reason="thin")
    found = comparison.compare(before, after)
    assert not found.unchanged
    assert found.headline == "match before, inconclusive now: thin"


def test_a_criterion_is_put_beside_the_same_one_of_the_same_cell(matching: Verification) -> None:
    def judged(value: float, cell: str) -> Criterion:
        return Criterion(
            name="top-1 agreement", value=value, comparison=">=", limit=0.9, passed=value >= 0.9, cell=cell
        )

    before = msgspec.structs.replace(
        matching, criteria=(judged(1.0, "cpu/float32"), judged(0.5, "cpu/bfloat16"))
    )
    after = msgspec.structs.replace(matching, criteria=(judged(0.95, "cpu/bfloat16"),))
    assert comparison.compare(before, after).criteria == (
        ("top-1 agreement in cpu/bfloat16", "0.5, failed", "0.95, passed"),
    )
