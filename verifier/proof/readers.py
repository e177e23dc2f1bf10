"""Which rows read which."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.records import PairResult


def readers_of(rows: Sequence[PairResult]) -> dict[int, list[PairResult]]:
    """The rows that read a row, by its index; none for one that nothing reads."""
    readers: dict[int, list[PairResult]] = {}
    for row in rows:
        for above in row.above:
            readers.setdefault(above, []).append(row)
    return readers
