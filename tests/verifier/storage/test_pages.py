"""Records besides results on disk: saved with a page, read back, and rendered again by `report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import pages
from verifier.cli.rendering import KINDS, check_result, other
from verifier.errors import OutputError, UsageError
from verifier.initialisation.saving import save_initialisation
from verifier.storage.pages import clear_walk, mark_later, save_check, save_preparation, save_walk
from verifier.training.saving import save_experiment, save_parity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAVED: dict[str, tuple[Callable[[Any, Path], tuple[str, ...]], Callable[[], Any]]] = {
    "check.json": (save_check, pages.check),
    "index.json": (save_walk, pages.networks),
    "initialisation.json": (save_initialisation, pages.initial_values),
    "preprocessing.json": (save_preparation, pages.preparation),
    "training-parity.json": (save_parity, pages.trainings),
    "training.json": (save_experiment, pages.experiment),
}


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def saved(name: str, directory: Path) -> Path:
    save, make = SAVED[name]
    assert save(make(), directory) == ()
    return directory / name


def test_every_kind_is_tried() -> None:
    assert set(SAVED) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_page_is_rendered_again_to_the_same_bytes(
    tmp_path: Path, name: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(name, tmp_path)
    before = contents(tmp_path)
    file.with_suffix(".html").unlink()

    found = other(tmp_path if named == "folder" else file)

    assert found == file
    assert KINDS[name](file) == ()
    assert contents(tmp_path) == before
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, name: str) -> None:
    file = saved(name, tmp_path)
    file.write_text(
        file.read_text("utf-8").replace('"schema_version": 1', '"schema_version": 1, "more": 2'), "utf-8"
    )
    with pytest.raises(OutputError, match="more"):
        KINDS[name](file)


def test_a_result_comes_first_and_two_other_records_have_to_be_named(tmp_path: Path) -> None:
    for name in ("index.json", "check.json"):
        saved(name, tmp_path)
    with pytest.raises(UsageError, match=r"holds check\.json and index\.json: name the one"):
        other(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    assert other(tmp_path) is None
    assert other(tmp_path / "index.json") == tmp_path / "index.json"


def test_a_folder_without_a_record_is_left_to_whoever_reads_results(tmp_path: Path) -> None:
    assert other(tmp_path) is None
    assert other(tmp_path / "missing") is None


def test_the_index_of_an_earlier_walk_goes_before_its_networks_do(tmp_path: Path) -> None:
    saved("index.json", tmp_path)
    clear_walk(tmp_path)
    clear_walk(tmp_path)
    assert contents(tmp_path) == {}


def test_an_earlier_check_that_cannot_be_read_is_left_as_it_is_with_a_warning(tmp_path: Path) -> None:
    assert mark_later(pages.check(), tmp_path) == ()  # there is none to mark
    assert contents(tmp_path) == {}
    (tmp_path / "check.json").write_text("{}", encoding="utf-8")

    [said] = mark_later(pages.check(), tmp_path)

    assert said.startswith("check.html is of an earlier check, and cannot be marked so: ")
    assert contents(tmp_path) == {"check.json": b"{}"}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_result_is_told_by_what_it_is(tmp_path: Path, name: str) -> None:
    file = saved(name, tmp_path)

    for path in (tmp_path, file):
        with pytest.raises(UsageError, match=f"{path} holds .*; results are compared"):
            check_result(path, "results are compared")
    (tmp_path / "result.json").touch()
    check_result(tmp_path, "results are compared")
    check_result(tmp_path / "nowhere", "results are compared")
