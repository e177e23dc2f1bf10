from __future__ import annotations

import msgspec

from reports import preprocessing, sentences, terminal
from verifier.result import Cause, Preprocessing, StageDifference, StageResult, Verdict, Verification

CAUSE = Cause(code="resize-kernel", summary="it is bicubic", confirmed=True, remedy="use bilinear")
GAP = StageDifference(largest=32.0, mean=1.5, share=0.8, picture="a.png")


def stage(name: str, status: str, **more: object) -> StageResult:
    fields = {
        "name": name,
        "words": "as it should",
        "status": status,
        "rule": "",
        "unit": "1/255",
        "pictures": 2,
    }
    return msgspec.convert(fields | more, StageResult)


def prepared(status: str, *stages: StageResult, first: str = "", **more: object) -> Preprocessing:
    return msgspec.structs.replace(
        Preprocessing(
            recipe="classification",
            candidate="prep.py:made",
            status=status,
            stages=stages,
            first_difference=first,
            files=("a.png", "b.png"),
        ),
        **more,
    )


DIFFERS = prepared(
    "differs",
    stage("decode", "given"),
    stage("resize", "differs", intrinsic=GAP, total=GAP, cause=CAUSE),
    first="resize",
    cause=CAUSE,
    applied=True,
)


def test_stages_that_are_exact_are_one_sentence() -> None:
    found = prepared("exact", stage("decode", "exact", exact=2), stage("resize", "exact", exact=2))
    assert sentences.prepared(found) == "all stages (decode, resize) are equal bit for bit on 2 photographs"
    assert [section.title for section in preprocessing.sections(found)] == [preprocessing.TITLE]
    assert preprocessing.plain(found).startswith("match: all stages")


def test_rounding_is_no_difference_and_is_told() -> None:
    found = prepared("rounding", stage("resize", "rounding", intrinsic=GAP))
    assert sentences.prepared(found).endswith("alike but for rounding in resize")
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
    assert "in a way that is not known" in sentences.prepared(prepared("differs", stage("resize", "unseen")))


def test_the_verdict_of_a_run_begins_with_stage_0_where_it_differs(matching: Verification) -> None:
    diverged = msgspec.structs.replace(
        matching, verdict=Verdict.DIVERGED, reason="input: another picture", preprocessing=DIFFERS
    )
    assert sentences.headline(diverged).startswith("diverged: prep.py:made prepares photographs otherwise")
    assert preprocessing.TITLE in terminal.plain(diverged)
    assert preprocessing.TITLE not in terminal.plain(matching)


def test_names_cannot_drive_a_terminal() -> None:
    found = msgspec.structs.replace(DIFFERS, candidate="prep.py:\x1b[2J", notes=("\x1b[31m",))
    assert "\x1b" not in preprocessing.plain(found)
