"""A frame as a file: CSV, or Parquet where pyarrow is installed."""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING

from verifier.errors import CannotRunError, UsageError, installing
from verifier.storage.frames import inert
from verifier.storage.saving import save_text

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

SUFFIXES = (".csv", ".parquet")


def check_target(file: Path) -> None:
    """Try whether a frame can be written as such a file, before one is made.

    Raises:
        UsageError: Its name says neither format.
        CannotRunError: It is Parquet, and pyarrow is not installed.
    """
    if file.suffix not in SUFFIXES:
        raise UsageError(f"{file}: the name of a table ends in {' or '.join(SUFFIXES)}.")
    if file.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise CannotRunError(
            f"Parquet needs pyarrow, which is not installed: {installing('parquet')}. Or name a .csv file."
        )


def save_frame(frame: pd.DataFrame, file: Path) -> None:
    """Write a frame, whole or not at all. In CSV no text is a formula to a spreadsheet (`verifier.storage.frames`).

    Raises:
        OutputError: It cannot be written.
        UsageError: Its name says neither format.
        CannotRunError: It is Parquet, and pyarrow is not installed.
    """
    check_target(file)
    if file.suffix == ".csv":
        save_text(frame.map(inert).to_csv(index=False, lineterminator="\r\n"), file)
        return
    content = io.BytesIO()
    frame.to_parquet(content, engine="pyarrow", index=False)
    save_text(content.getvalue(), file)
