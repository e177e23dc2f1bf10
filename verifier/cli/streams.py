"""The command's own stdout and stderr: what is loaded later can neither close nor replace them.

A reader who leaves (`| head`) and a disk that is full change no exit code, for this package's words and for what a
model prints alike.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Patient(io.FileIO):
    """A file whose writes never fail; what could not be written is lost, with the reason in `lost`."""

    lost: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or drop."""
        try:
            return super().write(data)
        except OSError as error:
            self.lost = error
            return memoryview(data).nbytes


_out: tuple[TextIO, _Patient] | None = None
_err: tuple[TextIO, _Patient] | None = None


def claim() -> None:
    """Keep stdout and stderr as they are now for what this command says, and let what programs print be patient."""
    global _out, _err
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:  # closed: the next file to be opened would be taken for stdout
            os.open(os.devnull, os.O_RDWR)
    _out, _err = _stream(os.dup(1), sys.stdout), _stream(os.dup(2), sys.stderr)
    sys.stdout, sys.stderr = _stream(1, sys.stdout)[0], _stream(2, sys.stderr)[0]


def _stream(handle: int, like: TextIO | None) -> tuple[TextIO, _Patient]:
    raw = _Patient(handle, "wb", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding if like is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=handle == 2 or raw.isatty(),
    )
    return text, raw


def out() -> TextIO:
    """Where results go."""
    return sys.stdout if _out is None else _out[0]


def err() -> TextIO:
    """Where everything else goes."""
    return sys.stderr if _err is None else _err[0]


def say(text: str) -> None:
    """Write to stdout, after what programs printed there before."""
    flush()
    out().write(text)
    out().flush()
    if _out is not None and _out[1].lost is not None:
        lost, _out[1].lost = _out[1].lost, None
        if lost.errno != errno.EPIPE:
            complain(f"what belongs here could not be written to stdout: {lost.strerror}.")


def complain(message: str) -> None:
    """Write a message to stderr."""
    flush()
    err().write(f"verifier: {message}\n")
    err().flush()


def flush() -> None:
    """Write what programs have printed; whatever they put in the place of the streams must not fail here."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):  # a Ctrl-C that is lost here comes again
            stream.flush()
