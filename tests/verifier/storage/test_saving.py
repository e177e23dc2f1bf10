from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reports import html, markdown, plot, terminal
from verifier.cli import showing
from verifier.errors import OutputError
from verifier.records import HEADLINE, SCHEMA_VERSION, to_builtins
from verifier.records.reading import read
from verifier.storage import frames, saving
from verifier.storage.folder import Aside
from verifier.storage.saving import Verification

if TYPE_CHECKING:
    from collections.abc import Callable


FILES = ["error-over-depth.png", "layers.csv", "report.html", "result.json", "summary.md"]


def complaint(act: Callable[[], object]) -> str:
    with pytest.raises(OutputError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def listing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- writing


def test_a_result_is_saved_with_all_that_is_rendered_from_it_in_a_new_directory(
    verification: Verification, tmp_path: Path
) -> None:
    directory = tmp_path / "deep" / "out"
    saving.save(verification, directory)
    assert listing(directory) == FILES
    assert json.loads((directory / "result.json").read_text()) == to_builtins(verification)
    assert (directory / "layers.csv").read_bytes() == frames.to_csv(verification).encode()
    assert (directory / "report.html").read_text() == html.render(verification)
    assert (directory / "summary.md").read_text() == markdown.summary(
        verification, plot="error-over-depth.png"
    )
    assert (directory / "error-over-depth.png").read_bytes() == plot.png(verification)


def test_saving_again_replaces_the_result_and_leaves_other_files(
    verification: Verification, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    saving.save(msgspec.structs.replace(verification, seed=1), tmp_path)
    saving.save(verification, tmp_path)
    assert saving.load(tmp_path).seed == 0
    assert listing(tmp_path) == sorted([*FILES, "notes.txt"])


def test_a_report_can_be_rendered_again(verification: Verification, tmp_path: Path) -> None:
    saving.save(verification, tmp_path)
    for name in saving.RENDERED:
        (tmp_path / name).unlink()
    saving.render_again(tmp_path)
    assert listing(tmp_path) == sorted(FILES)


def test_the_record_saves_itself(verification: Verification, tmp_path: Path) -> None:
    verification.save(str(tmp_path))
    assert saving.load(tmp_path) is not None


def test_a_result_of_before_pictures_and_digests_is_read(verification: Verification, tmp_path: Path) -> None:
    content = to_builtins(verification)
    for record, fields in (
        (content["weights"], ("baseline_digest", "candidate_digest")),
        (content["inputs"], ("digest",)),
        (content["environment"], ("commit", "dirty")),
        *((cell, ("exhibits",)) for cell in content["cells"]),
    ):
        for field in fields:
            del record[field]
    (tmp_path / "result.json").write_text(json.dumps(content))
    loaded = saving.load(tmp_path)
    assert same(loaded, verification)
    saving.render_again(tmp_path)


def test_a_comparison_is_saved_as_a_page(verification: Verification, tmp_path: Path) -> None:
    saving.save_comparison(verification, verification, tmp_path / "out")
    assert listing(tmp_path / "out") == ["comparison.html"]


def test_a_comparison_leads_to_the_reports_that_are_there(verification: Verification, tmp_path: Path) -> None:
    saving.save(verification, tmp_path / "last week")
    saving.save(verification, tmp_path / "now")
    (tmp_path / "now" / "report.html").unlink()
    origins = tmp_path / "last week" / "result.json", tmp_path / "now"
    saving.save_comparison(verification, verification, tmp_path / "out", origins)
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert re.findall(r'href="([^"]*)"', page) == ["../last%20week/report.html"]


def test_a_pair_is_one_line_of_the_file(verification: Verification) -> None:
    lines = saving.to_json(verification).splitlines()
    assert sum('"baseline": "conv1"' in line for line in lines) == 2
    assert max(map(len, lines)) < 1650


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("after", range(11))
@pytest.mark.parametrize("existing", [False, True])
def test_an_interruption_leaves_the_previous_result_or_the_new_one_whole(
    verification: Verification,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException | type[BaseException],
    after: int,
    existing: bool,
) -> None:
    if existing:
        saving.save(msgspec.structs.replace(verification, seed=1), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    new = files_of(verification, tmp_path.with_name("new"))
    interrupt_when_files_are_written(monkeypatch, error, after)
    told: tuple[str, ...] = ()
    expected = KeyboardInterrupt if error is KeyboardInterrupt else OutputError
    with contextlib.suppress(expected):
        told = saving.save(verification, tmp_path)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left in (before, new, {"result.json": new["result.json"]})
    if left != before and error is not KeyboardInterrupt:
        assert told == () if left == new else "the pages beside it are not" in told[0]


def files_of(verification: Verification, directory: Path) -> dict[str, bytes]:
    saving.save(verification, directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def interrupt_when_files_are_written(
    monkeypatch: pytest.MonkeyPatch, error: BaseException | type[BaseException], after: int
) -> None:
    """Let `after` writes and moves succeed and the next one fail, once, as a full disk or Ctrl-C would."""
    left = [after]

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == -1:
                raise error
            return original(*arguments)

        return step

    monkeypatch.setattr(Path, "write_bytes", failing(Path.write_bytes))
    monkeypatch.setattr(Path, "replace", failing(Path.replace))


def damaged(verification: Verification) -> Verification:
    """A record of which neither the page nor the summary can be made: they tell of these."""
    broken: Verification = msgspec.structs.replace(verification, weights=None, notes=None)
    return broken


def test_what_cannot_be_rendered_is_told_beside_a_saved_result(
    verification: Verification, tmp_path: Path
) -> None:
    saving.save(verification, tmp_path)
    broken = damaged(verification)

    (told,) = saving.save(broken, tmp_path)

    assert told.startswith("report.html cannot be made of the saved result: AttributeError")
    assert listing(tmp_path) == [name for name in FILES if name != "report.html"]
    assert json.loads((tmp_path / "result.json").read_text())["notes"] is None
    with pytest.warns(RuntimeWarning, match=r"report\.html cannot be made"):
        broken.save(tmp_path)


def test_a_summary_that_cannot_be_shown_leaves_the_verdict(
    verification: Verification, capsys: pytest.CaptureFixture[str]
) -> None:
    showing.show(damaged(verification), None)
    said = capsys.readouterr()
    assert said.out == "diverged: bn1 diverges\n"
    assert said.err.startswith("verifier: warning: the summary cannot be made of the result: TypeError")


def test_pages_do_not_go_beside_the_result_of_another(verification: Verification, tmp_path: Path) -> None:
    saved = saving.save_result(verification, tmp_path)
    saving.save_result(msgspec.structs.replace(verification, seed=1), tmp_path)
    assert saving.save_rendered(verification, tmp_path, saved) == ()
    assert listing(tmp_path) == ["result.json"]


# --- setting aside


def test_a_result_is_set_aside_whole_and_other_files_stay(verification: Verification, tmp_path: Path) -> None:
    assert Aside(tmp_path / "absent", saving.WRITTEN).move() is None
    (tmp_path / "notes.txt").write_text("mine")
    assert Aside(tmp_path, saving.WRITTEN).move() is None
    for number, folder in enumerate(("earlier", "earlier-2", "earlier-3")):
        saving.save(msgspec.structs.replace(verification, seed=number), tmp_path)
        assert Aside(tmp_path, saving.WRITTEN).move() == tmp_path / folder
        assert listing(tmp_path / folder) == FILES
    assert listing(tmp_path) == ["earlier", "earlier-2", "earlier-3", "notes.txt"]
    assert saving.load(tmp_path / "earlier").seed == 0
    assert saving.load(tmp_path / "earlier-2").seed == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("after", range(6))
def test_what_cannot_be_set_aside_as_a_whole_stays_as_a_whole(
    verification: Verification,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException | type[BaseException],
    after: int,
) -> None:
    saving.save(verification, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    interrupt_when_files_are_written(monkeypatch, error, after)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OSError):
        Aside(tmp_path, saving.WRITTEN).move()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- where it cannot be written


def test_a_file_is_no_directory_to_write_to(verification: Verification, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert "is a file, and a directory is needed" in complaint(
        lambda: saving.save(verification, tmp_path / "out")
    )
    assert "is a file" in complaint(lambda: saving.check_writable(tmp_path / "out"))
    assert "out is a file" in complaint(lambda: saving.check_writable(tmp_path / "out" / "inner"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a directory that nobody can write to")
def test_a_directory_that_cannot_be_written_is_told(verification: Verification) -> None:
    assert "/proc cannot be written" in complaint(lambda: saving.check_writable("/proc"))
    assert "/proc/out cannot be written" in complaint(lambda: saving.save(verification, "/proc/out"))


def test_a_directory_in_a_files_place_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "layers.csv").mkdir()
    assert "layers.csv is a directory" in complaint(lambda: saving.check_writable(tmp_path))


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    saving.check_writable(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- reading


def same(first: object, second: object) -> bool:
    """Equality that takes NaN to equal NaN."""
    if isinstance(first, msgspec.Struct):
        return type(first) is type(second) and all(
            same(getattr(first, field), getattr(second, field)) for field in first.__struct_fields__
        )
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return type(first) is type(second) and first == second


# A record holds hundreds of values, which a busy machine is slow to draw.
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_result_comes_back_as_it_was_saved(
    draw_verification: Callable[[st.DataObject], Verification], data: st.DataObject
) -> None:
    verification = draw_verification(data)
    assert same(read(saving.to_json(verification), Verification, SCHEMA_VERSION), verification)


# A record holds hundreds of values, which a busy machine is slow to draw.
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_record_can_be_saved_and_summarised(
    draw_verification: Callable[[st.DataObject], Verification],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    verification = draw_verification(data)
    directory = tmp_path_factory.mktemp("saved")
    assert saving.save(verification, directory) == ()
    assert set(listing(directory)) | {"error-over-depth.png"} == set(FILES)
    first, *_ = terminal.plain(verification).splitlines()
    assert first.startswith(f"{verification.verdict}: ")
    assert len(first) <= HEADLINE
    page = html.render_comparison(verification, verification)
    assert page.startswith("<!doctype html>")


def test_a_saved_result_is_read_from_its_directory_and_from_its_file(
    verification: Verification, tmp_path: Path
) -> None:
    saving.save(verification, tmp_path)
    assert same(saving.load(tmp_path), verification)
    assert same(saving.load(tmp_path / "result.json"), verification)


def test_a_command_line_that_was_no_unicode_survives(verification: Verification, tmp_path: Path) -> None:
    strange = msgspec.structs.replace(verification, command="python -m verifier run --out \udcff")
    saving.save(strange, tmp_path)
    assert saving.load(tmp_path).command == strange.command


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"[]", "is not a saved result"),
        (b"{}", "is not a saved result"),
        (b'{"schema_version": 2}', "written by a newer version"),
        (b'{"schema_version": 1}', "is damaged: Object missing required field `verdict`"),
        (b'{"schema_version": 1, "verdict": "perhaps"}', "is damaged: verdict: invalid enum value 'perhaps'"),
    ],
)
def test_a_damaged_result_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "result.json").write_bytes(content)
    message = complaint(lambda: saving.load(tmp_path))
    assert said in message
    assert str(tmp_path / "result.json") in message


def test_a_missing_result_is_told(tmp_path: Path) -> None:
    assert "there is no saved result at" in complaint(lambda: saving.load(tmp_path))
    assert "there is no saved result at" in complaint(lambda: saving.load(tmp_path / "absent"))
