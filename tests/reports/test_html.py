from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import msgspec
import pytest
from jinja2 import UndefinedError, nodes

from reports import html, sentences, templating, wording
from reports.headline import headline
from tests import samples

if TYPE_CHECKING:
    from verifier.records import OutputAgreement
    from verifier.storage.saving import Verification

SLACK = 3  # times as long as on a machine that does nothing else
VOID = {"meta", "br", "img", "input"}


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
        if not {"style", "script"} & set(self.open):
            self.text += data

    def words(self) -> str:
        return " ".join(self.text.split())


def test_the_page_is_well_formed_and_says_the_verdict(sample: Verification) -> None:
    outline = Outline(html.render(sample))
    assert " ".join(headline(wording.shown(sample)).split()) in outline.words()


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
        "torchvision:resnet50 ResNet, 25,557,032 parameters, 8 sites",
        "set eps to 1e-05",
        "every element differs",
        "Total error",
        "standard normal numbers",
        "calibrated",
        "Imaginary CPU",
        "cudnn tf32",
        "python -m verifier run --arch resnet50",
        "2026-01-01T00:00:00+00:00, 12.5 s",
        "strict: not passed (exit code 1)",
    ):
        assert told in words


def test_every_status_and_verdict_has_a_word_and_a_sign_beside_its_colour(sample: Verification) -> None:
    page = html.render(sample)
    shown = re.findall(r'<span class="mark \w+">(.*?)</span> ([\w ]+)</span>', page)
    assert len(shown) == page.count('class="mark ')
    for sign, word in shown:
        assert re.fullmatch(r'<span aria-hidden="true">[✓✗▲→≈?–]', sign)  # noqa: RUF001 - a dash, as for nothing
        assert word.replace(" ", "").isalnum()


def test_pictures_say_what_they_show_to_those_who_do_not_see_them(diverged: Verification) -> None:
    outline = Outline(html.render(diverged))
    pictures = [attrs for tag, attrs in outline.tags if tag == "img"]
    assert [attrs["alt"] for attrs in pictures] == [
        "baseline, 4 by 4, from -1 to 1",
        "candidate, 4 by 4, from -1 to 1",
        "candidate minus baseline, 4 by 4, from -0.5 to 0.5",
    ]
    assert all(str(attrs["src"]).startswith("data:image/png;base64,") for attrs in pictures)
    named = [
        attrs.get("aria-label") for tag, attrs in outline.tags if tag == "svg" and attrs.get("role") == "img"
    ]
    assert len(named) == 2
    assert all(named)


def test_the_page_asks_for_nothing_from_elsewhere(sample: Verification) -> None:
    page = html.render(sample)
    outline = Outline(page)
    assert not {"link", "iframe", "object", "base", "form action"} & {tag for tag, _ in outline.tags}
    for _, attrs in outline.tags:
        assert not any(name == "style" or name.startswith("on") for name in attrs)
        assert str(attrs.get("href", "#")).startswith("#")
        assert str(attrs.get("src", "data:")).startswith("data:")
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_allows_itself_its_own_script_and_style_and_nothing_else(sample: Verification) -> None:
    page = html.render(sample)
    [policy] = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    rules = dict(rule.split(" ", 1) for rule in unescape(policy).split("; "))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        [source] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = hashlib.sha256(source.encode()).digest()
        assert rules[rule] == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_hostile_text_is_shown_and_not_obeyed(hostile: Verification) -> None:
    page = html.render(hostile)
    assert page.count("<script") == 2
    assert page.count("</script") == 2
    assert "alert(1)" in page
    assert "&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert all(char.isprintable() or char == "\n" for char in page)
    assert "49[red]" not in page


def test_hostile_text_stays_inside_the_data(hostile: Verification) -> None:
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html.render(hostile))
    assert wording.visible(samples.HOSTILE) in json.loads(data)["lists"][0]["baseline"]
    assert not set("<>&") & set(data)


def test_the_same_verification_gives_the_same_bytes(sample: Verification) -> None:
    assert html.render(sample) == html.render(msgspec.convert(msgspec.to_builtins(sample), type(sample)))


def test_the_page_suits_phones_and_both_colour_schemes(matching: Verification) -> None:
    page = html.render(matching)
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in page
    assert "prefers-color-scheme: dark" in page
    assert len(re.findall(r'<div class="scroll[ a-z]*" [^>]*>\s*<table', page)) == page.count("<table")


def test_empty_sections_are_left_out(inconclusive: Verification) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", html.render(inconclusive))
    assert headings == [
        "Coverage",
        "Run it again",
        "Notes",
        "Not compared",
        "Cells in full",
        "Weights",
        "What it ran on",
        "Method",
    ]


def test_links_lead_somewhere(sample: Verification) -> None:
    outline = Outline(html.render(sample))
    places = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(places) == len(set(places))
    links = {str(attrs["href"])[1:] for tag, attrs in outline.tags if tag == "a"}
    assert links <= set(places)


def test_templates_hold_no_arithmetic() -> None:
    environment = templating.environment()
    arithmetic = (
        nodes.Add,
        nodes.Sub,
        nodes.Mul,
        nodes.Div,
        nodes.FloorDiv,
        nodes.Mod,
        nodes.Pow,
        nodes.Compare,
    )
    templates = [name for name in environment.list_templates() if name.endswith(".html")]
    assert len(templates) >= 4
    for name in templates:
        source, *_ = environment.loader.get_source(environment, name)  # type: ignore[union-attr]
        tree = environment.parse(source)
        assert not list(tree.find_all(arithmetic)), name
        assert not list(tree.find_all(nodes.Filter)), name


def test_what_is_undefined_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(UndefinedError):
        templating.environment().from_string("{{ page.absent }}").render(page=samples.verification())


def test_a_page_of_3700_sites_in_three_cells_is_small_and_quick() -> None:
    verification = samples.deep()
    html.render(samples.verification())  # templates are compiled once
    started = time.perf_counter()
    page = html.render(verification)
    assert time.perf_counter() - started < 3 * SLACK
    assert len(page.encode()) < 4_000_000


def test_a_comparison_is_a_page_of_the_same_make(diverged: Verification, matching: Verification) -> None:
    page = html.render_comparison(diverged, matching)
    words = Outline(page).words()
    assert "diverged before, match now" in words
    assert "Culprits that are gone" in words
    assert "script-src 'none'" in unescape(page)
    assert page == html.render_comparison(diverged, matching)


def test_a_comparison_shows_hostile_text_too(hostile: Verification, matching: Verification) -> None:
    page = html.render_comparison(matching, hostile)
    assert "<script" not in page
    assert "&lt;/script&gt;" in page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tone", ["ink", "faint", "match", "diverged", "inconclusive", "follows", "accent"])
def test_text_stands_out_from_its_ground(matching: Verification, scheme: str, tone: str) -> None:
    """At least 4.5 to 1, as the Web Content Accessibility Guidelines 2.1 (success criterion 1.4.3) ask."""
    light, dark, *_ = re.findall(r":root \{(.*?)\}", html.render(matching), re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", light if scheme == "light" else dark))
    for ground in ("ground", "raised"):
        lighter, darker = sorted((luminance(colours[tone]), luminance(colours[ground])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
