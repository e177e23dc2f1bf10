"""Results on disk: `result.json` first, then what is rendered from it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from verifier.border.error_texts import first_line
from verifier.errors import OutputError
from verifier.records import SCHEMA_VERSION, Record, Result, to_builtins
from verifier.records.reading import NewerError, UnknownError, read
from verifier.records.soundness import contradictions
from verifier.storage.folder import exchange, locked, tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from os import PathLike

    import pandas as pd

RESULT = "result.json"
LAYERS = "layers.csv"
REPORT = "report.html"
SUMMARY = "summary.md"
PLOT = "error-over-depth.png"
COMPARISON = "comparison.html"
RENDERED = (REPORT, SUMMARY, PLOT)  # what is made of a saved result
_ROOM = 1 << 20  # bytes: as much as a result takes, and its pages
WRITTEN = (RESULT, LAYERS, *RENDERED)  # all that `save` writes


R = TypeVar("R", bound=Record)


class Verification(Result, frozen=True, kw_only=True):
    """A result that can save itself."""

    def to_frame(self) -> pd.DataFrame:
        """All pair results of all cells as a table, one row a pair and cell (see `verifier.storage.frames`)."""
        from verifier.storage.frames import to_frame  # noqa: PLC0415 - pandas takes a second to import

        return to_frame(self)

    def save(self, directory: str | PathLike[str]) -> None:
        """Write `result.json` into `directory`, then `layers.csv`, `report.html` and `summary.md`.

        What of these cannot be made is left out, with a RuntimeWarning: the result is saved.

        Raises:
            OutputError: The directory cannot be written.
        """
        for lost in save(self, directory):
            warnings.warn(lost, RuntimeWarning, stacklevel=2)


def save(verification: Result, directory: str | PathLike[str]) -> tuple[str, ...]:
    """Write the result into `directory`, made if need be, then the table of layers, the report and the summary.

    Returns:
        A sentence for each file that could not be made; the result is saved all the same.

    Raises:
        OutputError: The directory cannot be written.
    """
    return save_rendered(verification, directory, save_result(verification, directory))


def save_result(verification: Result, directory: str | PathLike[str]) -> bytes:
    """Write `result.json` in the place of an earlier result, of which no other file is left.

    An interruption, a full disk or a kill leaves the earlier one, whole, or the new one (see
    `verifier.storage.folder`).

    Returns:
        What the file holds.

    Raises:
        OutputError: The directory cannot be written.
    """
    content = _plain(to_json(verification))
    _write({RESULT: content}, Path(directory), WRITTEN)
    return content


def save_rendered(verification: Result, directory: str | PathLike[str], saved: bytes) -> tuple[str, ...]:
    """Write what is made of a result beside it: all at once, and only if `saved` is what its file holds still.

    Returns:
        A sentence for each file that could not be made or written.
    """
    from verifier.storage.frames import to_csv  # noqa: PLC0415 - only needed here

    directory = Path(directory)
    table, failed = made({LAYERS: lambda: to_csv(verification)})
    pages, lost = rendered(verification)
    try:
        with _own_errors(directory), locked(directory):
            if (table or pages) and (directory / RESULT).read_bytes() == saved:
                _exchange({**table, **pages}, directory, (LAYERS, *RENDERED))
    except OutputError as error:
        return (*failed, *lost, f"the result is saved, but the pages beside it are not: {error}")
    return (*failed, *lost)


def render_again(path: str | PathLike[str]) -> tuple[Verification, tuple[str, ...]]:
    """Read a saved result as `load` does, and write report and summary beside it anew; no other comes in between.

    Returns:
        The result, and a sentence for each file that could not be made.

    Raises:
        OutputError: There is no result that can be read, or the directory cannot be written.
    """
    path = Path(path)
    directory = path if path.is_dir() else path.parent
    if not directory.is_dir():
        return load(path), ()  # which says so
    check_writable(directory)
    with _own_errors(directory), locked(directory):
        verification = _read(path)
        pages, lost = rendered(verification)
        if pages:
            _exchange(pages, directory, [name for name in RENDERED if name in pages or not lost])
    return verification, lost


def rendered(verification: Result) -> tuple[dict[str, str | bytes], tuple[str, ...]]:
    """What people read, by file name: the page, the summary and, where there is something to draw, its plot.

    And a sentence for each that could not be made: none keeps the others from it.
    """
    from reports import html, markdown, plot  # noqa: PLC0415 - templates are only needed here

    picture, lost = made({PLOT: lambda: plot.png(verification)})
    drawn = PLOT if PLOT in picture else None
    pages, more = made(
        {
            REPORT: lambda: html.render(verification),
            SUMMARY: lambda: markdown.summary(verification, plot=drawn),
        }
    )
    return {**pages, **picture}, (*lost, *more)


def made(
    makers: Mapping[str, Callable[[], str | bytes | None]],
) -> tuple[dict[str, str | bytes], tuple[str, ...]]:
    """What functions make, by file name, and a sentence for each that fails; None makes no file."""
    found: dict[str, str | bytes] = {}
    lost = []
    for name, make in makers.items():
        try:
            content = make()
        except Exception as error:
            lost.append(f"{name} cannot be made of the saved result: {first_line(error)}.")
        else:
            found |= {} if content is None else {name: content}
    return found, tuple(lost)


def save_comparison(
    before: Result,
    after: Result,
    directory: str | PathLike[str],
    origins: tuple[Path | None, Path | None] = (None, None),
) -> None:
    """Write the page that puts two results side by side, whole or not at all.

    Of the results' `origins`, the folders or files that they were read from, it leads to the reports that are there.

    Raises:
        OutputError: The directory cannot be written.
    """
    from reports import html  # noqa: PLC0415 - templates are only needed here

    target = Path(directory)
    earlier, later = (_report_of(each, target) for each in origins)
    _write({COMPARISON: html.render_comparison(before, after, (earlier, later))}, target)


def _report_of(origin: Path | None, target: Path) -> str:
    """The address of a saved result's page as seen from a folder; empty where there is none."""
    if origin is None:
        return ""
    page = (origin if origin.is_dir() else origin.parent) / REPORT
    if not page.is_file():
        return ""
    try:
        way = os.path.relpath(os.path.realpath(page), os.path.realpath(target))
    except ValueError:  # on another drive
        return ""
    return quote(way.replace(os.sep, "/"))


