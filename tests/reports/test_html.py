from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import msgspec
import pytest

from reports import html, sentences

if TYPE_CHECKING:
    from verifier.result import OutputAgreement, Verification

VOID = {"meta", "br"}


class Outline(HTMLParser):
    """Tags as a browser would meet them, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def words(self) -> str:
        return " ".join(self.text.split())


def test_the_page_is_well_formed_and_says_the_verdict(sample: Verification) -> None:
    outline = Outline(html.render(sample))
    assert " ".join(sentences.headline(sample).split()) in outline.words()


def test_the_page_tells_the_impact_on_the_classes_where_it_is_known(
    matching: Verification, scores: OutputAgreement
) -> None:
    page = html.render(msgspec.structs.replace(matching, output=scores))
    assert sentences.impact(scores) in Outline(page).words()
    assert 'id="output"' not in html.render(matching)


def test_the_page_holds_everything_there_is_to_review(diverged: Verification) -> None:
    words = Outline(html.render(diverged)).words()
    for told in (
        "First divergence",
        "eps is 0.001 instead of 1e-05 (confirmed, batchnorm-eps)",
        "error falls to 0",
        "output MSE",
        "0.99849",
        "8 pairs compared: 100 % of the baseline's 8 sites",
        "torchvision:resnet50 (ResNet, 25,557,032 parameters, 8 sites)",
        "standard normal numbers",
        "calibrated",
        "Imaginary CPU",
        "cudnn tf32",
        "python -m verifier run --arch resnet50",
        "2026-01-01T00:00:00+00:00, 12.5 s, policy strict",
        "layer1.0.relu",
    ):
        assert told in words


def test_every_pair_of_every_cell_has_a_row(diverged: Verification) -> None:
    outline = Outline(html.render(diverged))
    rows = [attrs["class"] for tag, attrs in outline.tags if tag == "tr" and "class" in attrs]
    assert rows.count("carries") == 12
    assert rows.count("ok") == 2
    assert outline.words().count("→ carries") == 12


def test_the_deciding_cell_is_open_and_the_others_are_folded(diverged: Verification) -> None:
    outline = Outline(html.render(diverged))
    assert [("open" in attrs) for tag, attrs in outline.tags if tag == "details"] == [True, False]


def test_a_status_has_a_word_and_a_sign_beside_its_colour(diverged: Verification) -> None:
    page = html.render(diverged)
    for shown in re.findall(r'<span class="mark \w+">(.*?)</span>', page):
        assert re.fullmatch(r"[✓✗▲→?] \w+", shown)


def test_the_page_asks_for_nothing_from_elsewhere(sample: Verification) -> None:
    page = html.render(sample)
    outline = Outline(page)
    assert not {"script", "link", "img", "iframe", "object", "a", "base"} & {tag for tag, _ in outline.tags}
    assert not any(name in attrs for _, attrs in outline.tags for name in ("src", "href", "style", "onclick"))
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_hostile_text_is_shown_and_not_obeyed(hostile: Verification) -> None:
    page = html.render(hostile)
    assert "<script" not in page
    assert "&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "49[red]" not in page


def test_the_same_verification_gives_the_same_bytes(sample: Verification) -> None:
    assert html.render(sample) == html.render(msgspec.convert(msgspec.to_builtins(sample), type(sample)))


def test_the_page_suits_phones_and_both_colour_schemes(matching: Verification) -> None:
    page = html.render(matching)
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<table") == page.count('class="scroll"><table')


def test_empty_sections_are_left_out(inconclusive: Verification) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", html.render(inconclusive))
    assert headings == [
        "Coverage",
        "Notes",
        "Weights",
        "Inputs",
        "Environment",
        "Numeric settings",
        "Command",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tone", ["ink", "faint", "match", "diverged", "inconclusive", "follows"])
def test_text_stands_out_from_its_ground(matching: Verification, scheme: str, tone: str) -> None:
    """At least 4.5 to 1, as the Web Content Accessibility Guidelines 2.1 (success criterion 1.4.3) ask."""
    light, dark = re.findall(r":root \{(.*?)\}", html.render(matching), re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", light if scheme == "light" else dark))
    for ground in ("ground", "raised"):
        lighter, darker = sorted((luminance(colours[tone]), luminance(colours[ground])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
