"""A command as it must be said in a worktree, so that it means there what it means here.

What git tracks is the worktree's, by its path from the directory worked in; all else that exists stays where it is,
by its absolute path.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_WRITTEN = ("--history", "--save-map")  # files that need not exist yet
_PLACED = (
    *("--baseline", "--candidate", "--images", "--input", "--candidate-input", "--candidate-preprocessing"),
    *("--weights", "--map", "--policy", "--baseline-path", "--candidate-path"),
)
"""Options whose values may be paths, with a colon and a name behind."""


def relocated(command: Sequence[str], top: Path, prefix: str, tracked: Collection[str]) -> list[str]:
    """The words of a command, for a worktree of the repository at `top`; this process works in its `prefix`."""
    found = []
    option = ""
    for word in command:
        name, equals, value = word.partition("=")
        if option:
            found.append(_value(option, word, top, prefix, tracked))
            option = ""
        elif equals and name.startswith("--"):
            found.append(f"{name}={_value(name, value, top, prefix, tracked)}")
        else:
            found.append(word)
            option = word if word in (*_WRITTEN, *_PLACED) else ""
    return found


def _value(option: str, value: str, top: Path, prefix: str, tracked: Collection[str]) -> str:
    if option in _WRITTEN:
        return value if value == "-" else str(Path(value).absolute())
    if option not in _PLACED:
        return value
    path, colon, name = value.rpartition(":")
    if not colon or not _is_path(path):
        path, colon, name = value, "", ""
    return f"{_path(path, top, prefix, tracked)}{colon}{name}" if _is_path(path) else value


def _is_path(text: str) -> bool:
    """Whether a text is meant as a path and leads somewhere: `samples` is a word, `./samples` a path."""
    return any(sign in text for sign in (".", "/", os.sep)) and Path(text).expanduser().exists()


def _path(text: str, top: Path, prefix: str, tracked: Collection[str]) -> str:
    full = os.path.normpath(Path(text).expanduser().absolute())
    inside = os.path.relpath(os.path.realpath(full), os.path.realpath(top)).replace(os.sep, "/")
    if inside in tracked or any(each.startswith(f"{inside}/") for each in tracked):
        return (
            text
            if not Path(text).is_absolute() and not text.startswith("~")
            else os.path.relpath(inside, prefix or ".")
        )
    return full
