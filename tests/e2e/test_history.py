"""Runs are recorded where they should be, and a history never changes how they end."""

from __future__ import annotations

import sqlite3
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended


def recorded(file: Path) -> list[tuple[str, str, str]]:
    with sqlite3.connect(file) as connection:
        found = connection.execute("SELECT baseline, candidate, verdict FROM runs ORDER BY id").fetchall()
    connection.close()
    return found


def test_a_run_is_recorded_where_asked_and_by_its_process_alone(
    compare: Callable[..., Ended], place: Path, written: Callable[[str], set[str]]
) -> None:
    ended = compare("--history", "here/h.sqlite", "--no-semantics")
    assert (ended.code, ended.err) == (0, "")
    assert ended.new == written("verifier-report") | {"here/h.sqlite"}
    assert compare("--history", "here/h.sqlite", "--no-semantics", "--isolate").code == 0
    assert recorded(place / "here" / "h.sqlite") == [("nets.py:net", "nets.py:net", "match")] * 2


def test_outside_a_repository_nothing_is_recorded_unasked(
    compare: Callable[..., Ended], place: Path, written: Callable[[str], set[str]]
) -> None:
    inside = {"VERIFIER_HISTORY": "h.sqlite"}
    assert compare("--no-semantics", "--no-history", env=inside).new == written("verifier-report")
    assert compare("--no-semantics", env=inside).new == {"h.sqlite"}


def test_a_history_that_cannot_be_written_is_a_warning_beside_the_same_verdict(
    compare: Callable[..., Ended], place: Path
) -> None:
    (place / "file").touch()
    (place / "notes.sqlite").write_text("not a database, " * 99, encoding="utf-8")
    for named in ("file/h.sqlite", "notes.sqlite"):
        ended = compare("--no-semantics", "--candidate", "nets.py:other_eps", "--history", named, *BASELINE)
        assert ended.code == 1
        assert ended.out.startswith("diverged: ")
        assert ended.err.startswith("verifier: warning: this run is not in the history: ")
        assert ended.err.count("\n") == 1
        assert ended.result()["verdict"] == "diverged"


BASELINE = ("--baseline", "nets.py:net")


def test_what_contradicts_itself_is_refused(compare: Callable[..., Ended]) -> None:
    assert "exclude each other" in compare("--history", "h.sqlite", "--no-history").refusal(2)


def test_without_a_history_there_is_nothing_to_tell(call: Callable[..., Ended], place: Path) -> None:
    assert "no history is kept here" in call("history").refusal(2)
    assert "there is no history at h.sqlite" in call("history", "--history", "h.sqlite").refusal(2)
    assert "come behind it" in call("history", "--last", "3", "export", "a.csv").refusal(2)
    assert "ends in .csv or .parquet" in call("history", "export", "a.xlsx").refusal(2)


def test_the_repositorys_own_history_is_in_no_ones_way(compare: Callable[..., Ended], place: Path) -> None:
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "trunk"], cwd=place, check=True)
    ended = compare("--no-semantics", env={"VERIFIER_HISTORY": ".git/verifier/history.sqlite"})
    assert ended.code == 0
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=place, check=True, capture_output=True, text=True
    ).stdout
    assert "history" not in status
    assert recorded(place / ".git" / "verifier" / "history.sqlite") == [
        ("nets.py:net", "nets.py:net", "match")
    ]
