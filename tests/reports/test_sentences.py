from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import sentences, wording
from reports.headline import headline
from tests import samples
from verifier.records import Coverage, Source, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.records import Comparison, OutputAgreement, PairResult
    from verifier.storage.saving import Verification


def test_a_match_tells_how_many_sites_agree_and_where_the_largest_error_is(matching: Verification) -> None:
    assert headline(matching) == "match: 8 of 8 sites agree; largest relative error 7e-08 at fc"


def test_an_exact_match_says_so(
    make_verification: Callable[..., Verification],
    make_pair: Callable[..., PairResult],
    matching: Verification,
) -> None:
    cell = msgspec.structs.replace(matching.cells[0], layers=tuple(make_pair(index) for index in range(8)))
    assert headline(make_verification(cells=(cell,))) == "match: 8 of 8 sites agree exactly"


def test_a_match_counts_the_sites_that_were_not_compared(
    make_verification: Callable[..., Verification],
) -> None:
    covered = Coverage(
        compared=8, baseline_sites=10, candidate_sites=8, baseline_share=0.8, candidate_share=1.0
    )
    assert "8 of 10 sites agree" in headline(make_verification(coverage=covered))


def test_a_match_by_the_criteria_alone_does_not_hide_what_the_sites_say(diverged: Verification) -> None:
    lenient = msgspec.structs.replace(
        diverged, verdict=Verdict.MATCH, reason="", first_divergence=None, culprits=()
    )
    assert (
        headline(lenient)
        == "match: accepted by policy strict, though only 1 of 8 sites agree: it is not the same function"
    )


def test_where_the_main_cell_agrees_the_one_that_does_not_is_named(
    diverged: Verification, matching: Verification
) -> None:
    numerics = matching.cells[-1]
    half = msgspec.structs.replace(diverged.cells[0], name="cpu/bfloat16", role="numerics")
    for exactly, closing in (
        (Verdict.MATCH, "the same function, less accurate"),
        (None, "not the same function"),
    ):
        semantics = msgspec.structs.replace(numerics, name="cpu/float64", role="semantics")
        cells = (*((semantics,) if exactly else ()), numerics, half)
        lenient = msgspec.structs.replace(matching, cells=cells)
        assert headline(lenient) == (
            "match: accepted by policy strict, though only 1 of 8 sites agree in cpu/bfloat16: "
            f"it is {closing}"
        )


def test_where_all_sites_agree_it_is_not_said_that_only_all_do(matching: Verification) -> None:
    parted = msgspec.structs.replace(matching.cells[-1], verdict=Verdict.DIVERGED)
    lenient = msgspec.structs.replace(matching, cells=(parted,))
    assert headline(lenient) == (
        "match: accepted by policy strict, though the models part while 8 of 8 sites agree: "
        "it is not the same function"
    )


def test_a_divergence_tells_where_how_much_what_is_allowed_and_who_is_to_blame(
    diverged: Verification,
) -> None:
    assert headline(diverged) == (
        "diverged: bn1 (candidate: stem.bn) is wrong: eps is 0.001 instead of 1e-05 (confirmed, batchnorm-eps); "
        "6 other sites only carry what came in"
    )


def test_a_divergence_without_culprits_says_that_none_is_to_blame_alone(diverged: Verification) -> None:
    said = headline(msgspec.structs.replace(diverged, culprits=()))
    assert said.endswith("; no site exceeds its budget alone")


def test_a_divergence_decided_by_something_else_says_that_first(diverged: Verification) -> None:
    said = headline(msgspec.structs.replace(diverged, reason="published criteria failed: output MSE"))
    assert said.startswith("diverged: published criteria failed: output MSE; bn1 ")


def test_a_divergence_without_a_first_site_gives_its_reason(
    make_verification: Callable[..., Verification],
) -> None:
    lost = make_verification(
        verdict=Verdict.DIVERGED, reason="the baseline returns 2 tensors, the candidate 1"
    )
    assert headline(lost) == "diverged: the baseline returns 2 tensors, the candidate 1"


