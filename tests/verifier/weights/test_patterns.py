"""Names with stars, against the regular expressions they stand for, and in how many steps."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.weights.patterns import Pattern

if TYPE_CHECKING:
    from types import FrameType


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


def steps(pattern: Pattern, name: str) -> int:
    """Lines of Python that a search runs through."""
    count = 0

    def step(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        pattern.stars(name)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("star", ["*a", "**a", "**.*a"])
@pytest.mark.parametrize("nearly", ["a", "a.", "aa."])
def test_a_hundred_stars_against_a_name_that_nearly_matches_take_steps_in_its_length(
    star: str, nearly: str
) -> None:
    pattern = Pattern(star * 100)
    assert pattern.stars(nearly * 400 + "b") is None
    few, many = (steps(pattern, nearly * count + "b") for count in (400, 3200))
    assert many < 8 * few + 1000
