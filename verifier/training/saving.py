"""What training leaves on disk: a record as JSON first, then what is made of it."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from verifier.storage.frames import inert
from verifier.storage.saving import read_file, save_beside, to_json
from verifier.training.records import SCHEMA_VERSION, Experiment, TrainingParity

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    from verifier.training.records import TensorRow

PARITY = "training-parity.json"
PARITY_PAGE = "training-parity.html"
TENSORS = "tensors.csv"
EXPERIMENT = "training.json"
PAGE = "training.html"

COLUMNS = (
    "phase",
    "what",
    "tensor",
    "candidate",
    "shape",
    "culprit",
    "first_step",
    "largest_total",
    "largest_intrinsic",
    "allowed",
    "rule",
)


def save_parity(found: TrainingParity, directory: str | PathLike[str]) -> tuple[str, ...]:
    """Write `training-parity.json`, with every error of every batch, then `tensors.csv`, a row a tensor, and a page.

    Returns:
        A sentence for what could not be made of the first.

    Raises:
        OutputError: The directory cannot be written.
    """
    from reports.parity import page  # noqa: PLC0415 - templates are only needed here

    made = {TENSORS: lambda: to_csv(found.rows), PARITY_PAGE: lambda: page(found)}
    return save_beside(PARITY, to_json(found), made, directory)


def save_experiment(found: Experiment, directory: str | PathLike[str]) -> tuple[str, ...]:
    """Write `training.json`, then the page made of it.

    Returns:
        A sentence for what could not be made of the first.

    Raises:
        OutputError: The directory cannot be written.
    """
    from reports.training import render  # noqa: PLC0415 - templates are only needed here

    return save_beside(EXPERIMENT, to_json(found), {PAGE: lambda: render(found)}, directory)


def checkpoint_file(directory: Path, name: str, role: str) -> Path:
    """Where the checkpoint of a network goes."""
    return directory / f"{name}-{role}.checkpoint.pt"


def unfinished(directory: Path) -> list[Path]:
    """The checkpoints in a directory."""
    return sorted(directory.glob("*.checkpoint.pt"))


def load_experiment(file: Path) -> Experiment:
    """Read a saved experiment.

    Raises:
        OutputError: There is none, it is damaged, or a newer version of this package wrote it.
    """
    return read_file(file, Experiment, SCHEMA_VERSION)


def load_parity(file: Path) -> TrainingParity:
    """Read a saved comparison of two trainings; raises as above."""
    return read_file(file, TrainingParity, SCHEMA_VERSION)


def to_csv(rows: tuple[TensorRow, ...]) -> str:
    """The table as RFC 4180 has it, in the order in which things happen; no text is a formula (`frames.inert`)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        cells = (
            str(row.phase),
            row.what,
            row.tensor,
            row.candidate,
            "x".join(map(str, row.shape)),
            row.culprit,
            row.first_step,
            largest(row.total),
            largest(row.intrinsic),
            row.allowed.limit,
            row.allowed.rule,
        )
        writer.writerow([inert(cell) for cell in cells])
    return text.getvalue()


def largest(errors: tuple[float | None, ...]) -> float | None:
    """The largest error of those that were measured; None where none was."""
    return max((error for error in errors if error is not None), default=None)