def save_beside(
    main: str,
    text: str,
    makers: Mapping[str, Callable[[], str | bytes | None]],
    directory: str | PathLike[str],
) -> tuple[str, ...]:
    """Write a file first, in the place of an earlier one and all that was made of it, then what is made of it now.

    Returns:
        A sentence for each file that could not be made or written.

    Raises:
        OutputError: The first cannot be written.
    """
    family = (main, *makers)
    _write({main: text}, Path(directory), family)
    pages, lost = made(makers)
    try:
        if pages:
            _write(pages, Path(directory))
    except OutputError as error:
        return (*lost, f"{main} is saved, but what is made of it is not: {error}")
    return lost


def save_text(text: str | bytes, file: str | PathLike[str]) -> None:
    """Write one file, whole or not at all; its directory is created if need be.

    Raises:
        OutputError: It cannot be written.
    """
    check_file(file)
    _write({Path(file).name: text}, Path(file).parent)


def save_files(
    contents: Mapping[str, str | bytes], directory: str | PathLike[str], family: Sequence[str] = ()
) -> None:
    """Write files, all or none, and remove what else there is of `family`; the directory is created if need be.

    Raises:
        OutputError: They cannot be written.
    """
    _write(contents, Path(directory), family)


def check_file(file: str | PathLike[str]) -> None:
    """Try whether a file can be written, as `check_writable` does for a directory.

    Raises:
        OutputError: It cannot.
    """
    if Path(file).is_dir():
        raise OutputError(f"{file} is a directory; give the name of a file")
    check_writable(Path(file).parent)


