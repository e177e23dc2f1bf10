"""Names with stars, against the regular expressions they stand for, and in how many steps."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.weights.patterns import Pattern


def by_expression(pattern: str, name: str) -> tuple[str, ...] | None:
    """What a regular expression finds, which may take for ever where nothing matches."""
    pieces = re.split(r"(\*\*|\*)", pattern)
    expression = "".join({"**": "(.+)", "*": "([^.]+)"}.get(piece, re.escape(piece)) for piece in pieces)
    found = re.fullmatch(expression, name, re.DOTALL)
    return None if found is None else found.groups()


@given(
    pattern=st.lists(st.sampled_from(["*", "**", ".", "a", "b", "."]), max_size=9).map("".join),
    name=st.lists(st.sampled_from(["a", "b", ".", "ab", "\n"]), max_size=12).map("".join),
)
def test_stars_stand_for_what_the_regular_expression_says(pattern: str, name: str) -> None:
    assert Pattern(pattern).stars(name) == by_expression(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name", "stars"),
    [
        ("blocks.*.attn.*", "blocks.3.attn.weight", ("3", "weight")),
        ("blocks.*.attn.*", "blocks.3.attn.q.weight", None),
        ("**.weight", "a.b.c.weight", ("a.b.c",)),
        ("**.*.weight", "a.b.c.weight", ("a.b", "c")),
        ("*", "", None),
        ("", "", ()),
        ("a.[0-9]+(x)", "a.[0-9]+(x)", ()),
    ],
)
def test_examples(pattern: str, name: str, stars: tuple[str, ...] | None) -> None:
    assert Pattern(pattern).stars(name) == stars


@pytest.mark.parametrize("star", ["*a", "**a", "**.*a"])
def test_a_hundred_stars_against_a_name_that_nearly_matches_take_no_time(star: str) -> None:
    pattern = Pattern(star * 100)
    nearly = ["a" * 20_000 + "b", "a." * 10_000 + "b", "aa." * 7_000 + "aab"]

    started = time.perf_counter()
    found = [pattern.stars(name) for name in nearly]

    assert found == [None] * 3
    assert time.perf_counter() - started < 2  # backtracking takes longer than the universe lasts


def test_steps_grow_with_the_length_of_the_name_alone() -> None:
    def seconds(length: int) -> float:
        pattern, name = Pattern("*a" * 100), "a" * length + "b"
        times = []
        for _ in range(3):
            started = time.perf_counter()
            pattern.stars(name)
            times.append(time.perf_counter() - started)
        return min(times)

    assert seconds(80_000) < 8 * 4 * seconds(10_000)  # 8 if linear, 64 if quadratic