def test_a_missing_site_is_told_in_the_judges_words(
    diverged: Verification, make_pair: Callable[..., PairResult]
) -> None:
    missing = make_pair(
        2, candidate=None, status=Status.UNMATCHED, reason="the candidate has no relu here", total=1.0
    )
    said = headline(
        msgspec.structs.replace(diverged, first_divergence=missing, culprits=(missing,), reason="relu")
    )
    assert "the models first part at relu (baseline only) (the candidate has no relu here); 1 culprit" in said


def test_an_inconclusive_verdict_gives_its_reason(inconclusive: Verification) -> None:
    assert headline(inconclusive).startswith("inconclusive: only 40% of the sites")


def test_a_culprit_is_told_with_place_difference_and_cause(diverged: Verification) -> None:
    culprit = diverged.culprits[0]
    measured = (
        "relative error 0.0005 on identical inputs, allowed 1e-12, rule semantics/float64, "
        "largest absolute difference 0.002 at (0, 17, 3, 5)"
    )
    assert sentences.blame(culprit) == (
        "bn1 (candidate: stem.bn), batch_norm: eps is 0.001 instead of 1e-05 (confirmed, batchnorm-eps); "
        f"{measured}; fix: set eps to 1e-05"
    )
    assert sentences.blame(msgspec.structs.replace(culprit, cause=None)) == (
        f"bn1 (candidate: stem.bn), batch_norm: {measured}; eps 0.001, baseline 1e-05"
    )


def test_a_divergence_without_a_known_cause_says_what_differs_there_and_how_far_it_is(
    diverged: Verification,
) -> None:
    bare = tuple(msgspec.structs.replace(each, cause=None) for each in diverged.culprits)
    assert headline(msgspec.structs.replace(diverged, culprits=bare)) == (
        "diverged: bn1 (candidate: stem.bn) is the first site beyond its budget: eps 0.001, baseline 1e-05 "
        "(relative error 0.0005, allowed 1e-12, rule semantics/float64); 1 culprit"
    )


def test_a_culprit_of_another_shape_is_told_by_its_shape(make_pair: Callable[..., PairResult]) -> None:
    other = make_pair(0, total=0.0, candidate_shape=(8, 64, 28, 28), status=Status.CULPRIT)
    other = msgspec.structs.replace(other, total=None)
    assert sentences.blame(other) == "conv1, conv2d: shape 8 x 64 x 28 x 28 instead of 8 x 64 x 56 x 56"


def test_values_that_are_not_finite_on_one_side_are_counted(
    make_pair: Callable[..., PairResult], make_comparison: Callable[..., Comparison]
) -> None:
    broken = make_pair(0)
    broken = msgspec.structs.replace(broken, total=make_comparison(math.nan, nonfinite_mismatched=12))
    assert "relative error nan, 12 values not finite in one model only" in sentences.divergence(broken)


def test_the_worst_sites_come_in_falling_order_with_not_a_number_first(
    make_pair: Callable[..., PairResult], make_comparison: Callable[..., Comparison]
) -> None:
    broken = msgspec.structs.replace(make_pair(3), total=make_comparison(math.nan))
    equal, unmeasured = make_pair(4), msgspec.structs.replace(make_pair(5), total=None)
    empty = msgspec.structs.replace(make_pair(6), total=make_comparison(math.nan, elements=0))
    pairs = [
        make_pair(0, total=1e-3),
        make_pair(1, total=1e-2),
        make_pair(2, total=1e-3),
        broken,
        equal,
        unmeasured,
        empty,
    ]
    assert [each.index for each in sentences.worst(pairs, 9)] == [3, 1, 0, 2]
    assert [each.index for each in sentences.worst(pairs, 2)] == [3, 1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.14159e-7, "3.14e-07"),
        (0.0, "0"),
        (123.456, "123"),
        (0.5, "0.5"),
        (1.0, "1"),
        (0.99890, "0.9989"),
        (0.9990, "0.999"),
        (0.99999918, "0.99999918"),
        (-0.9999, "-0.9999"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (None, "-"),
    ],
)
def test_figures_have_three_significant_digits_or_what_tells_them_from_one(
    value: float | None, text: str
) -> None:
    assert wording.figure(value) == text


