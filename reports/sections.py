"""Titled lists of rows as text, for pipes, logs and terminals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Section:
    """A titled list of rows; one cell a row is a list of lines."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    header: tuple[str, ...] = ()


def text(headline: str, sections: Iterable[Section]) -> str:
    """A headline and sections with columns aligned; it ends with a line break."""
    lines = [headline]
    for section in sections:
        rows = ([section.header] if section.header else []) + list(section.rows)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["", section.title]
        lines += [
            ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
            for row in rows
        ]
    return "\n".join(lines) + "\n"
