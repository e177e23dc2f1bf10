from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import reports
from reports import sentences, view

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.result import Comparison, OutputAgreement, PairResult, Verification


def test_a_site_is_shown_with_both_errors_and_what_is_allowed(diverged: Verification) -> None:
    row = view.page(diverged).cells[0].sites[1]
    assert (row.baseline, row.candidate, row.op) == ("bn1", "stem.bn", "batch_norm")
    assert (row.total, row.allowed_total) == ("0.0005", "1e-12")
    assert (row.intrinsic, row.allowed_intrinsic) == ("0.0005", "1e-12")
    assert (row.max_abs, row.max_abs_at) == ("0.002", "(0, 17, 3, 5)")
    assert row.shape == "8 x 64 x 56 x 56"
    assert row.status == view.Mark("culprit", "✗", "culprit")


def test_what_was_not_measured_is_a_dash_and_not_a_number_is_told(
    matching: Verification, make_pair: Callable[..., PairResult], make_comparison: Callable[..., Comparison]
) -> None:
    pairs = (
        msgspec.structs.replace(make_pair(0), total=None, budget=None),
        msgspec.structs.replace(make_pair(1), total=make_comparison(math.nan, nonfinite_candidate=3)),
        msgspec.structs.replace(make_pair(2), candidate=None, candidate_shape=(1,)),
    )
    cell = msgspec.structs.replace(matching.cells[0], layers=pairs)
    first, second, third = view.page(msgspec.structs.replace(matching, cells=(cell,))).cells[0].sites
    assert {first.total, first.intrinsic, first.allowed_total, first.max_abs, first.nonfinite} == {"-"}
    assert (second.total, second.nonfinite) == ("nan", "0 / 3")
    assert third.candidate == "-"
    assert third.shape == "8 x 64 x 56 x 56, candidate 1"


def test_a_cell_counts_its_sites_by_status(diverged: Verification) -> None:
    assert view.page(diverged).cells[0].counts == "1 ok, 1 culprit, 6 carries"


def test_the_reason_is_not_said_twice(inconclusive: Verification, diverged: Verification) -> None:
    assert view.page(inconclusive).reason == ""
    assert view.page(diverged).reason == diverged.reason


def test_facts_without_a_value_are_left_out(matching: Verification) -> None:
    facts = {facts.title: dict(facts.rows) for facts in view.page(matching).facts}
    assert facts["Inputs"]["seed"] == "0"
    assert "files" not in facts["Inputs"]
    assert facts["Final output"]["same first choice"] == "87.5 %"
    assert facts["Weights"] == {"mode": "calibrated", "mapped tensors": "1"}


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
    assert foreign <= {"verifier.result", "verifier.training.records"}
