"""Kills at any moment, two writers, and folders that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from verifier.errors import InputError, ModelError, OutputError
from verifier.storage import folder, saving
from verifier.storage.earlier import awaiting, note_of
from verifier.storage.folder import Aside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.storage.saving import Verification

MOMENTS = int(os.environ.get("VERIFIER_MOMENTS", "5"))
"""How many random moments and how many times; more by hand."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and file locks")


@pytest.fixture
def saved(verification: Verification, tmp_path: Path) -> Path:
    """A saved result."""
    saving.save(verification, tmp_path / "saved")
    return tmp_path / "saved"


def kills(task: str, saved: Path, directory: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, script, task, saved, directory, str(MOMENTS)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(saving.__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@posix
def test_a_kill_within_saving_leaves_the_old_result_or_the_new_one(saved: Path, tmp_path: Path) -> None:
    found = kills("save", saved, tmp_path / "out")
    assert found["failed"] == []
    assert found["died"] >= found["events"] > 30


@posix
def test_a_kill_within_setting_aside_and_putting_back_loses_nothing(saved: Path, tmp_path: Path) -> None:
    found = kills("aside", saved, tmp_path / "out")
    assert found["failed"] == []
    assert found["died"] >= found["events"] > 20


@posix
def test_two_commands_never_mix_their_files(saved: Path, tmp_path: Path) -> None:
    assert kills("together", saved, tmp_path / "out") == {"times": MOMENTS, "mixed": 0}


def test_what_a_kill_left_is_cleared_away_and_other_hidden_folders_are_not(
    verification: Verification, tmp_path: Path
) -> None:
    (tmp_path / ".saving-abcdefgh").mkdir()
    (tmp_path / ".saving-abcdefgh" / "result.json").write_text("half")
    (tmp_path / ".git").mkdir()
    saving.save(verification, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".git", *saving.WRITTEN])


def test_what_the_new_result_does_not_have_is_gone(verification: Verification, tmp_path: Path) -> None:
    saving.save(verification, tmp_path)
    assert (tmp_path / saving.PLOT).exists()
    saving.save(msgspec.structs.replace(verification, cells=()), tmp_path)
    assert not (tmp_path / saving.PLOT).exists()


@posix
def test_a_folder_that_another_holds_is_waited_for_and_then_refused(
    verification: Verification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_PATIENCE", 0.05)
    with folder.locked(tmp_path), pytest.raises(OutputError, match="another command has been writing to"):
        saving.save(verification, tmp_path)
    saving.save(verification, tmp_path)


# --- an earlier result


@pytest.fixture
def out(verification: Verification, tmp_path: Path) -> Iterator[Path]:
    """Where a result is; whatever happens to it, none of its files is lost."""
    saving.save(verification, tmp_path)
    before = files(tmp_path)
    yield tmp_path
    assert before in (files(tmp_path), files(tmp_path / "earlier"))


def files(directory: Path) -> dict[str, bytes]:
    found = directory.iterdir() if directory.is_dir() else ()
    return {path.name: path.read_bytes() for path in found if path.is_file()}


def by_program(error: InputError) -> InputError:
    error.of_program = True
    return error


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (InputError("no such file"), "."),
        (by_program(InputError("the baseline does not take these")), "earlier"),
        (ModelError("the candidate failed"), "earlier"),
        (OutputError("the disk is full"), "earlier"),
        (ValueError("a defect"), "earlier"),
    ],
    ids=str,
)
def test_an_earlier_result_stays_aside_where_a_verification_died(
    out: Path, error: Exception, place: str
) -> None:
    def fail() -> None:
        assert set(files(out)) == set()
        raise error

    with pytest.raises(type(error)) as caught, awaiting(out, saving.WRITTEN):
        fail()
    assert (out / place / "result.json").is_file()
    assert note_of(caught.value) == (
        "" if place == "." else f"An earlier result was set aside in {out / 'earlier'}."
    )


def test_a_result_replaces_the_one_that_was_set_aside(verification: Verification, tmp_path: Path) -> None:
    saving.save(verification, tmp_path)
    with awaiting(tmp_path, saving.WRITTEN):
        saving.save(msgspec.structs.replace(verification, seed=7), tmp_path)
    assert saving.load(tmp_path).seed == 7
    assert not (tmp_path / "earlier").exists()


def test_an_earlier_result_does_not_come_back_over_another_commands(
    verification: Verification, tmp_path: Path
) -> None:
    saving.save(verification, tmp_path)
    aside = Aside(tmp_path, saving.WRITTEN)
    aside.move()
    saving.save(msgspec.structs.replace(verification, seed=7), tmp_path)
    aside.put_back()
    assert saving.load(tmp_path).seed == 7
    assert not (tmp_path / "earlier").exists()


# --- where it cannot go


def complaint(directory: Path) -> str:
    with pytest.raises(OutputError) as caught:
        saving.check_writable(directory)
    return str(caught.value)


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    assert "out is a symbolic link to" in complaint(tmp_path / "out")
    assert "out is a symbolic link to" in complaint(tmp_path / "out" / "inner")


def test_a_link_to_a_directory_is_one(verification: Verification, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    saving.save(verification, tmp_path / "out")
    assert saving.load(tmp_path / "real").seed == verification.seed


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["x" * 200] * 20) + "/" + "x" * 30])
def test_a_name_that_is_too_long_is_told(tmp_path: Path, name: str) -> None:
    assert "name too long" in complaint(tmp_path / name)


@posix
def test_too_little_room_is_told(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        assert "cannot be written: File too large" in complaint(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
