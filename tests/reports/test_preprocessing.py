from __future__ import annotations

from html import unescape
from typing import TYPE_CHECKING

import msgspec
import pytest

from reports import preparation, preprocessing, terminal
from reports.headline import headline
from tests.prepared import DIFFERS, GAP, prepared, stage
from verifier.records import PreparationAlone, Verdict

if TYPE_CHECKING:
    from verifier.storage.saving import Verification


def test_stages_that_are_exact_are_one_sentence() -> None:
    found = prepared("exact", stage("decode", "exact", exact=2), stage("resize", "exact", exact=2))
    assert preparation.prepared(found) == "all stages (decode, resize) are equal bit for bit on 2 photographs"
    assert [section.title for section in preprocessing.sections(found)] == [preprocessing.TITLE]
    assert preprocessing.plain(found).startswith("match: all stages")


def test_rounding_is_no_difference_and_is_told() -> None:
    found = prepared("rounding", stage("resize", "rounding", intrinsic=GAP))
    assert preparation.prepared(found).endswith("alike but for rounding in resize")
    assert preprocessing.plain(found).startswith("match: prep.py:made prepares 2 photographs alike")


def test_the_first_stage_that_differs_is_named_with_its_cause_and_what_to_do() -> None:
    text = preprocessing.plain(DIFFERS)
    assert text.startswith(
        "diverged: prep.py:made prepares photographs otherwise, first in resize: it is bicubic "
        "(confirmed, resize-kernel)\n"
    )
    assert "fix: use bilinear" in text
    assert "32 steps" in text


def test_a_difference_that_nothing_explains_is_told_as_such() -> None:
    assert "in a way that is not known" in preparation.prepared(
        prepared("differs", stage("resize", "unseen"))
    )


def test_the_verdict_of_a_run_begins_with_stage_0_where_it_differs(matching: Verification) -> None:
    diverged = msgspec.structs.replace(
        matching, verdict=Verdict.DIVERGED, reason="input: another picture", preprocessing=DIFFERS
    )
    assert headline(diverged).startswith("diverged: prep.py:made prepares photographs otherwise")
    assert preprocessing.TITLE in terminal.plain(diverged)
    assert preprocessing.TITLE not in terminal.plain(matching)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("exact", "match: prep.py:made prepares photographs as torchvision's transforms do"),
        (
            "rounding",
            "match: prep.py:made prepares photographs as torchvision's transforms do, but for rounding",
        ),
        ("differs", "diverged: prep.py:made prepares photographs otherwise than torchvision's transforms"),
        (
            "inconclusive",
            "inconclusive: whether prep.py:made prepares photographs as torchvision's transforms do cannot be told",
        ),
    ],
)
def test_the_title_of_the_page_says_whether_they_are_prepared_alike(status: str, said: str) -> None:
    found = prepared(status, stage("resize", "unseen"))
    alone = PreparationAlone(**{name: getattr(found, name) for name in found.__struct_fields__})
    assert f"<title>{said}</title>" in unescape(preprocessing.page(alone))


def test_names_cannot_drive_a_terminal() -> None:
    found = msgspec.structs.replace(DIFFERS, candidate="prep.py:\x1b[2J", notes=("\x1b[31m",))
    assert "\x1b" not in preprocessing.plain(found)
