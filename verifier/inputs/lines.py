"""Files of numbers, a sample a line or row: JSON lines and Parquet, of which little is held."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from verifier.errors import DataError, installing
from verifier.inputs.datasets import Unread

if TYPE_CHECKING:
    from pathlib import Path


class Lines:
    """JSON lines: of each a list of numbers, or an object of lists and numbers by the names of arguments.

    Strings under `id` or `name` say what a sample is called.
    """

    slow = False
    identity = ""

    def __init__(self, path: Path) -> None:
        """Find where each line begins, which is all that is held.

        Raises:
            DataError: There is no such file.
        """
        self._path = path
        self._begins = array("q")
        try:
            with path.open("rb") as stream:
                place = 0
                for line in stream:
                    if line.strip():
                        self._begins.append(place)
                    place += len(line)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error

    def __len__(self) -> int:
        """How many there are."""
        return len(self._begins)

    def __getitem__(self, number: int) -> Any:
        """The tensors of one line, or why there are none."""
        try:
            return as_tensors(self._row(number))
        except ValueError as error:
            return Unread(str(error))

    def name(self, number: int) -> str:
        """What the line says it is called, else its number."""
        try:
            return _called(self._row(number)) or f"{self._path.name}, line {number + 1}"
        except ValueError:
            return f"{self._path.name}, line {number + 1}"

    def _row(self, number: int) -> Any:
        with self._path.open("rb") as stream:
            stream.seek(self._begins[number])
            return json.loads(stream.readline())


@dataclass
class Rows:
    """The rows of a Parquet file, of which one group is held."""

    path: Path
    firsts: list[int] = field(init=False)
    slow: bool = field(default=False, init=False)
    identity: str = field(default="", init=False)
    _held: tuple[int, Any] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Read how many rows each group has."""
        self.firsts = [0]
        file = self._file()
        for group in range(file.num_row_groups):
            self.firsts.append(self.firsts[-1] + file.metadata.row_group(group).num_rows)

    def __len__(self) -> int:
        """How many there are."""
        return self.firsts[-1]

    def __getitem__(self, number: int) -> Any:
        """The tensors of one row, or why there are none."""
        try:
            return as_tensors(self._row(number))
        except ValueError as error:
            return Unread(str(error))

    def name(self, number: int) -> str:
        """What the row says it is called, else its number."""
        return _called(self._row(number)) or f"{self.path.name}, row {number + 1}"

    def __getstate__(self) -> dict[str, Any]:
        """What a worker is given: nothing that is held."""
        return {**self.__dict__, "_held": None}

    def _row(self, number: int) -> Any:
        group = next(k for k, first in enumerate(self.firsts[1:]) if number < first)
        if self._held is None or self._held[0] != group:
            self._held = group, self._file().read_row_group(group)
        return self._held[1].slice(number - self.firsts[group], 1).to_pylist()[0]

    def _file(self) -> Any:
        try:
            import pyarrow.parquet  # noqa: PLC0415 - only this format needs it
        except ImportError as error:
            raise DataError(
                f"{self.path} is Parquet, which pyarrow reads: {installing('parquet')}"
            ) from error
        try:
            return pyarrow.parquet.ParquetFile(self.path)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read as Parquet: {error}") from error


_NAMES = ("id", "name")


def as_tensors(row: Any) -> Any:
    """Lists of numbers as tensors: int64 where all are whole, else float32.

    Raises:
        ValueError: There is something else in it.
    """
    if not isinstance(row, dict):
        return _tensor("the sample", row)
    return {
        name: _tensor(name, value)
        for name, value in row.items()
        if not (name in _NAMES and isinstance(value, str))
    }


def _tensor(name: str, value: Any) -> torch.Tensor:
    try:
        tensor = torch.tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} holds no numbers that make a tensor") from error
    return tensor if tensor.dtype in (torch.int64, torch.bool) else tensor.to(torch.float32)


def _called(row: Any) -> str:
    if not isinstance(row, dict):
        return ""
    return next((str(row[name]) for name in _NAMES if isinstance(row.get(name), str)), "")