@given(st.floats(-1, 1, exclude_min=True, exclude_max=True))
def test_a_figure_below_one_never_reads_as_one(value: float) -> None:
    assert abs(float(wording.figure(value))) < 1 or 1 - abs(value) < 1e-14


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "100 %"), (0.99999, "99.9 %"), (0.375, "37.5 %"), (0.0, "0 %"), (math.nan, "nan")],
)
def test_only_all_is_a_hundred_percent(value: float, text: str) -> None:
    assert wording.share(value) == text


def test_a_record_is_shown_with_every_text_in_it_visible_and_is_itself_where_all_are() -> None:
    hostile = wording.shown(samples.hostile())
    assert wording.shown(hostile) is hostile
    assert b"\\u001b" in msgspec.json.encode(samples.hostile())
    assert b"\\u001b" not in msgspec.json.encode(hostile)


@given(st.text())
def test_visible_text_has_no_control_characters(text: str) -> None:
    shown = wording.visible(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_the_impact_on_the_classes_is_told_in_one_sentence(scores: OutputAgreement) -> None:
    assert sentences.impact(scores) == (
        "top-1 agrees on 8 of 8 samples, top-5 on 7 of 8; KL at most 1.2e-09; "
        "smallest margin 0.31 against a largest logit error of 4.1e-06: no top-1 can flip"
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"top5_agreement": None, "samples": 1}, "top-1 agrees on 1 of 1 sample; KL at most 1.2e-09; "),
        ({"samples": 2000}, "top-1 agrees on 2,000 of 2,000 samples, top-5 on 1,750 of 2,000; "),
        ({"top1_safe": False}, "a largest logit error of 4.1e-06: a flip of top-1 is not ruled out"),
        ({"top1_safe": False, "top1_agreement": 0.5}, "a largest logit error of 4.1e-06"),
        ({"largest_logit_error": 0.0, "top1_safe": False}, "top-5 on 7 of 8; all logits are equal"),
        ({"largest_logit_error": 0.0, "bit_exact": True}, "; all logits are equal bit for bit"),
        ({"kl_max": math.inf}, "KL at most inf"),
        (
            {"kl_max": math.nan, "smallest_margin": math.nan, "top1_safe": False},
            "KL undefined; logits are NaN",
        ),
        ({"largest_logit_error": math.nan, "top1_safe": False, "top1_agreement": 0.5}, "; logits are NaN"),
        ({"kl_max": None, "smallest_margin": None}, "top-1 agrees on 8 of 8 samples, top-5 on 7 of 8"),
    ],
)
def test_the_impact_says_what_is_known(scores: OutputAgreement, fields: dict[str, Any], said: str) -> None:
    told = sentences.impact(msgspec.structs.replace(scores, **fields))
    assert said in told
    if fields.get("top1_agreement") == 0.5:
        assert told.endswith(said)  # what has flipped needs no warning


@pytest.mark.parametrize("fields", [{"samples": None}, {"samples": 0}, {"top1_agreement": None}])
def test_without_class_scores_there_is_no_impact(scores: OutputAgreement, fields: dict[str, Any]) -> None:
    assert sentences.impact(msgspec.structs.replace(scores, **fields)) == ""
    assert sentences.impact(None) == ""


def test_a_node_of_a_file_is_told_by_name_and_number() -> None:
    assert sentences.place(Source(file="net.onnx", line=12, function="node_Conv_4")) == (
        "net.onnx: node_Conv_4 (node 12)"
    )
    assert sentences.place(Source(file="nets.py", line=12, function="Net.forward")) == "nets.py:12"
