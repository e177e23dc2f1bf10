"""The order of meetings: each pair once, and nothing kept aside that need not be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from verifier.lockstep.schedule import meeting_order


def held(orders: list[list[int]], met: list[int]) -> list[set[int]]:
    """For each lane, the pairs it passed before they were met."""
    found: list[set[int]] = []
    for order in orders:
        position = {pair: k for k, pair in enumerate(order)}
        at, passed = -1, set()
        for pair in met:
            if position[pair] > at:
                passed |= set(order[at + 1 : position[pair]])
                at = position[pair]
        found.append(passed)
    return found


def ones(orders: list[list[int]]) -> list[list[int]]:
    return [[1] * len(order) for order in orders]


@given(st.integers(0, 12), st.data())
def test_every_pair_is_met_once(count: int, data: st.DataObject) -> None:
    orders = [data.draw(st.permutations(range(count))) for _ in range(data.draw(st.integers(1, 4)))]
    met = meeting_order(orders, ones(orders), [False] * len(orders))
    assert sorted(met) == list(range(count))


@given(st.integers(1, 20), st.integers(1, 4))
def test_lanes_in_one_order_never_leave_anything_behind(count: int, lanes: int) -> None:
    orders = [list(range(count))] * lanes
    met = meeting_order(orders, ones(orders), [True] * lanes)
    assert met == list(range(count))
    assert not any(held(orders, met))


@given(st.integers(1, 10), st.data())
def test_a_pinned_lane_passes_nothing(count: int, data: st.DataObject) -> None:
    orders = [data.draw(st.permutations(range(count))) for _ in range(3)]
    met = meeting_order(orders, ones(orders), [False, True, False])
    assert not held(orders, met)[1]


def test_a_shortcut_computed_first_is_what_waits() -> None:
    main, shortcut = [0, 1, 2, 3, 4, 5], [6, 7]
    orders = [[*main, *shortcut, 8], [*shortcut, *main, 8]]
    met = meeting_order(orders, ones(orders), [False, False])
    assert held(orders, met) == [set(), {6, 7}]


def test_large_tensors_are_kept_less_readily_than_small_ones() -> None:
    orders = [[0, 1, 2], [2, 0, 1]]
    sizes = [[1, 1, 100], [100, 1, 1]]
    assert held(orders, meeting_order(orders, sizes, [False, False])) == [{0, 1}, set()]
