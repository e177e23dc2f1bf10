"""How a history calls what files hold: alike from every directory and worktree, and without anybody's home."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.border import git

if TYPE_CHECKING:
    from collections.abc import Sequence

_DIGITS = 8  # of the hash that stands for a directory outside
_GIVEN = re.compile(  # in the description of inputs
    r"(^tensors from |, by )(.+?\.py:[\w.]+)|(^photographs from )(.+?)(?=, (?:\d|by ))"
)


def tops() -> tuple[str, ...]:
    """Directories that paths are told from: those of all worktrees of the repository, or the one worked in."""
    listed = git.ask("worktree", "list", "--porcelain") or ""
    found = [line.removeprefix("worktree ") for line in listed.splitlines() if line.startswith("worktree ")]
    own = git.ask("rev-parse", "--show-toplevel")
    return tuple(map(os.path.realpath, (*found, own) if own else ["."]))


def split(spec: str) -> tuple[str, str, str]:
    """What stands before a path, the path, and the name behind it; the path is empty where there is none.

    In front of a colon it has a point or a separator: `torchvision:resnet50` names a package, whatever lies here.
    """
    form, colon, rest = spec.partition("compile:")
    if colon and not form:
        front, path, name = split(rest)
        return f"{colon}{front}", path, name
    path, colon, name = spec.rpartition(":")
    if colon and any(sign in path for sign in (".", "/", os.sep)) and _leads(path):
        return "", path, f"{colon}{name}"
    return ("", spec, "") if _leads(spec) else ("", "", spec)


def _leads(text: str) -> bool:
    path = Path(text).expanduser()
    return path.is_absolute() or path.exists()


def named(spec: str, places: Sequence[str]) -> str:
    """A specification with its path from the top of the repository; elsewhere the file's name and a hash of the path.

    Args:
        spec: What was given, as seen from the directory worked in.
        places: What `tops` says.
    """
    front, path, name = split(spec)
    if not path:
        return spec
    whole = Path(os.path.normpath(Path(path).expanduser().absolute()))
    whole = Path(os.path.realpath(whole.parent), whole.name)  # the file itself may be a link that git tracks
    above = max((each for each in places if whole.is_relative_to(each)), key=len, default=None)
    if above is not None:
        return f"{front}{whole.relative_to(above).as_posix()}{name}"
    digest = hashlib.sha256(str(whole).encode("utf-8", errors="surrogateescape")).hexdigest()
    return f"{front}{whole.name}@{digest[:_DIGITS]}{name}"


def described(inputs: str, places: Sequence[str]) -> str:
    """The description of inputs, with the functions and the directory they come from named in the same way."""
    return _GIVEN.sub(lambda found: f"{found[1] or found[3]}{named(found[2] or found[4], places)}", inputs)
