"""Two sequences put side by side in order, where scores say how well their members go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORCED = 1e6


def side_by_side(
    rows: Sequence[str], columns: Sequence[int], scores: Mapping[tuple[str, int], float], margin: float
) -> dict[str, int]:
    """The partners that the best alignment in order gives, as far as all others are worse by `margin`.

    Args:
        rows: One sequence.
        columns: The other.
        scores: How well two go together, above 0; those that are not there do not.
        margin: By how much less the whole must be worth with another partner for a row, or none.
    """
    if not rows or not columns:
        return {}
    position = {column: j for j, column in enumerate(columns)}
    worth = np.full((len(rows), len(columns)), -np.inf)
    place = {row: i for i, row in enumerate(rows)}
    for (row, column), score in scores.items():
        if row in place and column in position:
            worth[place[row], position[column]] = score
    before = _best(worth)
    behind = _best(worth[::-1, ::-1])[::-1, ::-1]
    best = before[-1, -1]
    through = before[:-1, :-1] + worth + behind[1:, 1:]
    without = (before[:-1] + behind[1:]).max(axis=1)
    found = {}
    for row, i in place.items():
        j = int(through[i].argmax())
        others = np.delete(through[i], j).max(initial=-np.inf)
        if max(others, without[i]) <= best - margin and through[i, j] > best - margin:
            found[row] = columns[j]
    return found


def _best(
    worth: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """What the best alignment of the first i rows with the first j columns is worth."""
    found = np.zeros((worth.shape[0] + 1, worth.shape[1] + 1))
    for i, row in enumerate(worth):
        with_row = np.concatenate([[0.0], found[i, :-1] + row])
        found[i + 1] = np.maximum.accumulate(np.maximum(found[i], with_row))
    return found
