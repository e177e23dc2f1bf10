"""The longest common subsequence of two sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


def longest_common_subsequence(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Positions `(i, j)` with `a[i] == b[j]`, increasing in both, as many as possible.

    Bit-parallel (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004): one row of the dynamic
    programme is one integer of len(b) bits, so 4,000 x 4,000 takes milliseconds and 4,000 x 500 bytes.
    """
    matches: dict[Hashable, int] = {}
    for j, item in enumerate(b):
        matches[item] = matches.get(item, 0) | (1 << j)
    full = (1 << len(b)) - 1
    row = full
    rows = []
    for item in a:
        hit = row & matches.get(item, 0)
        row = ((row + hit) | (row - hit)) & full
        rows.append(row)
    # A zero bit j of row i says that the length grows at column j: walk back from the corner.
    found = []
    i, j = len(a) - 1, len(b) - 1
    while i >= 0 and j >= 0:
        if rows[i] >> j & 1:  # column j adds nothing here
            j -= 1
        elif i > 0 and not rows[i - 1] >> j & 1:  # neither does row i
            i -= 1
        else:
            found.append((i, j))
            i, j = i - 1, j - 1
    return found[::-1]
