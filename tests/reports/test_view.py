from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import reports
from reports import sentences, view
from tests import samples
from tests.prepared import prepared, stage, step
from verifier.records import Level, Verdict

if TYPE_CHECKING:
    from verifier.records import Cause, OutputAgreement
    from verifier.storage.saving import Verification


def test_a_cell_counts_its_sites_by_status(diverged: Verification) -> None:
    assert view.page(diverged).cells[0].counts == "1 ok, 1 culprit, 6 carries"


def test_a_cell_counts_culprits_without_a_partner_as_the_matrix_does() -> None:
    page = view.page(samples.three_culprits())
    assert page.matrix is not None
    [(_, [square])] = page.matrix.rows
    assert square.figure == "3 culprits"
    [cell] = page.cells
    assert cell.counts == (
        "1 ok, 2 culprit, 1 amplifies, 2 carries, 1 unmatched; 3 culprits, 1 of them unmatched"
    )


def test_cells_form_a_matrix_by_dtype_and_device() -> None:
    matrix = view.page(samples.matrix()).matrix
    assert matrix is not None
    assert matrix.dtypes == ("float64", "bfloat16")
    assert [name for name, _ in matrix.rows] == ["cpu", "cpu, channels_last", "cuda, channels_last"]
    words = [
        [square.verdict.word if square.verdict else "" for square in squares] for _, squares in matrix.rows
    ]
    assert words == [["match", ""], ["", "diverged"], ["", "skipped"]]
    assert [squares[-1].figure for _, squares in matrix.rows] == ["", "1 culprit", "could not run"]


def words(verification: Verification) -> list[str]:
    return [cell.verdict.word for cell in view.page(verification).cells]


def test_a_cell_says_what_a_policy_accepts(diverged: Verification) -> None:
    assert words(diverged) == ["diverged", "diverged"]
    assert words(samples.accepted()) == ["accepted by policy", "accepted by policy"]
    assert view.page(samples.accepted()).culprits_title == "Beyond rounding, accepted by policy: one cause"


def test_a_cell_that_cannot_see_a_fault_that_another_saw_is_no_match(
    diverged: Verification, matching: Verification
) -> None:
    blind = msgspec.structs.replace(matching.cells[0], name="cuda/bfloat16/channels_last")
    exact, single = diverged.cells
    same = msgspec.structs.replace(matching.cells[0], name="cpu/float64", role="semantics")
    seen = msgspec.structs.replace(diverged, cells=(exact, single, blind))
    assert words(seen) == ["diverged", "diverged", "within bfloat16 rounding"]
    # A finer cell is no less of a match for what a coarser one has found.
    half = msgspec.structs.replace(single, name="cpu/bfloat16")
    right = msgspec.structs.replace(blind, name="cpu/float32")
    assert words(msgspec.structs.replace(diverged, cells=(same, right, half))) == [
        "match",
        "match",
        "diverged",
    ]
    assert words(matching) == ["match"]


def test_differences_that_are_written_alike_are_told_once() -> None:
    page = view.page(samples.one_cause())
    assert page.static == (
        (
            "hyperparameter",
            "layer0.0.bn, layer0.1.bn, layer0.2.bn, layer0.3.bn and 48 more",
            "eps is 0.001, the baseline's 1e-05",
        ),
    )


def test_differences_as_written_are_folded_where_they_are_the_causes_on_the_cards(
    diverged: Verification,
) -> None:
    assert not view.page(samples.one_cause()).static_open
    unexplained = samples.caused(samples.cause(confirmed=False))
    assert view.page(unexplained).static_open
    assert view.page(samples.verification(static=unexplained.static)).static_open


@pytest.mark.parametrize(
    ("causes", "said"),
    [
        ([samples.cause()], "First divergence and one cause"),
        ([samples.cause("a", "a"), samples.cause("b", "b")], "First divergence and 2 causes"),
        ([samples.cause("unexplained", "nobody knows", confirmed=False)], "First divergence and culprits"),
        ([samples.cause(), None], "First divergence and culprits"),
    ],
)
def test_the_title_of_the_cards_says_how_many_causes_there_are(causes: list[Cause | None], said: str) -> None:
    assert view.page(samples.caused(*causes, each=2)).culprits_title == said


def test_models_with_nothing_in_common_have_no_cards_and_no_list() -> None:
    page = view.page(samples.nothing_in_common())
    assert (page.culprits, page.unmatched, page.static, page.first_anchor) == ((), (), (), "")
    assert page.answer.startswith("the models have nothing in common")
    assert page.chart is None
    assert page.matrix is not None
    assert {square.figure for _, row in page.matrix.rows for square in row} == {"no site has a partner"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("match", "strict passed (exit code 0)"),
        ("accepted", "criteria passed (exit code 0)"),
        ("one cause", "strict not passed (exit code 1)"),
        ("inconclusive", "strict not decided (exit code 4)"),
    ],
)
def test_the_policy_and_what_it_decides_stand_at_the_top(name: str, said: str) -> None:
    page = view.page(samples.SAMPLES[name]())
    assert f"{page.policy} {page.gate}" == said


def test_the_first_divergence_has_mean_squared_error_and_correlation(diverged: Verification) -> None:
    assert view.page(diverged).first_figures == "MSE 2.5e-07, Pearson's r 0.99999975 (1 - r 2.5e-07)"


