"""What is said of an exception that somebody else's program raised: in one line, with the place it happened in."""

from __future__ import annotations

import functools
import itertools
import os
import re
import traceback
from pathlib import Path

from verifier.border.signals import check_unanswered

_MOST = 300  # characters

# What this package is made of and calls itself: an exception that comes out of these alone is its own.
_OWN = ("verifier", "reports")
_LIBRARIES = {"click", "greenlet", "jinja2", "llvmlite", "markupsafe", "msgspec", "numba", "numpy", "pandas"}
_LIBRARIES |= {"PIL", "rich", "safetensors", "scipy", "torch", "typer"}


def account(error: BaseException) -> str:
    """What went wrong and in which line of the user's program, in one line."""
    return f"{first_line(error)}{_line(error)}"


def first_line(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says, which may be a program of its own."""
    name = type(error).__name__
    try:
        said = first_said(error)
    except BaseException as failure:
        check_unanswered(failure)
        return f"{name}, which cannot even say why"
    text = f"{name}: {said}" if said else name
    return text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."


def sentence(text: str) -> str:
    """A text with one stop at its end, which may be a question's."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


# torch raises a plain RuntimeError where the CPU has no memory left.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or in the process."""
    return isinstance(error, MemoryError) or any(sign in first_line(error) for sign in _OUT_OF_MEMORY)


def first_said(error: BaseException) -> str:
    """The first line of what an exception says; empty where it says nothing.

    Lines that only say where in C++ it was raised come before it.
    """
    lines = str(error).strip().splitlines()
    return next(
        (line.strip() for line in lines if not _IN_CPP.fullmatch(line.strip())), next(iter(lines), "")
    )


_IN_CPP = re.compile(r"(Exception from|Check '.*' failed at) \S+:\d+:|")


def raised_by_program(error: BaseException) -> bool:
    """Whether the last frame that is no library's is a program's that this package called, and not this package's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        home = _home(frame.filename)
        if frame.name == "__torch_function__":  # every operator of a model that is watched goes through there
            continue
        if home in _OWN:
            return False
        if home != "" and home not in _LIBRARIES:
            return True
    return False


def raised_here(error: BaseException) -> bool:
    """Whether the very frame that raised is of this package."""
    return _home(traceback.extract_tb(error.__traceback__)[-1].filename) in _OWN


def _line(error: BaseException) -> str:
    """` (net.py, line 12)`: the innermost line that is neither an installed package's nor the verifier's."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        inside = f" ({Path(error.filename).name}, line {error.lineno})"
        return "" if f"{Path(error.filename).name}, line {error.lineno}" in str(error) else inside
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_users(frame.filename):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""


def is_users(filename: str) -> bool:
    """Whether a file is neither Python's, nor an installed package's, nor the verifier's."""
    return _home(filename) is None


@functools.cache
def _home(filename: str) -> str | None:
    """The installed package a file is of, the verifier among them; empty for Python's own, None for a user's."""
    if filename.startswith("<"):
        return ""
    path = Path(filename)
    if path.is_relative_to(_PACKAGE):
        return _OWN[0]
    if path.is_relative_to(_PACKAGE.with_name(_OWN[1])):
        return _OWN[1]
    for folder, inner in itertools.pairwise(path.parts):
        if folder in ("site-packages", "dist-packages"):
            return inner.removesuffix(".py")
    return "" if path.is_relative_to(_PYTHON) else None


_PACKAGE = Path(__file__).parents[1]
_PYTHON = Path(os.__file__).parent
