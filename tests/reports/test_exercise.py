"""What was exercised, what was not and what probes showed, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from reports import exercise, html, markdown, sentences, terminal
from tests import samples
from verifier.records import Excited, Exercise, InputRange, Probe, Unexercised, Verdict

if TYPE_CHECKING:
    from verifier.storage.saving import Verification

CEIL = Unexercised(
    kind="hyperparameter",
    baseline="pool",
    candidate="stem.pool",
    summary="ceil_mode True, baseline False",
    why="other sizes show it",
)
SHOWN = Probe(name="zeros", verdict=Verdict.DIVERGED, site="bn1", error=0.25, allowed=1e-12)


def ran(verification: Verification, *left: Unexercised, **fields: object) -> Verification:
    found = Exercise(
        mode="evaluation",
        samples=(2, 8),
        inputs=(InputRange(name="[0]", dtype="float32", low=-4.5, high=4.25),),
        unexercised=left,
    )
    return msgspec.structs.replace(verification, exercise=msgspec.structs.replace(found, **fields), probes=())


def test_one_line_says_what_was_exercised(matching: Verification) -> None:
    cells = ", ".join(cell.name for cell in matching.cells)
    assert exercise.done(ran(matching)) == (
        f"exercised: evaluation mode, 2 and 8 samples a call, input [0] from -4.5 to 4.25 (float32), {cells}"
    )


def test_one_line_says_what_was_not_differences_first(matching: Verification) -> None:
    assert exercise.left(ran(matching, CEIL)) == (
        "not exercised: stem.pool: ceil_mode True, baseline False (other sizes show it); training mode, "
        "gradients, calls after the third, other numbers of samples, other values (--probe draws some)"
    )


def test_of_many_differences_three_are_told_and_the_others_counted(matching: Verification) -> None:
    five = [msgspec.structs.replace(CEIL, summary=f"ceil_mode {k}, baseline False") for k in range(5)]
    said = exercise.left(ran(matching, *five))
    assert said.count("ceil_mode") == 3
    assert "2 more that differ as written, in result.json" in said


def test_what_was_probed_is_not_told_as_left_open(matching: Verification) -> None:
    probed = msgspec.structs.replace(ran(matching), probes=(SHOWN,))
    assert exercise.left(probed) == ""
    assert exercise.done(probed).endswith(", 1 probe, told below")


def test_an_input_without_numbers_is_told(matching: Verification) -> None:
    empty = InputRange(name="mask", dtype="float32", low=None, high=None)
    assert "input mask without a finite number" in exercise.done(ran(matching, inputs=(empty,)))


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (SHOWN, "diverged: zeros: first at bn1, relative error 0.25, allowed 1e-12"),
        (Probe(name="zeros", verdict=Verdict.MATCH), "match: zeros"),
        (
            Probe(name="1 sample a call", verdict=Verdict.SKIPPED, reason="too few"),
            "skipped: 1 sample a call: too few",
        ),
        (
            Probe(name="zeros", verdict=Verdict.DIVERGED, site="fc", reason="shape (1,) instead of (2,)"),
            "diverged: zeros: first at fc, shape (1,) instead of (2,)",
        ),
        (Probe(name="zeros", verdict=Verdict.DIVERGED, reason="it raises"), "diverged: zeros: it raises"),
    ],
)
def test_a_probe_is_one_line(probe: Probe, expected: str) -> None:
    assert exercise.probe(probe) == expected


def test_a_result_of_before_says_nothing_of_it(matching: Verification) -> None:
    old = msgspec.structs.replace(matching, exercise=None)
    assert exercise.lines(old) == ()
    assert "xercised" not in terminal.plain(old) + markdown.summary(old)


def test_all_three_reports_have_both_lines_and_the_probes(matching: Verification) -> None:
    found = msgspec.structs.replace(ran(matching, CEIL), probes=(SHOWN,))
    for report in (terminal.plain(found), markdown.summary(found), html.render(found)):
        plain = report.replace("\\", "")
        assert "xercised: evaluation mode" in plain
        assert "ot exercised: stem.pool" in plain
        assert "first at bn1, relative error 0.25" in plain


def test_a_name_cannot_drive_a_terminal(matching: Verification) -> None:
    rogue = msgspec.structs.replace(CEIL, candidate="\x1b[31m")
    found = msgspec.structs.replace(
        ran(matching, rogue), probes=(msgspec.structs.replace(SHOWN, site="\x1b[31m"),)
    )
    assert "\x1b" not in terminal.plain(found)


def test_a_site_that_parts_on_other_inputs_says_so_and_gives_no_error_of_0() -> None:
    found = samples.diverged()
    assert found.first_divergence is not None
    row = msgspec.structs.replace(
        found.first_divergence,
        excited=Excited(inputs="scaled by 10", error=samples.comparison(1.5), allowed=1e-12),
    )
    said = sentences.blame(row)
    assert "alone, on the baseline's tensors scaled by 10, relative error 1.5" in said
    assert "on identical inputs" not in said
    assert "not on the given inputs" in sentences.divergence(row)


def test_what_differs_alike_at_many_sites_is_told_once(matching: Verification) -> None:
    alike = tuple(msgspec.structs.replace(CEIL, candidate=f"pool{k}") for k in range(53))
    other = msgspec.structs.replace(CEIL, summary="dilation 2, baseline 1")
    said = exercise.left(ran(matching, *alike, other))
    assert said.startswith(
        "not exercised: pool0, pool1, pool2 and 50 more: ceil_mode True, baseline False (other sizes show it); "
        "stem.pool: dilation 2, baseline 1 (other sizes show it); training mode"
    )
