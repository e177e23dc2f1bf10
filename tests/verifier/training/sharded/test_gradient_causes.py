"""What processes have of a gradient, and why it is not the whole's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from verifier.sharded.placing import Placement
from verifier.training.sharded import causes
from verifier.training.sharded.causes import Pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

COPIES = Placement("replica")
ROWS = Placement("shard", 0, (torch.arange(2), torch.arange(2, 4)))
MESH = Placement("shard", 0, (torch.arange(2), torch.arange(2, 4)), parts=(0, 1, 0, 1))


@pytest.fixture
def terms() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(4)]


def pieces(whole: Tensor, found: Sequence[Tensor | None], placed: Placement = COPIES) -> Pieces:
    return Pieces("weight", whole, found, tuple(range(len(found))), placed)


def code(given: Pieces) -> str:
    cause = causes.of_gradient(given, None)
    return "" if cause is None else cause.code


@pytest.mark.parametrize(("share", "said"), [(1, "sum"), (2, "sum, divided by 2,"), (4, "mean")])
def test_terms_that_nobody_adds_up_are_told_with_what_they_make(
    terms: list[Tensor], share: int, said: str
) -> None:
    cause = causes.of_gradient(pieces(sum(terms[1:], terms[0]) / share, terms), None)
    assert cause is not None
    assert (cause.code, cause.confirmed) == ("shard-gradient-unreduced", True)
    assert f"the {said} over" in cause.summary


def test_parts_that_two_ranks_have_each_are_added_up_by_part(terms: list[Tensor]) -> None:
    one, two = terms[:2]
    found = [one[:2], one[2:], two[:2], two[2:]]
    assert code(pieces((one + two) / 2, found, MESH)) == "shard-gradient-unreduced"
    assert (
        causes.reduced(pieces((one + two) / 2, found, MESH), pieces(one, _cut((one + two) / 2), MESH), 2) == 2
    )


def _cut(whole: Tensor) -> list[Tensor]:
    return [whole[:2], whole[2:], whole[:2], whole[2:]]


def test_other_gradients_on_every_rank_that_make_up_nothing_are_no_certainty(terms: list[Tensor]) -> None:
    cause = causes.of_gradient(pieces(terms[3], terms[:2]), None)
    assert cause is not None
    assert (cause.code, cause.confirmed) == ("shard-gradient-unreduced", False)


def test_copies_times_the_number_of_ranks_are_scaled(terms: list[Tensor]) -> None:
    assert code(pieces(terms[0], [2 * terms[0]] * 2)) == "shard-gradient-scaled"
    assert code(pieces(terms[0], [terms[0] / 4] * 4)) == "shard-gradient-scaled"
    assert code(pieces(terms[0], [2 * terms[0]] * 4)) == "shard-gradient-scaled"
    assert code(pieces(terms[0], [3 * terms[0]] * 4)) == ""


def test_one_rank_that_is_wrong_is_named_whatever_explains_its_numbers_alone(terms: list[Tensor]) -> None:
    known = causes.of_gradient(pieces(terms[0], [2 * terms[0]] * 2), None)
    cause = causes.of_gradient(pieces(terms[0], [terms[0][:2], terms[0][2:] + 1], ROWS), known)
    assert cause is not None
    assert (cause.code, "rank 1" in cause.summary) == ("shard-differs", True)


def test_a_gradient_that_one_rank_does_not_have_is_told_with_the_reason(terms: list[Tensor]) -> None:
    given = pieces(terms[0], [terms[0], None])
    assert code(given) == "shard-gradient-missing"
    cause = causes.untrained(given, ["", "requires_grad is off"])
    assert cause is not None
    assert (cause.code, cause.summary) == ("frozen", "requires_grad is off on rank 1")
    assert causes.untrained(given, ["requires_grad is off", ""]) is None


def test_scalars_that_are_wrong_on_one_rank_have_no_axis_to_be_cut_along() -> None:
    two, three = torch.tensor(2.0).double(), torch.tensor(3.0).double()
    cause = causes.some(pieces(two, [two, three], ROWS))
    assert cause is not None
    assert "rank 1" in cause.summary


def test_what_is_left_of_the_batch_before_is_found_on_a_rank_and_in_a_term(terms: list[Tensor]) -> None:
    one, two, held, _ = terms
    found = causes.uncleared(pieces(one, [one, one + held]), [held, held])
    assert found is not None
    assert (found.code, "rank 1" in found.summary) == ("gradients-not-cleared", True)
    assert causes.uncleared(pieces(one, [one, one + 2 * held]), [held, held]) is None
    given = pieces((one + two) / 2, [one, two + held])
    made = causes.summed(given, 2)
    assert made is not None
    assert causes.uncleared_term(given, [held, held], made, 2) is not None
    assert causes.uncleared_term(given, [two, two], made, 2) is None


def test_the_mean_of_terms_is_not_meant_where_all_have_the_same_samples(terms: list[Tensor]) -> None:
    one, two = terms[:2]
    doubled = pieces((one + two) / 2, [one, two])
    made = causes.summed(doubled, 1)
    assert made is not None
    assert torch.equal(made, one + two)
    assert causes.reduced(doubled, pieces(one, [one + two] * 2), 1) == 1
    assert causes.reduced(doubled, pieces(one, [0.3 * (one + two)] * 2), 1) == 1  # clipped
    assert causes.reduced(doubled, pieces(one, [one, two]), 1) == 0


def test_terms_that_only_some_ranks_add_up_are_not_added_up(terms: list[Tensor]) -> None:
    whole = sum(terms[1:], terms[0]) / 2
    one, two = (terms[0] + terms[2]) / 2, (terms[1] + terms[3]) / 2
    before = pieces(whole, terms)
    assert causes.never_reduced(before, pieces(whole, [one, two, one, two]))
    assert not causes.never_reduced(before, pieces(whole, [whole] * 4))
    assert not causes.never_reduced(before, pieces(whole, [whole, whole, 1.5 * whole, whole]))
