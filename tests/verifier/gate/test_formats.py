"""The files: refused before a run or written whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.verifier.gate.conftest import OUTCOMES
from verifier.errors import UsageError
from verifier.gate import code_quality, junit, sarif
from verifier.gate.formats import Formats

if TYPE_CHECKING:
    from pathlib import Path


def test_all_that_were_asked_for_are_written(tmp_path: Path) -> None:
    outcomes = [OUTCOMES["diverged"], OUTCOMES["match"]]
    formats = Formats(tmp_path / "new" / "j.xml", tmp_path / "s.sarif", tmp_path / "q.json")
    formats.check()
    assert list(tmp_path.iterdir()) == []  # so far nothing is written

    assert formats.write(outcomes) == ()

    assert (tmp_path / "new" / "j.xml").read_text(encoding="utf-8") == junit.document(outcomes)
    assert (tmp_path / "s.sarif").read_text(encoding="utf-8") == sarif.document(outcomes)
    assert (tmp_path / "q.json").read_text(encoding="utf-8") == code_quality.document(outcomes)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "s.sarif", "q.json"}


def test_none_are_written_that_were_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Formats().check()

    assert Formats().write([OUTCOMES["diverged"]]) == ()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_a_file_is_refused_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for formats, said in (
        (Formats(junit=tmp_path), "is a directory"),
        (Formats(sarif=tmp_path / "file" / "s.sarif"), "--sarif .*file is a file"),
        (Formats(code_quality=tmp_path / "pipe"), "--code-quality .*no regular file"),
        (Formats(tmp_path / "one", tmp_path / "one"), "--junit and --sarif name the same file"),
    ):
        with pytest.raises(UsageError, match=said):
            formats.check()


def test_one_that_fails_does_not_keep_the_others_from_being_written(tmp_path: Path) -> None:
    formats = Formats(junit=tmp_path / "j.xml", sarif=tmp_path / "s.sarif")
    formats.check()
    (tmp_path / "j.xml").mkdir()

    [lost] = formats.write([OUTCOMES["match"]])

    assert lost.startswith(f"--junit {tmp_path / 'j.xml'} was not written: ")
    assert (tmp_path / "s.sarif").is_file()
