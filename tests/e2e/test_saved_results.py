"""`report` and `judge`: what can be said again without running anything."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests import pages
from verifier.training.saving import save_experiment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended


@pytest.fixture
def saved(eps_fault: Ended, place: Path) -> Path:
    """The saved result of the candidate with one epsilon of 1e-4, in the test's own directory."""
    shutil.copytree(eps_fault.directory / "DIR", place / "DIR")
    return place / "DIR"


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_a_report_is_rendered_again_to_the_same_bytes(saved: Path, call: Callable[..., Ended]) -> None:
    before = contents(saved)
    (saved / "report.html").unlink()

    ended = call("report", "DIR")

    assert (ended.code, ended.err) == (0, "")
    assert contents(saved) == before


def test_a_report_prints_the_summary_of_the_run(
    saved: Path, call: Callable[..., Ended], eps_fault: Ended
) -> None:
    assert call("report", "DIR").out == eps_fault.out


def test_two_results_are_put_side_by_side(saved: Path, call: Callable[..., Ended]) -> None:
    call("judge", "DIR", "--policy", "criteria", "--out", "LATER")

    ended = call("report", "DIR", "LATER", "--out", "SIDE")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("diverged before, match now: ")
    assert "policy strict, now criteria" in ended.out
    assert ended.new == {"SIDE/comparison.html"}


def test_a_result_beside_itself_is_told_with_what_is_the_same(
    saved: Path, call: Callable[..., Ended]
) -> None:
    ended = call("report", "DIR", "DIR/result.json")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("still diverged: ")
    _, same = ended.out.split("\n", 1)
    assert same == "\nThe same in both\n  baseline, inputs, weights, policy, processor, versions\n"


def test_out_without_a_second_result_is_refused(saved: Path, call: Callable[..., Ended]) -> None:
    assert "--out is for two results" in call("report", "DIR", "--out", "SIDE").refusal(2)


def test_a_second_result_that_is_missing_is_told(saved: Path, call: Callable[..., Ended]) -> None:
    assert "there is no saved result at NOWHERE" in call("report", "DIR", "NOWHERE").refusal(2)


def test_what_is_no_result_is_neither_compared_nor_judged(
    saved: Path, call: Callable[..., Ended], place: Path
) -> None:
    save_experiment(pages.experiment(), place / "LEARNT")

    said = "LEARNT holds a training; two results of `run` are compared."
    assert call("report", "DIR", "LEARNT").refusal(2) == said
    assert call("report", "LEARNT", "DIR").refusal(2) == said
    assert "LEARNT holds a training" in call("judge", "LEARNT", "--policy", "strict").refusal(2)


@pytest.mark.parametrize(
    ("policy", "code"),
    [("strict", 1), ("criteria", 0), ("tolerant.toml", 0), ("demanding.toml", 1)],
)
def test_the_policy_decides_the_exit_code_and_nothing_is_written(
    saved: Path, call: Callable[..., Ended], place: Path, policy: str, code: int
) -> None:
    tolerant = "semantics = 0.1\nfactor = 1e6\nfloor = 1e6\naccuracy_total = 1e6\naccuracy_floor = 1e6\n"
    (place / "tolerant.toml").write_text(tolerant, encoding="utf-8")
    (place / "demanding.toml").write_text("criteria_decide = true\nlayer_mse = 1e-12\n", encoding="utf-8")
    before = contents(saved)

    ended = call("judge", "DIR", "--policy", policy)

    assert (ended.code, ended.err) == (code, "")
    assert ended.out.startswith("diverged" if code else "match")
    assert contents(saved) == before
    assert ended.new == frozenset()


def test_a_result_judged_anew_is_written_where_out_says(
    saved: Path, call: Callable[..., Ended], eps_fault: Ended, written: Callable[[str], set[str]]
) -> None:
    before = contents(saved)

    ended = call("judge", "DIR", "--policy", "criteria", "--out", "AGAIN")

    assert ended.new == written("AGAIN")
    assert contents(saved) == before
    result = ended.result("AGAIN")
    assert (result["verdict"], result["policy"]) == ("match", "criteria")
    # The judgement is new, the measurements are not.
    then, now = (
        [layer["total"] for cell in each["cells"] for layer in cell["layers"]]
        for each in (eps_fault.result("DIR"), result)
    )
    assert then == now


def test_judging_by_the_policy_of_the_run_reproduces_it(saved: Path, call: Callable[..., Ended]) -> None:
    before = contents(saved)

    call("judge", "DIR", "--policy", "strict", "--out", "DIR")

    assert contents(saved) == before


def test_a_run_by_the_published_criteria_alone_passes_what_they_cannot_see(
    compare: Callable[..., Ended],
) -> None:
    ended = compare("--baseline", "nets.py:net", "--candidate", "nets.py:other_eps", "--policy", "criteria")

    assert ended.code == 0
    assert ended.result()["policy"] == "criteria"


def test_a_report_is_rendered_without_torch(
    saved: Path, call: Callable[..., Ended], no_torch: dict[str, str]
) -> None:
    ended = call("report", "DIR", env=no_torch)

    assert (ended.code, ended.err) == (0, "")
