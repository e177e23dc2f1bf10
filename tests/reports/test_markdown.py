from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from markdown_it import MarkdownIt

from reports import markdown, sentences, wording
from tests import samples

if TYPE_CHECKING:
    from verifier.storage.saving import Verification


def rendered(verification: Verification) -> str:
    """The summary as GitHub's dialect of Markdown shows it, with HTML let through as there."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    page: str = parser.render(markdown.summary(verification, plot="p.png"))
    return page


def test_the_summary_begins_with_the_verdict(sample: Verification) -> None:
    first, *_ = markdown.summary(sample).splitlines()
    assert first.startswith("### ")
    assert f"{sample.verdict}:" in first


def test_the_summary_shows_plot_culprits_cells_and_criteria(diverged: Verification) -> None:
    page = rendered(diverged)
    assert '<img src="p.png" alt="Error over depth"' in page
    for told in (
        sentences.blame(diverged.culprits[0]),
        "<td>cpu/float64</td>",
        "<td>✗ diverged</td>",
        "<td>&lt; 1e-06</td>",
        "<td>✓ passed</td>",
        "8 pairs compared",
        "python -m verifier run --arch resnet50",
    ):
        assert told in page.replace("&quot;", '"')


def test_without_a_plot_none_is_named(diverged: Verification) -> None:
    assert "![" not in markdown.summary(diverged)


def test_many_causes_are_counted() -> None:
    many = samples.caused(*(samples.cause(f"code-{k}") for k in range(9)))
    assert "\nand 4 more\n" in markdown.summary(many)


def test_one_cause_is_one_line_with_its_first_lines_in_the_source() -> None:
    text = markdown.summary(samples.one_cause()).replace("\\", "")
    assert text.count("fix: set eps to 1e-05") == 1
    assert "1. all 52 batch_norm sites, first layer0.0.bn: eps is 0.001" in text
    assert (
        "; candidate nets/new.py:40 and 51 other lines; baseline nets/old.py:20 and 51 other lines\n" in text
    )


def test_the_first_divergence_has_mean_squared_error_and_correlation(diverged: Verification) -> None:
    assert "MSE 2.5e-07, Pearson's r 0.99999975 (1 - r 2.5e-07)" in markdown.summary(diverged)


def test_what_a_policy_accepts_is_called_so_in_every_cell() -> None:
    text = markdown.summary(samples.accepted())
    assert "**First difference:** bn1" in text
    assert "| cell | verdict | beyond rounding |" in text
    assert text.count("≈ accepted by policy") == 2
    assert not {word for word in ("✗", "fix:", "diverged", "divergence", "culprit") if word in text}


def test_models_with_nothing_in_common_have_no_list() -> None:
    text = markdown.summary(samples.nothing_in_common())
    assert text.startswith("### ✗ diverged: the models have nothing in common")
    assert "Culprits**" not in text


def test_hostile_text_is_shown_and_not_obeyed(hostile: Verification) -> None:
    page = rendered(hostile)
    assert "<script" not in page
    assert "&lt;/script&gt;" in page


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "**bold**",
        "[x](http://e)",
        "<b>",
        "`code`",
        "# title",
        "@somebody",
        "a_b_c",
        "#12",
        "$x$",
        "&amp;",
        "\\|",
    ],
)
def test_names_are_text_in_a_table(name: str) -> None:
    cell = msgspec.structs.replace(samples.verification().cells[0], name=name)
    page = rendered(msgspec.structs.replace(samples.verification(), cells=(cell,)))
    shown = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "@\u200b")
    assert f"<td>{shown}</td>" in page


def test_a_command_cannot_leave_its_block() -> None:
    lines = list(markdown.code(wording.visible("run ```\n# title")))
    assert lines == ["````console", "run ```\\n# title", "````"]
