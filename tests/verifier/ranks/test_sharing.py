from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from verifier.ranks import Ranks, share


@given(st.integers(0, 30), st.integers(1, 5), st.sets(st.integers(0, 40)), st.integers(0, 40))
def test_every_part_that_is_left_is_one_ranks_whatever_their_number_is_thought_to_be(
    thought: int, size: int, done: set[int], real: int
) -> None:
    wanted = [share(Ranks(rank, size), thought, done) for rank in range(size)]
    for number in range(real):
        takers = sum(each(number) for each in wanted)
        assert takers == (0 if number in done else 1)


def test_a_rank_takes_a_stretch_and_none_much_more_than_another() -> None:
    taken = [[k for k in range(100) if share(Ranks(rank, 3), 100)(k)] for rank in range(3)]
    assert all(part == list(range(part[0], part[-1] + 1)) for part in taken)
    assert {len(part) for part in taken} == {33, 34}


def test_alone_there_is_nobody_to_ask() -> None:
    alone = Ranks()
    assert alone.leads
    assert alone.gather("x") == ["x"]
    assert alone.together(lambda: 3) == [3]
