"""A deployed form's stages are told on the terminal and on the page, and a culprit's stage with its cause."""

from __future__ import annotations

from reports import markdown, stages, terminal
from tests.samples import deployed, diverged


def test_every_stage_has_a_row_with_its_outcome() -> None:
    (section,) = stages.sections(deployed())
    assert [row[2:] for row in section.rows] == [
        ("basic", "the same bits", "", "8 for 8 sites"),
        ("extended", "within rounding (3.1e-07)", "", "more than 7 for 8 sites"),
        ("all", "differs (0.02)", "layer1.0.relu (Conv)", ""),
    ]


def test_two_modules_have_no_stages() -> None:
    assert stages.sections(diverged()) == []


def test_the_terminal_tells_the_stage_of_a_culprit_and_of_the_form() -> None:
    said = terminal.plain(deployed())
    assert "(translation, " in said
    assert stages.TITLE in said


def test_a_pull_requests_summary_has_the_stages() -> None:
    assert (
        "| candidate | an ONNX model | all | differs (0.02) | layer1.0.relu (Conv) |  |"
        in markdown.summary(deployed())
    )
