"""Where the parameters of a whole lie on ranks, of which some have them under another name."""

from __future__ import annotations

import pytest
import torch

from verifier.sharded.placing import Placement
from verifier.training.sharded.lying import Lying

FIRST: dict[str, tuple[int, ...]] = {"emb.weight": (4, 2)}
LAST: dict[str, tuple[int, ...]] = {"head.weight": (4, 2), "head.bias": (4,)}
ALIASES = {"head.weight": "emb.weight"}


def lying(placed: Placement, *shapes: dict[str, tuple[int, ...]]) -> Lying:
    ranks = tuple(rank for rank, each in enumerate(shapes) if "emb.weight" in each)
    return Lying({"emb.weight": placed}, {"emb.weight": ranks}, [{n: n for n in each} for each in shapes], 2)


def test_tied_weights_of_two_stages_are_copies_of_one() -> None:
    found = lying(Placement("replica"), FIRST, LAST).tied(ALIASES, [FIRST, LAST])
    assert found.ranks["emb.weight"] == (0, 1)
    assert found.own[1] == {"emb.weight": "head.weight", "head.bias": "head.bias"}


@pytest.mark.parametrize(
    ("placed", "last"),
    [
        (Placement("shard", 0, (torch.arange(4),)), LAST),
        (Placement("replica"), {"head.weight": (2, 2)}),
        (Placement("replica"), {**FIRST, **LAST}),
    ],
    ids=["in parts", "another shape", "both, apart"],
)
def test_what_are_no_copies_stay_strangers(placed: Placement, last: dict[str, tuple[int, ...]]) -> None:
    found = lying(placed, FIRST, last).tied(ALIASES, [FIRST, last])
    assert found.own[1]["head.weight"] == "head.weight"
