"""Files that are written whole: whatever ends the process, a name stands for the old or all of the new."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from verifier.border.error_texts import first_line
from verifier.errors import OutputError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable


def write(file: Path, put: Callable[[IO[bytes]], object]) -> None:
    """Let `put` write a file under a temporary name, then move it.

    Raises:
        OutputError: It cannot be written.
    """
    made = ""
    try:
        handle, made = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
        with os.fdopen(handle, "wb") as stream:
            _lock(handle)
            put(stream)
            stream.flush()
            os.fsync(stream.fileno())
        Path(made).chmod(0o666 & ~_umask())
        Path(made).replace(file)
    except BaseException as error:
        if made:
            with contextlib.suppress(OSError):
                Path(made).unlink()
        if isinstance(error, OSError | RuntimeError):  # torch raises these of a full disk
            why = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
            raise OutputError(f"{file} cannot be written: {why}.") from error
        raise


def sweep(file: Path) -> None:
    """Remove what a kill left behind of writing `file`, but nothing that another process is writing now."""
    # Exactly what `write` makes: tempfile's names have eight letters, digits or underscores.
    made = re.compile(re.escape(f".{file.name}-") + "[a-z0-9_]{8}")
    with contextlib.suppress(OSError):  # no such directory, or what is no longer there: nothing to sweep
        for path in file.parent.iterdir():
            if made.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                with contextlib.suppress(OSError), path.open("r+b") as stream:
                    if _lock(stream.fileno()):
                        path.unlink()


def _lock(handle: int) -> bool:
    """Claim an open file until it is closed or the process ends, also by a kill. False where it is not to be had."""
    if sys.platform == "win32":
        return True  # an open file cannot be removed there
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody else has it, or this file system has no locks
        return False
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
