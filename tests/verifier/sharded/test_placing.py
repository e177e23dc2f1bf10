"""What pieces are of a whole is told by their numbers, and said to be unsure where it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from verifier.sharded.placing import by_shape, cut, join, place
from verifier.sharded.slices import matched, tolerance

WHOLE = torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LIMIT = 1e-12
CASES: dict[str, tuple[list[Tensor], str]] = {
    "copies": ([WHOLE, WHOLE], "replica"),
    "halves": (list(WHOLE.chunk(2, 1)), "shard(1)"),
    "uneven parts": ([WHOLE[..., :5], WHOLE[..., 5:10], WHOLE[..., 10:]], "shard(2)"),
    "a part without anything": ([WHOLE, WHOLE[:0]], "shard(0)"),
    "parts in another order": ([WHOLE[:, 4:], WHOLE[:, :4]], "shard(1) in the order 1, 0"),
    "parts of a fused projection": (
        [WHOLE[..., [0, 1, 4, 5, 8, 9]], WHOLE[..., [2, 3, 6, 7, 10, 11]]],
        "shard(2), interleaved",
    ),
    "terms": ([WHOLE - 1, torch.ones_like(WHOLE)], "partial sum"),
    "means": ([WHOLE - 1, WHOLE + 1], "partial mean"),
    "largest": ([WHOLE, WHOLE - 1], "partial maximum"),
    "copies put together wrongly": ([WHOLE[:, [4, 5, 6, 7, 0, 1, 2, 3]]] * 2, "replica, permuted(1)"),
    "time first": ([each.transpose(0, 1) for each in WHOLE.chunk(2, 1)], "shard of rows, interleaved"),
    "a mesh of two dimensions, terms": ([WHOLE - 1, torch.ones_like(WHOLE)] * 2, "partial sum, 2 copies"),
    "a mesh of two dimensions, parts": (
        [WHOLE[:, :4], WHOLE[:, :4], WHOLE[:, 4:], WHOLE[:, 4:]],
        "shard(1), 2 copies",
    ),
    "parts along two dimensions": (
        [WHOLE[:, :4, :6], WHOLE[:, :4, 6:], WHOLE[:, 4:, :6], WHOLE[:, 4:, 6:]],
        "shard(1), shard(2)",
    ),
    "parts along two dimensions, by columns": (
        [WHOLE[:, :4, :6], WHOLE[:, 4:, :6], WHOLE[:, :4, 6:], WHOLE[:, 4:, 6:]],
        "shard(2), shard(1)",
    ),
    "uneven parts along two dimensions": (
        [WHOLE[:, :4, :7], WHOLE[:, :4, 7:], WHOLE[:, 4:, :7], WHOLE[:, 4:, 7:]],
        "shard(1), shard(2)",
    ),
    "rows in one dimension": ([WHOLE.flatten(0, 1)[:12], WHOLE.flatten(0, 1)[12:]], "shard of rows"),
}


@pytest.mark.parametrize("case", CASES)
def test_pieces_are_placed_by_their_numbers(case: str) -> None:
    pieces, text = CASES[case]
    found = place(WHOLE, pieces, LIMIT)
    assert found is not None
    assert found.text == text
    joined = join(found, WHOLE, pieces)
    assert joined is not None
    assert torch.allclose(joined, WHOLE, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "pieces",
    [
        [WHOLE[..., :5], WHOLE[..., 5:10]],
        [WHOLE * 2, WHOLE * 2],
        [WHOLE, WHOLE + 1e-6],
        [WHOLE[..., :6] + 1e-6, WHOLE[..., 6:]],
        [WHOLE[:, :4], WHOLE[:, :4]],
        [WHOLE[:2, :4], WHOLE[2:, 4:]],
    ],
    ids=["dropped", "doubled", "one copy differs", "one part differs", "one part twice", "cut both ways"],
)
def test_what_is_no_placement_is_given_none(pieces: list[Tensor]) -> None:
    assert place(WHOLE, pieces, LIMIT) is None


@pytest.mark.parametrize(
    ("whole", "pieces"),
    [
        (torch.zeros(4, 4, dtype=torch.float64), [torch.zeros(4, 4, dtype=torch.float64)] * 2),
        (torch.ones(4, 4, dtype=torch.float64), [torch.ones(2, 4, dtype=torch.float64)] * 2),
    ],
    ids=["nothing but zeros", "equal halves"],
)
def test_numbers_that_tell_too_little_are_ambiguous(whole: Tensor, pieces: list[Tensor]) -> None:
    found = place(whole, pieces, LIMIT)
    assert found is not None
    assert not found.certain
    assert found.text.endswith("(ambiguous)")


def test_any_cut_of_random_numbers_is_found_again() -> None:
    generator = torch.Generator().manual_seed(1)
    for trial in range(40):
        size = int(torch.randint(4, 20, (), generator=generator))
        axis = trial % 3
        shape = [3, 4, 5]
        shape[axis] = size
        whole = torch.randn(shape, generator=generator, dtype=torch.float64)
        order = torch.randperm(size, generator=generator)
        ends = sorted(torch.randint(0, size + 1, (2,), generator=generator).tolist())
        indices = list(order.tensor_split(ends))
        pieces = [whole.index_select(axis, index) for index in indices]
        found = place(whole, pieces, LIMIT)
        assert found is not None
        joined = join(found, whole, pieces)
        assert joined is not None
        assert torch.equal(joined, whole)


@pytest.mark.parametrize("case", [c for c in CASES if "shard" in CASES[c][1] and "rows" not in CASES[c][1]])
def test_a_whole_is_cut_as_its_pieces_were(case: str) -> None:
    pieces, _ = CASES[case]
    found = place(WHOLE, pieces, LIMIT)
    assert found is not None
    assert all(torch.equal(*each) for each in zip(cut(found, WHOLE, len(pieces)), pieces, strict=True))


def test_rounding_is_no_other_placement() -> None:
    noise = 1e-7 * torch.randn(WHOLE.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = place(WHOLE, list((WHOLE + noise).chunk(2, 2)), 1e-7)
    assert found is not None
    assert found.text == "shard(2)"


def test_slices_that_are_none_are_told_apart() -> None:
    piece = torch.cat([WHOLE[:, 2:4], torch.zeros(3, 1, 12, dtype=torch.float64)], 1)
    assert matched(WHOLE, piece, 1, tolerance(WHOLE, LIMIT)).index.tolist() == [2, 3, -1]


def test_shapes_alone_place_nothing_for_certain() -> None:
    found = by_shape(WHOLE, [torch.zeros(3, 4, 12), torch.zeros(3, 4, 12)])
    assert found is not None
    assert (found.kind, found.axis, found.certain) == ("shard", 1, False)
    assert by_shape(WHOLE, [torch.zeros(3, 4, 12)]) is None
