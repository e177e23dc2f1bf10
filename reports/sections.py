"""Titled lists of rows as text, for pipes, logs and terminals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


_LONG, _FEW = 40, 3  # rows, columns


@dataclass(frozen=True, slots=True)
class Section:
    """A titled list of rows; one cell a row is a list of lines.

    `folded` is what a page says of it while it is folded; empty where it is open. The first cell of a row of such a
    list names the row.
    """

    title: str
    rows: tuple[tuple[str, ...], ...]
    header: tuple[str, ...] = ()
    folded: str = ""

    @property
    def tabular(self) -> bool:
        """Whether its rows have columns."""
        return bool(self.header) or any(len(row) > 1 for row in self.rows)

    @property
    def narrow(self) -> bool:
        """Whether its columns are few enough to stand side by side on a phone."""
        return all(len(row) <= _FEW for row in self.rows)

    @property
    def long(self) -> bool:
        """Whether it is scrolled on a page rather than shown as a whole."""
        return len(self.rows) > _LONG


def text(headline: str, sections: Iterable[Section]) -> str:
    """A headline and sections with columns aligned; it ends with a line break."""
    lines = [headline]
    for section in sections:
        rows = ([section.header] if section.header else []) + list(section.rows)
        lines += ["", section.title, *(f"  {line}".rstrip() for line in aligned(rows))]
    return "\n".join(lines) + "\n"


def lines(texts: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Rows of one cell."""
    return tuple((each,) for each in texts)


def cut(rows: Sequence[tuple[str, ...]], most: int, form: str = ",") -> tuple[tuple[str, ...], ...]:
    """The first rows, and how many more there are."""
    more = len(rows) - most
    if more <= 0:
        return tuple(rows)
    return (*rows[:most], (f"and {more:{form}} more", *[""] * (len(rows[0]) - 1)))


def aligned(rows: Sequence[tuple[str, ...]], left: Collection[int] | None = None) -> list[str]:
    """Rows of equally many cells as lines; columns that are not in `left` are aligned right, if there is any."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if left is None or k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
