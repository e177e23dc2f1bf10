"""GitHub's workflow commands and job summary."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests import samples
from tests.verifier.gate.conftest import OUTCOMES, moved
from verifier.gate.annotations import append_summary, commands, summary, wanted
from verifier.gate.findings import Outcome
from verifier.records import Result, Source, Verdict

if TYPE_CHECKING:
    from pathlib import Path

LINE = re.compile(r"::error(?: (?P<fields>[^:]*))?::(?P<message>[^\r\n]*)\n")


def unescaped(text: str) -> str:
    """As the runner reads it."""
    for written, meant in (("%3A", ":"), ("%2C", ","), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(written, meant)
    return text


def read(text: str) -> list[tuple[dict[str, str], str]]:
    """Fields and message of each command; nothing else may be there."""
    assert LINE.sub("", text) == ""
    found = []
    for match in LINE.finditer(text):
        fields = (field.partition("=") for field in (match["fields"] or "").split(",") if field)
        found.append(({name: unescaped(value) for name, _, value in fields}, unescaped(match["message"])))
    return found


def test_a_culprit_of_several_cells_is_annotated_once() -> None:
    assert read(commands([OUTCOMES["diverged"]])) == [
        (
            {"file": "nets/new.py", "line": "161", "title": "reference:resnet50: batchnorm-eps"},
            "bn1 (candidate: stem.bn) is wrong: eps is 0.001 instead of 1e-05 (confirmed, batchnorm-eps) "
            "(in cpu/float64, cpu/float32)",
        )
    ]


def test_of_one_cause_further_lines_are_named() -> None:
    assert read(commands([OUTCOMES["one cause"]])) == [
        (
            {"file": "nets/new.py", "line": "40", "title": "reference:resnet50: batchnorm-eps"},
            "3 of 5 batch_norm sites are wrong, first layer0.0.bn: eps is 0.001, the baseline's 1e-05 (confirmed, "
            "batchnorm-eps) (in cpu/float64)\nalso at nets/new.py:41 (Net.forward), nets/new.py:42 (Net.forward)",
        )
    ]
    [(_, message)] = read(commands([OUTCOMES["one line"]]))
    assert "also at" not in message


def test_every_outcome_is_well_formed(outcome: Outcome) -> None:
    assert bool(read(commands([outcome]))) == (outcome.verdict is not Verdict.MATCH)


def test_names_cannot_give_commands_of_their_own() -> None:
    hostile = "a,b:c%0A::error::x\r\n::stop-commands::y"
    failure = Outcome("new.py:load", failure=hostile)
    assert read(commands([failure])) == [({"title": "new.py:load"}, f"could not run: {hostile}")]
    assert "\n::stop" not in commands([failure])

    result = moved(samples.diverged(), 1)
    cells = tuple(
        msgspec.structs.replace(
            cell,
            culprits=tuple(
                msgspec.structs.replace(
                    row, candidate_source=Source(file="a,line=1:b%.py", line=3, function="f")
                )
                for row in cell.culprits
            ),
        )
        for cell in result.cells
    )
    [(fields, _)] = read(commands([Outcome.of(msgspec.structs.replace(result, cells=cells))]))
    assert (fields["file"], fields["line"]) == ("a,line=1:b%.py", "3")


def many(count: int) -> Result:
    result = samples.diverged()
    [cell, _] = result.cells
    rows = tuple(
        msgspec.structs.replace(
            result.culprits[0], baseline=f"bn{k}", candidate=f"bn{k}", cause=samples.cause(f"code-{k}")
        )
        for k in range(count)
    )
    return msgspec.structs.replace(result, cells=(msgspec.structs.replace(cell, culprits=rows),))


@pytest.mark.parametrize("count", [9, 10, 11, 40])
def test_of_more_than_github_shows_the_last_says_how_many(count: int) -> None:
    found = read(commands([Outcome.of(many(count))]))

    assert len(found) == min(count, 10)
    shown = [message for _, message in found if message.startswith("bn")]
    rest = re.findall(r"and (\d+) more", found[-1][1])
    assert len(shown) + sum(map(int, rest)) == count


def test_the_environment_says_whether_somebody_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert not wanted()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert wanted()


def test_the_summary_is_appended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "summary"
    file.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))

    assert append_summary([OUTCOMES["diverged"], OUTCOMES["could not run"]]) == ()

    text = file.read_text(encoding="utf-8", errors="replace")
    assert text.startswith("before\n### ")
    assert "bn1" in text
    assert "could not run: out of memory" in text


def test_a_summary_is_no_longer_than_github_takes() -> None:
    whole = summary([OUTCOMES["diverged"]])

    assert summary([OUTCOMES["diverged"]] * 3, room=2 * len(whole.encode()) + 5) == whole * 2
    assert summary([OUTCOMES["diverged"]], room=10) == ""


def test_a_summary_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "gone" / "summary"))

    [lost] = append_summary([OUTCOMES["diverged"]])

    assert lost.startswith("the job summary cannot be written: ")
