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


def test_many_culprits_are_counted(diverged: Verification) -> None:
    many = msgspec.structs.replace(diverged, culprits=diverged.culprits * 9)
    assert "\nand 4 more\n" in markdown.summary(many)


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
