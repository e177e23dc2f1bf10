from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.metrics import Moments, collect, measure
from verifier.metrics.agreement import Agreed
from verifier.metrics.merging import Merging
from verifier.metrics.sample_errors import ACCURACY, QUANTILES, Spread
from verifier.records import to_builtins


def moments(count: int) -> list[Moments]:
    drawn = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 3, 50, generator=drawn) * 10.0**k for k in range(count)]
    return collect([measure(a, a + 1e-4 * b, 3 * k) for k, (a, b) in enumerate(pairs)])


@given(st.permutations(range(11)), st.lists(st.integers(0, 2), min_size=11, max_size=11))
def test_a_whole_is_the_same_bit_for_bit_in_whichever_order_and_by_whomever_its_parts_were_merged(
    order: list[int], ranks: list[int]
) -> None:
    parts = moments(11)
    straight: Merging[Moments] = Merging()
    for number, part in enumerate(parts):
        straight.add(number, part)
    each: list[Merging[Moments]] = [Merging() for _ in range(3)]
    for number in order:
        each[ranks[number]].add(number, parts[number])
    together: Merging[Moments] = Merging()
    for one in each:
        for (level, index), part in one.nodes.items():
            together.add(index, part, level)
    assert together.whole() == straight.whole()


@dataclass(frozen=True)
class Listed:
    numbers: tuple[int, ...]

    def merge(self, later: Listed) -> Listed:
        return Listed(self.numbers + later.numbers)


@given(st.permutations(range(21)))
def test_parts_stand_in_the_order_of_their_numbers(order: list[int]) -> None:
    found: Merging[Listed] = Merging()
    for number in order:
        assert number not in found
        found.add(number, Listed((number,)))
        assert number in found
    assert found.whole() == Listed(tuple(range(21)))


def test_of_parts_that_come_in_order_few_are_held() -> None:
    found: Merging[Listed] = Merging()
    for number in range(1000):
        found.add(number, Listed((number,)))
        assert len(found.nodes) <= (number + 1).bit_length()


def test_a_part_that_comes_in_pieces_is_one_part() -> None:
    found: Merging[Listed] = Merging()
    for number, piece in ((0, 0), (0, 1), (1, 2), (3, 4), (3, 5), (2, 3)):
        found.extend(number, Listed((piece,)))
    assert found.count == 4
    assert found.whole() == Listed((0, 1, 2, 3, 4, 5))


def test_of_no_parts_there_is_no_whole() -> None:
    assert Merging[Listed]().whole() is None


OUTPUTS = {
    "scores": (torch.float32, (10,)),
    "few classes": (torch.float64, (3,)),
    "pictures": (torch.bfloat16, (3, 4, 4)),
    "numbers": (torch.float32, ()),
}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("split", [(20,), (1, 19), (7, 7, 6), (1,) * 20])
def test_what_outputs_of_batches_agree_in_is_what_those_of_all_samples_do(
    kind: str, split: tuple[int, ...]
) -> None:
    dtype, shape = OUTPUTS[kind]
    drawn = torch.Generator().manual_seed(1)
    a = torch.randn(20, *shape, generator=drawn).to(dtype)
    b = (a.float() + 0.3 * torch.randn(20, *shape, generator=drawn)).to(dtype)
    whole = Agreed.of([a], [b], 20)
    starts = np.cumsum([0, *split])
    parts = [
        Agreed.of([a[first : first + n]], [b[first : first + n]], n, int(first))
        for first, n in zip(starts, split, strict=False)
    ]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    one, other = (to_builtins(told) for each in (merged, whole) if (told := each.told()))
    assert one["sample_errors"] == other["sample_errors"] is not None
    assert one["flips"] == other["flips"]
    exactly = {name for name, value in other.items() if not isinstance(value, float)}
    assert {name: one[name] for name in exactly} == {name: other[name] for name in exactly}
    floats = {name: value for name, value in other.items() if name not in exactly}
    assert {name: one[name] for name in floats} == pytest.approx(floats, rel=1e-12)


def test_an_output_whose_shapes_part_in_one_batch_is_not_compared() -> None:
    alike, apart = torch.zeros(2, 3), torch.zeros(2, 4)
    first = Agreed.of([alike, alike], [alike, alike], 2)
    found = first.merge(Agreed.of([alike, alike], [alike, apart], 2)).told()
    assert found is not None
    assert found.samples == 4
    assert first.merge(Agreed.of([alike], [apart], 2)).told() is None


def test_the_gravest_flips_are_told_with_the_numbers_they_have_among_all() -> None:
    a = torch.tensor([[0.0, 1.0], [0.0, 5.0], [3.0, 0.0]])
    b = torch.tensor([[1.0, 0.0], [6.0, 0.0], [3.0, 0.0]])
    found = Agreed.of([a], [a], 3).merge(Agreed.of([a], [b], 3, 3)).told()
    assert found is not None
    assert (found.flipped, found.samples) == (2, 6)
    assert [(flip.sample, flip.margin, flip.baseline, flip.candidate) for flip in found.flips] == [
        (4, 5.0, 1, 0),
        (3, 1.0, 1, 0),
    ]


@given(st.lists(st.floats(1e-12, 1e6), min_size=1, max_size=200), st.integers(1, 9))
def test_quantiles_of_the_errors_are_known_to_one_part_in_a_hundred(errors: list[float], size: int) -> None:
    a = torch.ones(len(errors), 1, dtype=torch.float64)
    b = a * (1 + torch.tensor(errors, dtype=torch.float64)[:, None])
    found = Spread()
    for first in range(0, len(errors), size):
        found = found.merge(Spread.of(a[first : first + size], b[first : first + size], first))
    told = found.told()
    assert told is not None
    exact = (b - a).flatten().numpy()
    assert told.largest == exact.max()
    assert told.worst == exact.argmax()
    for share, value in told.quantiles:
        one = np.quantile(exact, share, method="inverted_cdf")
        assert value == pytest.approx(one, rel=1.01 * ACCURACY)
    assert [share for share, _ in told.quantiles] == list(QUANTILES)


def test_samples_without_a_finite_error_lie_beyond_all_others() -> None:
    a = torch.ones(4, 2)
    b = a.clone()
    b[1, 0], b[3, 1] = torch.nan, torch.inf
    found = Spread.of(a, b, 10).told()
    assert found is not None
    assert (found.undefined, found.largest, found.worst) == (2, float("inf"), 11)
    assert found.quantiles[0] == (0.5, 0.0)
    assert found.quantiles[-1] == (0.999, float("inf"))
