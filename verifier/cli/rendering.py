"""Which records besides results `report` renders again, by the file that is in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.cli import showing
from verifier.errors import UsageError
from verifier.storage.saving import RESULT

if TYPE_CHECKING:
    from pathlib import Path


def _experiment(file: Path) -> tuple[str, ...]:
    from verifier.training.saving import load_experiment, save_experiment

    found = load_experiment(file)
    lost = save_experiment(found, file.parent)
    showing.show_experiment(found, file.parent)
    return lost


def _parity(file: Path) -> tuple[str, ...]:
    from verifier.training.saving import load_parity, save_parity

    found = load_parity(file)
    lost = save_parity(found, file.parent)
    showing.show_parity(found, file.parent)
    return lost


def _initialisation(file: Path) -> tuple[str, ...]:
    from verifier.initialisation.saving import PAGE, load_initialisation, save_initialisation

    found = load_initialisation(file)
    lost = save_initialisation(found, file.parent)
    showing.show_initialisation(found, file.parent / PAGE)
    return lost


def _preparation(file: Path) -> tuple[str, ...]:
    from verifier.storage.pages import PREPARATION_PAGE, load_preparation, save_preparation

    found = load_preparation(file)
    lost = save_preparation(found, file.parent)
    showing.show_preparation(found, file.parent / PREPARATION_PAGE)
    return lost


def _walk(file: Path) -> tuple[str, ...]:
    from verifier.storage.pages import load_walk, save_walk

    found = load_walk(file)
    lost = save_walk(found, file.parent)
    showing.show_walk(found, total=True)
    return lost


def _check(file: Path) -> tuple[str, ...]:
    from verifier.storage.pages import load_check, save_check

    found = load_check(file)
    lost = save_check(found, file.parent)
    showing.show_check(found, file.parent)
    return lost


KINDS = {
    "check.json": _check,
    "index.json": _walk,
    "initialisation.json": _initialisation,
    "preprocessing.json": _preparation,
    "training-parity.json": _parity,
    "training.json": _experiment,
}
"""Each renders what was saved in a file again, beside it, shows it, and returns what could not be made."""


_CALLED = {
    "check.json": "a check of several models, each in a folder of its own",
    "index.json": "several networks, each in a folder of its own",
    "initialisation.json": "a comparison of initial values",
    "preprocessing.json": "a comparison of preprocessings",
    "training-parity.json": "a comparison of two trainings",
    "training.json": "a training",
}


def check_result(path: Path, purpose: str) -> None:
    """See that a path is not that of another record; `purpose` says what only results serve for.

    Raises:
        UsageError: It is.
    """
    if path.is_dir():
        there = [] if (path / RESULT).exists() else [name for name in KINDS if (path / name).is_file()]
    else:
        there = [path.name] if path.name in KINDS and path.is_file() else []
    if there:
        raise UsageError(f"{path} holds {' and '.join(_CALLED[name] for name in there)}; {purpose}.")


def other(path: Path) -> Path | None:
    """The record at `path`, a file or a folder, that is no result; None where there is a result, or nothing known.

    Raises:
        UsageError: The folder has several, and no result.
    """
    if not path.is_dir():
        return path if path.name in KINDS and path.is_file() else None
    there = [name for name in KINDS if (path / name).is_file()]
    if not there or (path / RESULT).exists():
        return None
    if len(there) > 1:
        raise UsageError(f"{path} holds {' and '.join(there)}: name the one to render.")
    return path / there[0]
