"""Where a finding stands in a repository, as continuous integration names it."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from verifier.records import Source

_ROOTS = ("GITHUB_WORKSPACE", "CI_PROJECT_DIR")  # where GitHub and GitLab have checked the repository out


class Place(NamedTuple):
    """A file of the repository or a package's path; no line where only the file is known."""

    file: str
    line: int | None = None
    function: str = ""

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        return f"{self.file}{line}{f' ({self.function})' if self.function else ''}"


REPOSITORY = Place(".")
"""In formats in which everything has to stand somewhere, the place of what has none."""


def of_source(source: Source | None) -> Place | None:
    """The place of a recorded line."""
    return None if source is None else Place(_in_repository(source.file), source.line, source.function)


def of_spec(spec: str) -> Place | None:
    """The file that a model's specification names (`old.py:load`); None where it names a package."""
    file = re.match(r"(.+\.py)(?::[^:/\\]*)?$", spec)
    return None if file is None else Place(_in_repository(_without_home(file[1])))


def without_home(spec: str) -> str:
    """A specification that names its file as seen from here, or by its name alone: nobody's home is in it."""
    place = of_spec(spec)
    if place is None:
        return spec
    return re.sub(r"^.+\.py(?=:|$)", lambda _: _without_home(spec[: spec.rindex(".py") + 3]), spec)


def _without_home(file: str) -> str:
    path = PureWindowsPath(file) if re.match(r"[A-Za-z]:[\\/]", file) else Path(file)
    if not path.is_absolute():
        return PurePath(path).as_posix()
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name


def _in_repository(file: str) -> str:
    """The path from the top of the checked out repository, where the command was run further down in it."""
    here = Path.cwd()
    for name in _ROOTS:
        root = os.environ.get(name)
        if root and here.is_relative_to(root) and (here / file).is_file():
            return (here.relative_to(root) / file).as_posix()
    return file