def check_writable(*directories: str | PathLike[str]) -> None:
    """Try whether results can go to directories, so that a long run does not end in an error known before.

    They are not made: a run that fails leaves nothing behind.

    Raises:
        OutputError: One cannot be created or written, or its disk is full.
    """
    for directory in dict.fromkeys(map(Path, directories)):
        _check_writable(directory)


def _check_writable(directory: Path) -> None:
    with _own_errors(directory):
        for existing in (directory, *directory.absolute().parents):
            if existing.exists():
                break
            if existing.is_symlink():
                raise OutputError(
                    f"{existing} is a symbolic link to {existing.readlink()}, which does not exist. Make that "
                    "directory, or give another --out"
                )
        if not existing.is_dir():
            below = f"{directory} cannot be made: " if existing != directory.absolute() else ""
            raise OutputError(f"{below}{existing} is a file, and a directory is needed")
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(bytes(_ROOM))
        with contextlib.suppress(FileNotFoundError):  # a path that is too long is told here
            (directory / ".saving-12345678" / "before" / PLOT).lstat()
    for name in WRITTEN:
        if (directory / name).is_dir():
            raise OutputError(f"{directory / name} is a directory where the file of this name should go")


def load(path: str | PathLike[str]) -> Verification:
    """Read a saved result, from its directory or from the file itself.

    Raises:
        OutputError: There is none, it is damaged or contradicts itself, or a newer version of this package wrote it.
    """
    path = Path(path)
    tidy(path if path.is_dir() else path.parent)
    return _read(path)


def _read(path: Path) -> Verification:
    file = path / RESULT if path.is_dir() else path
    try:
        found = read_file(file, Verification, SCHEMA_VERSION)
    except OutputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise OutputError(f"there is no saved result at {file}") from error
        if isinstance(error.__cause__, UnknownError):
            raise OutputError(f"{file} is not a saved result: {error.__cause__}") from error
        raise
    wrong = next(contradictions(found), None)
    if wrong is not None:
        raise OutputError(f"{file} is damaged: {wrong}")
    return found


def read_file(file: Path, kind: type[R], version: int) -> R:
    """Read any saved record.

    Raises:
        OutputError: There is none, it is damaged, or a newer version of this package wrote it.
    """
    try:
        return read(file.read_text(encoding="utf-8"), kind, version)
    except OSError as error:
        raise OutputError(f"{file} cannot be read: {error.strerror}") from error
    except NewerError as error:
        raise OutputError(
            f"{file} was written by a newer version of this package ({error}); upgrade to read it"
        ) from error
    except ValueError as error:  # what is no UTF-8 is one, too
        raise OutputError(f"{file} is damaged: {error}") from error


def to_json(record: Record) -> str:
    """Strict JSON with one line a pair: short enough to keep, and two results can be compared by line."""
    return _laid_out(to_builtins(record), "") + "\n"


def _laid_out(value: Any, indent: str, depth: int = 0) -> str:
    if depth == 4 or not isinstance(value, dict | list) or not _holds_containers(value):
        return json.dumps(value, allow_nan=False)
    inner = f"{indent}  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_laid_out(item, inner, depth + 1)}" for key, item in value.items()]
    else:
        items = [_laid_out(item, inner, depth + 1) for item in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{last}"


def _holds_containers(value: dict[str, Any] | list[Any]) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return any(isinstance(item, dict | list) for item in items)


def _write(contents: Mapping[str, str | bytes], directory: Path, family: Sequence[str] = ()) -> None:
    """Write files, the last of which is what the others are made of, and remove what else there is of `family`."""
    check_writable(directory)
    with _own_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory):
            _exchange(contents, directory, family)


def _exchange(contents: Mapping[str, str | bytes], directory: Path, family: Sequence[str]) -> None:
    plain = {name: _plain(content) for name, content in contents.items()}
    exchange(plain, directory, [name for name in family if name not in contents])


def _plain(content: str | bytes) -> bytes:
    # What cannot be encoded (a command line that was no UTF-8) is spelt out rather than lost.
    return content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content


@contextlib.contextmanager
def _own_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{directory} cannot be written: {error.strerror or error}") from error
