"""Layouts: one tensor in two shapes, forth and back, against numpy's transpose and reshape."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.align import layouts
from verifier.align.layouts import Layout

if TYPE_CHECKING:
    from collections.abc import Callable

Shape = tuple[int, ...]


def counted(shape: Shape) -> torch.Tensor:
    """A tensor in which no two elements are equal."""
    return torch.arange(math.prod(shape)).reshape(shape)


@st.composite
def joined(draw: st.DrawFn) -> tuple[Shape, Shape, Shape]:
    """A shape, an order of its dimensions, and the shape in that order with neighbours joined."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    order = tuple(draw(st.permutations(range(len(shape)))))
    ordered = tuple(shape[k] for k in order)
    cuts = [0, *(k for k in range(1, len(shape)) if draw(st.booleans())), len(shape)]
    return shape, order, tuple(math.prod(ordered[a:b]) for a, b in itertools.pairwise(cuts))


@given(joined())
def test_forth_reorders_the_baselines_dimensions_and_joins_them(
    drawn: tuple[Shape, Shape, Shape],
) -> None:
    shape, order, other = drawn
    tensor = counted(shape)
    there = Layout(order).forth(tensor, other)
    np.testing.assert_array_equal(there.numpy(), tensor.numpy().transpose(order).reshape(other))
    assert torch.equal(Layout(order).back(there, shape), tensor)


@given(joined())
def test_a_finer_layout_cuts_the_baselines_dimensions_and_reorders_them(
    drawn: tuple[Shape, Shape, Shape],
) -> None:
    shape, order, other = drawn
    # The candidate's tensor has the dimensions; the baseline's holds them in this order, joined.
    candidate = counted(shape)
    baseline = torch.from_numpy(candidate.numpy().transpose(order).reshape(other).copy())
    layout = Layout(tuple(int(k) for k in np.argsort(order)), finer=True)
    assert torch.equal(layout.forth(baseline, shape), candidate)
    assert torch.equal(layout.back(candidate, other), baseline)


@given(joined(), st.booleans())
def test_every_reordering_with_joins_is_found_in_both_directions(
    drawn: tuple[Shape, Shape, Shape], turn: bool
) -> None:
    shape, order, other = drawn
    one = counted(shape)
    two = one.permute(order).reshape(other)
    if turn:
        one, two = two, one
    assert any(torch.equal(each.forth(one, two.shape), two) for each in layouts(one.shape, two.shape))


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4), st.lists(st.integers(1, 6), min_size=1, max_size=4)
)
def test_whatever_is_found_can_be_applied_and_undone(shape: list[int], other: list[int]) -> None:
    tensor = counted(tuple(shape))
    for layout in layouts(shape, other):
        there = layout.forth(tensor, other)
        assert list(there.shape) == other
        assert torch.equal(layout.back(there, shape), tensor)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4), st.lists(st.integers(1, 6), min_size=1, max_size=4)
)
def test_nothing_is_found_where_the_numbers_of_elements_differ(shape: list[int], other: list[int]) -> None:
    if math.prod(shape) != math.prod(other):
        assert not list(layouts(shape, other))


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,) * 7])
def test_nothing_is_found_without_elements_or_with_too_many_dimensions(shape: Shape) -> None:
    assert not list(layouts(shape, shape))


@pytest.mark.parametrize(
    ("shape", "other", "text"),
    [
        pytest.param((2, 3, 8, 8), (2, 8, 8, 3), "permute(0, 2, 3, 1)", id="NCHW to NHWC"),
        pytest.param((2, 8, 8, 3), (2, 3, 8, 8), "permute(0, 3, 1, 2)", id="NHWC to NCHW"),
        pytest.param((2, 3, 8, 8), (2, 64, 3), "permute(0, 2, 3, 1)", id="grid to tokens"),
        pytest.param((2, 64, 3), (2, 3, 8, 8), "permute(0, 3, 1, 2)", id="tokens to grid"),
        pytest.param((2, 64, 3), (2, 8, 8, 3), "reshape", id="tokens to a grid of the same order"),
        pytest.param((7, 2, 16), (2, 7, 16), "permute(1, 0, 2)", id="(L, N, E) to (N, L, E)"),
        pytest.param((2, 7, 16), (7, 2, 16), "permute(1, 0, 2)", id="(N, L, E) to (L, N, E)"),
        pytest.param((2, 5), (2, 5, 1, 1), "reshape", id="(N, C) to (N, C, 1, 1)"),
        pytest.param((2, 5, 1, 1), (2, 5), "reshape", id="(N, C, 1, 1) to (N, C)"),
        pytest.param((2, 7, 4, 3), (2, 4, 7, 3), "permute(0, 2, 1, 3)", id="heads before tokens"),
        pytest.param((2, 7, 4), (2, 4, 7), "permute(0, 2, 1)", id="channels first in one dimension"),
    ],
)
def test_the_usual_layout_is_the_first_one_found(shape: Shape, other: Shape, text: str) -> None:
    assert next(layouts(shape, other)).text == text


def test_equal_shapes_come_first_as_they_are() -> None:
    assert next(layouts((2, 4, 4, 4), (2, 4, 4, 4))).trivial


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(
    ("shape", "other", "forth"),
    [
        ((3, 8, 8), (8, 8, 3), lambda x: x.permute(0, 2, 3, 1)),
        ((3, 8, 8), (64, 3), lambda x: x.flatten(2).transpose(1, 2)),
        ((64, 3), (3, 8, 8), lambda x: x.transpose(1, 2).unflatten(2, (8, 8))),
        ((5,), (5, 1, 1), lambda x: x[:, :, None, None]),
    ],
    ids=["NHWC", "tokens", "grid", "pooled"],
)
def test_a_layout_found_on_two_samples_holds_for_another_batch(
    batch: int, shape: Shape, other: Shape, forth: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    layout = next(layouts((2, *shape), (2, *other)))
    tensor = counted((batch, *shape))
    there = layout.forth(tensor, (batch, *other))
    assert torch.equal(there, forth(tensor))
    assert torch.equal(layout.back(there, (batch, *shape)), tensor)
