"""What becomes of an earlier result while another is on its way, and if that never comes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.border import heartbeat
from verifier.border.signals import answer_in, is_closing
from verifier.errors import OutputError, UsageError
from verifier.storage.folder import Aside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike


class SetAside(str):
    """The note on an error that says where the earlier result is now."""

    __slots__ = ()


@contextlib.contextmanager
def awaiting(directory: str | PathLike[str] | None, names: Sequence[str]) -> Iterator[None]:
    """Set an earlier result aside while the next one is made and saved inside.

    Once that is done the earlier one is dropped, as replaced. It is put back after an interruption, and where the
    command was wrong and nothing was verified (a UsageError). Where the verification died, of a program that raised,
    of a device, of a disk, it stays aside: it is not the result of what was verified last. The error has a note that
    says where it is (`note_of`). After a kill it stays aside, too.

    Args:
        directory: Where results go; need not exist. None where none are written.
        names: The files of a result, the one that the others are made of first.

    Raises:
        OutputError: The earlier result cannot be moved.
    """
    if directory is None:
        yield
        return
    aside = Aside(Path(directory).absolute(), names)
    _pending.append(aside)
    try:
        with _translated(directory):
            folder = aside.move()
            heartbeat.aside("" if folder is None else str(Path(directory) / folder.name))
        yield
    except BaseException as error:
        if aside.folder is not None and _is_put_back(error):
            with _translated(directory):
                aside.put_back()
            heartbeat.aside("")
        elif aside.folder is not None:
            told = Path(directory) / aside.folder.name
            error.add_note(SetAside(f"An earlier result was set aside in {told}."))
            aside.folder = None
        raise
    aside.drop()
    _pending.remove(aside)
    heartbeat.aside("")


_pending: list[Aside] = []  # of this process: one that was put back or dropped has no folder any more


def settle() -> None:
    """After an interruption, all else being unwound: put back what it kept `awaiting` from putting back."""
    for aside in _pending:
        with contextlib.suppress(OSError, OutputError):
            aside.put_back()


def note_of(error: BaseException) -> str:
    """The sentence that says where the earlier result is, if an error left one aside; else nothing."""
    return next((note for note in getattr(error, "__notes__", ()) if isinstance(note, SetAside)), "")


def _is_put_back(error: BaseException) -> bool:
    if answer_in(error) is not None or is_closing(error):
        return True
    return isinstance(error, UsageError) and not isinstance(error, OutputError) and not error.of_program


@contextlib.contextmanager
def _translated(directory: str | PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{directory} cannot be written: {error.strerror or error}") from error
