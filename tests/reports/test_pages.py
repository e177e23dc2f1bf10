"""The pages besides a run's: what is asked of all of them, and what each says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import pytest

from reports import curves, preprocessing, training, walk
from reports.training import verdict
from tests import pages
from tests.reports.test_html import Outline
from verifier.records import Verdict
from verifier.training.records import Twins

if TYPE_CHECKING:
    from verifier.training.records import Experiment

RECORDS = sorted(set(pages.PAGES) - {"comparison"})


def heading(page: str) -> str:
    """What the title says, as text."""
    found = re.search("<h1>(.*?)</h1>", page, re.DOTALL)
    assert found
    return " ".join(re.sub("<[^>]*>", "", found[1]).split())


@pytest.mark.parametrize("name", pages.PAGES)
def test_a_page_is_well_formed_runs_nothing_and_is_the_same_every_time(name: str) -> None:
    text = pages.PAGES[name]()
    found = Outline(text)
    assert "script" not in [tag for tag, _ in found.tags]
    [policy] = [attributes["content"] or "" for _, attributes in found.tags if "http-equiv" in attributes]
    assert "script-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert text == pages.PAGES[name]()
    assert all((attributes.get("src") or "data:").startswith("data:") for _, attributes in found.tags)


@pytest.mark.parametrize("name", RECORDS)
def test_foreign_text_is_shown_and_not_obeyed(name: str) -> None:
    text = pages.PAGES[name]()
    assert pages.HOSTILE not in text
    assert pages.HOSTILE in Outline(text).text


@pytest.mark.parametrize("name", sorted(set(pages.PAGES) - {"comparison", "check"}))
def test_a_page_says_how_to_run_it_again(name: str) -> None:
    assert "it again" in (text := Outline(pages.PAGES[name]()).text)
    assert "python -m verifier" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("init", "✗ diverged: 1 tensor of 61 is initialised otherwise"),
        (
            "preprocess",
            "✗ diverged: prep.py:made prepares photographs otherwise, first in resize: it is bicubic",
        ),
        ("train-parity", "✗ diverged: step 1, backward, gradient of features."),
        (
            "training",
            "✓ match: 4 networks learn as their baseline twins do, bit for bit; cifar_resnet20 (candidate)",
        ),
        ("index", "1 of 4 networks match, 1 diverged, 1 could not run, 1 not reached; diverged: resnet34"),
    ],
)
def test_the_title_has_the_verdict(name: str, said: str) -> None:
    assert heading(pages.PAGES[name]()).startswith(said)


def test_the_index_leads_to_networks_that_have_a_page_alone() -> None:
    text = walk.render(pages.networks())
    assert re.findall('href="(.*?)"', text) == ["resnet18/report.html", "resnet34/report.html"]
    assert "could not run" in text
    assert text.count("not reached") == 3  # in the title of the page, in its heading, and at the network


def test_an_index_of_matches_alone_is_one() -> None:
    found = pages.networks()
    found = msgspec.structs.replace(found, networks=found.networks[:1], awaited=())
    assert "answer match" in walk.render(found)
    assert walk.headline(found) == "1 of 1 networks match"


def test_photographs_prepared_alike_are_a_match_with_every_stage() -> None:
    alike = msgspec.structs.replace(pages.preparation(), status="exact", first_difference="", cause=None)
    text = preprocessing.page(alike)
    assert heading(text).startswith("✓ match: all stages")
    assert "decode" in Outline(text).text


@pytest.fixture
def four() -> Experiment:
    return pages.experiment()


def test_twins_that_learnt_alike_are_one_curve_and_one_legend_serves_both_charts(four: Experiment) -> None:
    found = training.page(four)
    both = next(panel for panel in found.panels if panel.several)
    assert [each.title for each in both.charts] == ["Loss", "Accuracy"]
    labels = [line.label for line in both.legend]
    assert len(labels) == len(set(labels)) == 8  # four networks, while learning and on test images
    assert len({line.tone for line in both.legend}) == 8
    text = Outline(training.render(four)).text
    assert [text.count(f" {label}\n") for label in labels] == [1] * 8


def test_a_legend_that_would_say_the_title_again_is_left_out() -> None:
    one = curves.chart("Learning rate", "", "", [curves.Curve("learning rate", ((0.0, 1.0),))])
    other = curves.chart("Loss", "", "", [curves.Curve("net", ((0.0, 1.0),))])
    assert [len(panel.legend) for panel in curves.panels([one, other])] == [0, 1]


@pytest.mark.parametrize(
    ("since", "same_weights", "word", "said"),
    [
        (None, True, "match", "net learns as its baseline twin does, bit for bit"),
        (2, False, "inconclusive", "the numbers from epoch 2 on of net are not its twin's"),
        (None, False, "inconclusive", "the final weights of net are not its twin's"),
    ],
)
def test_only_equal_bits_are_a_match(*, since: int | None, same_weights: bool, word: str, said: str) -> None:
    twins = (Twins(name="net", first_other_epoch=since, same_weights=same_weights),)
    mark, answer = verdict(msgspec.structs.replace(pages.experiment(("net",)), twins=twins))
    assert (mark.word, answer.partition(";")[0]) == (word, said)


def test_a_network_without_a_twin_is_not_compared() -> None:
    mark, answer = verdict(msgspec.structs.replace(pages.experiment(("net",)), twins=()))
    assert mark.word == "not compared"
    assert answer.startswith("net trained without a twin; net (candidate) tells")


def test_what_is_inconclusive_of_one_network_is_no_match_of_all(four: Experiment) -> None:
    parted = Twins(name="net", first_other_epoch=2, same_weights=False)
    mark, _ = verdict(msgspec.structs.replace(four, twins=(*four.twins[:3], parted)))
    assert mark.word == str(Verdict.INCONCLUSIVE)
