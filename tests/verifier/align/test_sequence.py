"""The longest common subsequence, against the textbook's table."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from verifier.align.sequence import longest_common_subsequence


def length(a: list[int], b: list[int]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40))
def test_it_is_common_increasing_and_as_long_as_can_be(a: list[int], b: list[int]) -> None:
    found = longest_common_subsequence(a, b)
    assert all(a[i] == b[j] for i, j in found)
    assert all(p[0] < q[0] and p[1] < q[1] for p, q in itertools.pairwise(found))
    assert len(found) == length(a, b)
