"""One sentence of two lines at most, whatever is told; what the numbers in it count adds up."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from reports import markdown, sentences, terminal, view
from reports.headline import headline
from tests import samples
from verifier.records import (
    HEADLINE,
    Cause,
    Coverage,
    Exercise,
    Status,
    Unexercised,
    UnmatchedSite,
    Verdict,
    brief,
    tail,
)

if TYPE_CHECKING:
    from verifier.records import PairResult
    from verifier.storage.saving import Verification

LONG = "features." * 40


def blaming(culprit: PairResult, **fields: Any) -> Verification:
    bad = samples.diverged()
    cell = msgspec.structs.replace(bad.cells[0], first_divergence=culprit, culprits=(culprit,))
    return msgspec.structs.replace(
        bad, cells=(cell,), first_divergence=culprit, culprits=(culprit,), **fields
    )


def silent(count: int) -> Exercise:
    """Tables that differ in rows that no token reached, and a setting that showed in no number."""
    tensors = [
        Unexercised(
            kind="tensor",
            baseline=f"t{k}",
            candidate=f"t{k}",
            summary="it differs",
            why="no input reached it",
        )
        for k in range(count)
    ]
    setting = Unexercised(
        kind="hyperparameter", baseline="bn1", candidate="bn1", summary="eps is 1", why="no inputs show it"
    )
    return Exercise(mode="evaluation", samples=(2,), inputs=(), unexercised=(*tensors, setting))


@pytest.mark.parametrize(
    ("text", "most", "said"),
    [
        ("short", 8, "short"),
        ("first clause; second clause", 20, "first clause..."),
        ("words and words and words", 16, "words and..."),
        ("x" * 30, 16, "xxxxxxxxxxxxx..."),
        ("a (long bracket that does not end", 9, "a (lo...)"),
        ("off by 1.2 (95 %: 1.1 to 1.3), allowed", 24, "off by 1.2..."),
        ("first (the site; off by 1.2 (95 %: 1.1 to 1.3))", 40, "first (the site; off by 1.2...)"),
    ],
)
def test_a_text_is_cut_where_a_clause_or_a_word_ends(text: str, most: int, said: str) -> None:
    assert brief(text, most) == said
    assert len(brief(text, most)) <= most


def test_of_a_long_name_the_end_is_kept() -> None:
    assert tail("layers.0.layers.1.weight", 12) == "....1.weight"
    assert tail("weight", 12) == "weight"


def test_a_long_cause_keeps_its_certainty_and_its_code() -> None:
    cause = Cause(
        code="region-different",
        summary="it stands where " + "mul, add, " * 90,
        confirmed=False,
        also=("eps",) * 50,
    )
    culprit = msgspec.structs.replace(samples.diverged().culprits[0], cause=cause, baseline=LONG + "a")
    said = headline(blaming(culprit))
    assert len(said) <= HEADLINE
    assert said.endswith("... (not confirmed, region-different)")
    assert "features.a is wrong: it stands where mul" in said
    told = sentences.blame(culprit)
    for told in (terminal.plain(blaming(culprit)), markdown.summary(blaming(culprit))):
        assert "mul, add, " * 90 in told.replace("\\", "")


def test_clauses_that_do_not_fit_are_left_out_from_the_end() -> None:
    cause = Cause(code="batchnorm-eps", summary="eps is 0.001 " + "and " * 25 + "so on", confirmed=True)
    culprit = msgspec.structs.replace(samples.diverged().culprits[0], cause=cause)
    said = headline(blaming(culprit))
    assert len(said) <= HEADLINE
    assert said.endswith("(confirmed, batchnorm-eps)")
    assert "only carry" not in said


def test_every_view_has_the_same_headline() -> None:
    wordy = msgspec.structs.replace(samples.inconclusive(), reason=f"{LONG}; too little was compared")
    said = headline(wordy)
    assert len(said) == HEADLINE
    assert terminal.plain(wordy).splitlines()[0] == said
    assert view.page(wordy).answer == said.removeprefix("inconclusive: ")
    assert markdown.summary(wordy).splitlines()[0].replace("\\", "") == f"### ? {said}"


def test_a_match_tells_of_tensors_that_no_input_reached() -> None:
    exact = msgspec.structs.replace(samples.verification(), exercise=silent(7))
    assert headline(exact) == (
        "match: 8 of 8 sites agree; 7 tensors differ, which no input reached; largest relative error 7e-08 at fc"
    )
    plain, summary = terminal.plain(exact), markdown.summary(exact)
    assert "\nDiffers, and no input reached it\n  t0: it differs (no input reached it)\n" in plain
    assert "and 2 more" in plain
    assert "- t4: it differs" in summary
    assert "not exercised: bn1: eps is 1" in plain
    assert sum("t6: it differs" in line for line in view.page(exact).exercised) == 1
    one = msgspec.structs.replace(samples.verification(), exercise=silent(1))
    assert "; 1 tensor differs, which no input reached;" in headline(one)


def test_exact_is_said_only_where_every_cell_is() -> None:
    exact = samples.verification().cells[0]
    exact = msgspec.structs.replace(exact, layers=tuple(samples.pair(k) for k in range(8)))
    wide = msgspec.structs.replace(samples.verification().cells[0], name="cpu/float64", role="semantics")
    whole = samples.verification(cells=(wide, exact))
    assert headline(whole) == ("match: 8 of 8 sites agree; largest relative error 7e-08 at fc in cpu/float64")
    assert headline(samples.verification(cells=(exact,))) == "match: 8 of 8 sites agree exactly"


def test_nothing_agrees_to_infinity() -> None:
    mask = samples.pair(2, total=float("inf"), status=Status.OK)
    cell = samples.verification().cells[0]
    layers = (*(samples.pair(k) for k in range(2)), mask, *(samples.pair(k) for k in range(3, 8)))
    alone = samples.verification(cells=(msgspec.structs.replace(cell, layers=layers),))
    assert headline(alone) == "match: 8 of 8 sites agree; 1 site of numbers too large for a figure"


def test_tensors_of_no_elements_are_not_called_large() -> None:
    """A detector that finds nothing hands on empty tensors, of which no error can be told."""
    found = samples.pair(2, total=float("nan"), status=Status.OK)
    assert found.total is not None
    empty = msgspec.structs.replace(found, total=msgspec.structs.replace(found.total, elements=0))
    cell = samples.verification().cells[0]
    layers = (*(samples.pair(k) for k in range(2)), empty, *(samples.pair(k) for k in range(3, 8)))
    alone = samples.verification(cells=(msgspec.structs.replace(cell, layers=layers),))
    assert headline(alone) == "match: 8 of 8 sites agree; 1 site of no elements"


def test_what_is_no_pair_of_sites_is_counted_as_none() -> None:
    ends = [
        msgspec.structs.replace(samples.pair(k), index=8 + k, op="output", status=Status.CARRIES)
        for k in range(3)
    ]
    cell = samples.verification().cells[0]
    more = msgspec.structs.replace(cell, layers=(*cell.layers, *ends))
    assert headline(samples.verification(cells=(more,))).startswith("match: 8 of 8 sites agree;")
    bad = samples.diverged()
    more = msgspec.structs.replace(bad.cells[0], layers=(*bad.cells[0].layers, *ends))
    assert "6 other sites only carry" in headline(msgspec.structs.replace(bad, cells=(more,)))


def behind(extra: str | None, status: Status) -> Verification:
    """Row 2 shows what is wrong in front of it: an extra site, told there, or a missing one, told at row 1."""
    bad = samples.diverged()
    first, culprit, reader, *others = bad.cells[0].layers
    between = {"between_candidate": (extra,)} if extra else {"between_baseline": (culprit.baseline,)}
    far = samples.comparison(0.5)
    reader = msgspec.structs.replace(reader, status=status, intrinsic=far, **between)
    lonely = msgspec.structs.replace(
        culprit,
        candidate=None,
        status=Status.UNMATCHED,
        total=None,
        intrinsic=None,
        differences=(),
        cause=None,
    )
    place = reader if extra else lonely
    blamed = msgspec.structs.replace(
        place,
        candidate=extra,
        status=Status.UNMATCHED,
        intrinsic=far,
        cause=culprit.cause,
        **dict.fromkeys(between, ()),
    )
    layers = (first, samples.pair(1) if extra else lonely, reader, *others)
    cell = msgspec.structs.replace(bad.cells[0], layers=layers, culprits=(blamed,), first_divergence=blamed)
    return msgspec.structs.replace(bad, cells=(cell,), culprits=(blamed,), first_divergence=blamed)


@pytest.mark.parametrize("extra", ["mul", None])
def test_the_site_behind_a_culprit_without_a_partner_is_not_counted_again(extra: str | None) -> None:
    found = behind(extra, Status.AMPLIFIES)
    assert headline(found).endswith("; 5 other sites only carry what came in")
    # What does nothing wrong with identical inputs does carry what came in.
    cell = found.cells[0]
    right = msgspec.structs.replace(cell.layers[2], status=Status.CARRIES, intrinsic=samples.comparison(0.0))
    right = msgspec.structs.replace(right, index=3, baseline="layer1.0.conv1")
    rows = (*cell.layers[:3], right, *cell.layers[4:])
    again = msgspec.structs.replace(found, cells=(msgspec.structs.replace(cell, layers=rows),))
    assert headline(again).endswith("; 5 other sites only carry what came in")


def test_sites_that_amplify_are_not_said_to_carry_alone() -> None:
    bad = samples.diverged()
    cell = bad.cells[0]

    def told(*statuses: Status) -> str:
        rows = (
            msgspec.structs.replace(row, status=status)
            for row, status in zip(cell.layers[2:], statuses, strict=False)
        )
        layers = (*cell.layers[:2], *rows)
        return headline(msgspec.structs.replace(bad, cells=(msgspec.structs.replace(cell, layers=layers),)))

    carries, amplifies = Status.CARRIES, Status.AMPLIFIES
    assert told(carries, amplifies, carries).endswith("; 3 other sites only carry or amplify what came in")
    assert told(amplifies, amplifies).endswith("; 2 other sites only amplify what came in")
    assert told(carries).endswith("; 1 other site only carries what came in")
    assert told(amplifies).endswith("; 1 other site only amplifies what came in")


def test_counts_of_coverage_add_up() -> None:
    lost = [UnmatchedSite(side="baseline", name=f"s{k}", op="add", compared_at="fc") for k in range(4)]
    covered = Coverage(
        compared=8,
        baseline_sites=12,
        candidate_sites=8,
        baseline_share=1.0,
        candidate_share=1.0,
        unmatched=tuple(lost),
    )
    assert sentences.coverage(covered) == (
        "8 pairs compared, 4 further baseline sites without a partner; with what is compared as a whole "
        "that is 100 % of what the baseline computes and 100 % of what the candidate does"
    )
    assert headline(samples.verification(coverage=covered)).startswith("match: all 8 pairs agree;")


def test_what_both_return_otherwise_is_told_below_the_headline() -> None:
    returned = tuple(f"the baseline returns {k} and the candidate nothing at {LONG}" for k in range(3))
    bad = samples.verification(
        verdict=Verdict.DIVERGED,
        reason=brief("; ".join(returned)),
        coverage=msgspec.structs.replace(samples.verification().coverage, returned=returned),
    )
    assert len(headline(bad)) <= HEADLINE
    for told in (terminal.plain(bad), markdown.summary(bad).replace("\\", "")):
        assert all(each in told for each in returned)
    assert all(f"returned otherwise: {each}" in view.page(bad).exercised for each in returned)


def test_the_largest_numbers_of_all_are_shown() -> None:
    largest = sys.float_info.max
    huge = samples.comparison(float("inf"), max_abs=largest)
    bad = samples.pair(1, status=Status.CULPRIT, intrinsic=huge)
    bad = msgspec.structs.replace(bad, total=huge)
    said = terminal.plain(blaming(bad))
    assert "1.8e+308" in said


def test_of_a_quantised_candidate_layers_are_counted_as_pairs_of_those_that_ran() -> None:
    sample = samples.quantised()
    cell = next(each for each in sample.cells if each.role == "numerics")
    covered = msgspec.structs.replace(sample.coverage, unmatched=(), baseline_sites=len(cell.layers) + 4)
    told = headline(
        msgspec.structs.replace(sample, verdict=Verdict.MATCH, reason="", policy="int8", coverage=covered)
    )
    pairs = sum(row.kind == "site" for row in cell.layers)
    assert f"of {pairs} pair" in told
    assert "sites agree" not in told
