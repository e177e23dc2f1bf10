"""A comparison of initial values on disk: its record, and the page made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.initialisation.records import SCHEMA_VERSION, Initialisation
from verifier.storage.saving import read_file, save_beside, to_json

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

INITIALISATION, PAGE = "initialisation.json", "initialisation.html"


def save_initialisation(found: Initialisation, directory: str | PathLike[str]) -> tuple[str, ...]:
    """Write `initialisation.json`, then its page.

    Returns:
        A sentence for what could not be made of the first.

    Raises:
        OutputError: The directory cannot be written.
    """
    from reports import initialisation  # noqa: PLC0415 - templates are only needed here

    return save_beside(INITIALISATION, to_json(found), {PAGE: lambda: initialisation.page(found)}, directory)


def load_initialisation(file: Path) -> Initialisation:
    """Read a saved comparison.

    Raises:
        OutputError: There is none, it is damaged, or a newer version of this package wrote it.
    """
    return read_file(file, Initialisation, SCHEMA_VERSION)
