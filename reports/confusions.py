"""Confusion matrices as tables: one network's, or those of two beside each other with what the second has more of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MINUS = "\N{MINUS SIGN}"
_SHORT = 2  # characters of a name that a column is wide enough for

Counts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Count:
    """One cell; `share` (0 to 10) shades it, `right` says that more of it is better."""

    text: str
    share: int
    right: bool


@dataclass(frozen=True, slots=True)
class Confusion:
    """A confusion matrix, or the difference of two: a row a true class, a column a called one."""

    title: str
    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Count, ...]], ...]
    difference: bool = False

    @property
    def sideways(self) -> bool:
        """Whether the names of its columns are too long to stand beside one another."""
        return any(len(name) > _SHORT for name in self.classes)


def confusion(title: str, classes: tuple[str, ...], counts: Counts) -> Confusion:
    """A network's matrix, shaded by the share of each true class."""

    def cell(true: int, called: int, count: int) -> Count:
        total = sum(counts[true]) or 1
        return Count(str(count) if count else "", round(10 * count / total), true == called)

    return Confusion(title, classes, _rows(classes, counts, cell))


def compared(
    names: tuple[str, str], classes: tuple[str, ...], counts: tuple[Counts, Counts]
) -> tuple[Confusion, Confusion, Confusion]:
    """Two networks' matrices, and the second's less the first's: what got better is shaded as right."""
    first, second = counts
    less = tuple(tuple(b - a for a, b in zip(*rows, strict=True)) for rows in zip(first, second, strict=True))
    most = max((abs(number) for row in less for number in row), default=0) or 1

    def cell(true: int, called: int, number: int) -> Count:
        better = (number > 0) == (true == called)
        return Count(
            f"{number:+d}".replace("-", MINUS) if number else "", round(10 * abs(number) / most), better
        )

    made = Confusion(f"{names[1]} less {names[0]}", classes, _rows(classes, less, cell), difference=True)
    one, other = (confusion(name, classes, each) for name, each in zip(names, counts, strict=True))
    return one, other, made


def _rows(
    classes: Sequence[str], counts: Counts, cell: Callable[[int, int, int], Count]
) -> tuple[tuple[str, tuple[Count, ...]], ...]:
    return tuple(
        (classes[true], tuple(cell(true, called, number) for called, number in enumerate(row)))
        for true, row in enumerate(counts)
    )
