"""Records besides results on disk: a file of strict JSON, and the page made of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from verifier.errors import OutputError
from verifier.records import (
    CHECK_VERSION,
    PREPARATION_VERSION,
    WALK_VERSION,
    Check,
    CheckedLater,
    CheckedModel,
    PreparationAlone,
    Walk,
)
from verifier.storage.saving import read_file, save_beside, to_json

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

CHECK, CHECK_PAGE = "check.json", "check.html"
WALK, WALK_PAGE = "index.json", "index.html"
PREPARATION, PREPARATION_PAGE = "preprocessing.json", "preprocessing.html"


def save_check(found: Check, directory: str | PathLike[str]) -> tuple[str, ...]:
    """Write how a check ended, then its page.

    Returns:
        A sentence for each file that could not be made or written.

    Raises:
        OutputError: The first cannot be written.
    """
    from reports import html  # noqa: PLC0415 - templates are only needed here

    return save_beside(CHECK, to_json(found), {CHECK_PAGE: lambda: html.render_check(found)}, directory)


def mark_later(found: Check, directory: Path) -> tuple[str, ...]:
    """Mark in the page of an earlier check which of its models were checked alone since: their reports are of that.

    Without a page there is nothing to mark; models that it does not have are left out.

    Returns:
        A sentence for what could not be marked.
    """
    if not (directory / CHECK).exists():
        return ()
    again = {each.name: each for each in found.models}
    try:
        before = load_check(directory / CHECK)
        models = tuple(
            _marked(each, again[each.name], found) if each.name in again else each for each in before.models
        )
        return save_check(msgspec.structs.replace(before, models=models), directory)
    except OutputError as error:
        return (f"{CHECK_PAGE} is of an earlier check, and cannot be marked so: {error}",)


def _marked(before: CheckedModel, now: CheckedModel, found: Check) -> CheckedModel:
    later = CheckedLater(
        policy=found.policy,
        verdict=now.verdict,
        code=now.code,
        said=now.said,
        created=found.created,
        accepted=now.accepted,
    )
    return msgspec.structs.replace(before, report=now.report, later=later)


def save_walk(found: Walk, directory: str | PathLike[str]) -> tuple[str, ...]:
    """Write how several networks ended so far, then the page that leads to theirs; returns and raises as above."""
    from reports import walk  # noqa: PLC0415

    return save_beside(WALK, to_json(found), {WALK_PAGE: lambda: walk.render(found)}, directory)


def clear_walk(directory: Path) -> None:
    """Remove the index of an earlier walk, whose networks are about to be verified anew."""
    for name in (WALK, WALK_PAGE):
        with contextlib.suppress(OSError):
            (directory / name).unlink(missing_ok=True)


def save_preparation(found: PreparationAlone, directory: str | PathLike[str]) -> tuple[str, ...]:
    """Write how photographs are prepared, then its page; returns and raises as above."""
    from reports import preprocessing  # noqa: PLC0415

    pages = {PREPARATION_PAGE: lambda: preprocessing.page(found)}
    return save_beside(PREPARATION, to_json(found), pages, directory)


def load_check(file: Path) -> Check:
    """Read how a check ended.

    Raises:
        OutputError: There is none, it is damaged, or a newer version of this package wrote it.
    """
    return read_file(file, Check, CHECK_VERSION)


def load_walk(file: Path) -> Walk:
    """Read how several networks ended; raises as above."""
    return read_file(file, Walk, WALK_VERSION)


def load_preparation(file: Path) -> PreparationAlone:
    """Read how photographs are prepared; raises as above."""
    return read_file(file, PreparationAlone, PREPARATION_VERSION)
