"""Checkpoints: everything an unfinished training needs to go on exactly where it was."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from verifier.border.error_texts import first_said
from verifier.errors import OutputError, UsageError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION = 2


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint under a temporary name and move it, so that a kill at any time leaves a whole one.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            _lock(handle)
            torch.save({"version": _VERSION, **content}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(file)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        if isinstance(error, OSError | RuntimeError):
            raise OutputError(f"{file} cannot be written: {error}") from error
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


def read(file: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint of the same training. Nothing in the file is executed.

    Args:
        file: Where it is.
        request: What has to be the same for the training to go on exactly, by name; a value may be a dictionary.

    Raises:
        UsageError: It is damaged, or of another training; the message says in what they differ.
    """
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        version, then = content["version"], content["request"]
    except Exception as error:
        raise UsageError(
            f"the checkpoint {file} is damaged ({first_said(error)}). Delete it to train from the start."
        ) from error
    if version > _VERSION:
        raise UsageError(
            f"the checkpoint {file} was written by a newer version of this package; upgrade to go on."
        )
    if version < _VERSION:
        raise UsageError(
            f"the checkpoint {file} was written by an older version of this package, which did not keep all that an "
            "exact resume needs. Finish it with that version, or delete it to train from the start."
        )
    was, now = _settings(then), _settings(request)
    # What an older version did not know of is off where it is None.
    others = [name for name in {**now, **was} if was.get(name) != now.get(name)]
    if others:
        told = "; ".join(
            f"{name} was {_shown(was.get(name))}, now {_shown(now.get(name))}" for name in others[:3]
        )
        told += f"; and {len(others) - 3} more" if len(others) > 3 else ""
        raise UsageError(
            f"the checkpoint {file} is of another training: {told}. Ask for the same to go on, or give another --out."
        )
    return content


def _settings(request: Mapping[str, Any]) -> dict[str, Any]:
    """Every single setting by what it is called in a sentence."""
    found: dict[str, Any] = {}
    for name, value in request.items():
        if isinstance(value, dict):
            found |= {f"the {name}'s {key}": each for key, each in value.items()}
        else:
            found[name] = value
    return found


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