def test_stage_0_and_steps_are_parts_of_the_page_where_there_are_any(matching: Verification) -> None:
    assert view.page(matching).parts == ()
    stage_0, steps = view.page(samples.from_photographs()).parts
    lines, stages = stage_0.sections
    assert ("fix: use bilinear",) in lines.rows
    assert [(row[0], row[1], row[3]) for row in stages.rows if row[0] == "resize"] == [
        ("resize", "differs", "32 steps")
    ]
    assert [row[0] for row in steps.sections[0].rows] == [
        "1 of 2 blocks match",
        "diverged: layer1.0 (candidate: layer1.0), relative error 0.0002, allowed 1e-12",
        "0 of 1 stage match",
        "diverged: layer1 (candidate: layer1), relative error 0.0003, allowed 1e-12",
        "the network: diverged",
    ]


def test_stage_0_is_one_line_where_all_is_equal(matching: Verification) -> None:
    exact = prepared("exact", stage("decode", "exact", exact=2))
    page = view.page(msgspec.structs.replace(matching, preprocessing=exact))
    assert (page.parts, page.prepared) == ((), "all stages (decode) are equal bit for bit on 2 photographs")
    assert view.page(matching).prepared == view.page(samples.from_photographs()).prepared == ""


def test_all_blocks_that_diverge_are_on_the_page() -> None:
    many = msgspec.structs.replace(
        samples.verification(),
        steps=tuple(step(Level.BLOCK, f"layer{k}", Verdict.DIVERGED) for k in range(9)),
    )
    rows = view.page(many).parts[0].sections[0].rows
    assert sum("diverged: layer" in row[0] for row in rows) == 9


def test_without_cells_there_is_no_matrix(inconclusive: Verification) -> None:
    assert view.page(inconclusive).matrix is None


def test_the_noise_of_the_machine_is_told_by_cell() -> None:
    cell = view.page(samples.deep(12)).cells[0]
    assert cell.floor == "other threads 1e-07, other position in the batch 0"


def test_the_reason_is_not_said_twice(inconclusive: Verification, diverged: Verification) -> None:
    assert view.page(inconclusive).reason == ""
    assert view.page(diverged).reason == ""  # the culprits say it better


def test_a_reason_that_no_culprit_tells_is_told(matching: Verification) -> None:
    odd = msgspec.structs.replace(matching, reason="something else")
    assert view.page(odd).reason == "something else"


def test_the_first_divergence_leads_to_its_culprit(diverged: Verification) -> None:
    assert view.page(diverged).first_anchor == "culprit-1"
    elsewhere = msgspec.structs.replace(diverged, first_divergence=samples.pair(3, total=1.0))
    assert view.page(elsewhere).first_anchor == ""


def test_facts_without_a_value_are_left_out(matching: Verification) -> None:
    page = view.page(matching)
    facts = {facts.title: dict(facts.rows) for facts in (page.weights, *page.facts)}
    assert facts["Inputs"]["seed"] == "0"
    assert "files" not in facts["Inputs"]
    assert facts["Final output"]["same first choice"] == "87.5 %"
    assert facts["Weights"] == {"mode": "calibrated", "mapped tensors": "1"}


@pytest.mark.parametrize(
    ("dirty", "said"),
    [
        (True, "abc123, with changes that are not committed"),
        (False, "abc123, nothing changed since"),
        (None, "abc123"),
    ],
)
def test_the_callers_tree_is_named(matching: Verification, dirty: bool | None, said: str) -> None:
    environment = msgspec.structs.replace(matching.environment, commit="abc123", dirty=dirty)
    facts = view.page(msgspec.structs.replace(matching, environment=environment)).facts
    assert dict(next(each.rows for each in facts if each.title == "Environment"))["git commit"] == said


def test_weights_and_inputs_are_named_by_what_they_hold(matching: Verification) -> None:
    weights = msgspec.structs.replace(matching.weights, baseline_digest="aa", candidate_digest="bb")
    inputs = msgspec.structs.replace(matching.inputs, digest="cc")
    page = view.page(msgspec.structs.replace(matching, weights=weights, inputs=inputs))
    told = [value for facts in (page.weights, *page.facts) for name, value in facts.rows if "SHA-256" in name]
    assert told == ["aa", "bb", "cc"]


def test_facts_tell_the_output_to_the_last_figure(matching: Verification, scores: OutputAgreement) -> None:
    page = view.page(msgspec.structs.replace(matching, output=scores))
    assert page.impact == sentences.impact(scores)
    facts = {facts.title: dict(facts.rows) for facts in page.facts}
    assert facts["Final output"]["same five highest classes"] == "87.5 %"
    assert facts["Final output"]["KL divergence, nats, largest"] == "1.2e-09"
    assert facts["Final output"]["equal bit for bit"] == "no"


@pytest.mark.parametrize(
    "file", sorted(Path(str(reports.__file__)).parent.glob("*.py")), ids=lambda file: file.name
)
def test_reports_see_nothing_of_the_verifier_but_the_records(file: Path) -> None:
    imported = {
        node.module
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    foreign = {name for name in imported if name.split(".")[0] in ("verifier", "reference_models", "torch")}
    assert foreign <= {"verifier.records", "verifier.initialisation.records", "verifier.training.records"}
