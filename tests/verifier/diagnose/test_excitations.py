"""Inputs that excite a site: other numbers in the same place, and never others than its range allows."""

from __future__ import annotations

import math

import pytest
import torch

from verifier.diagnose.excitations import EXCITATIONS, LARGER, Excitation, excited, is_excitable
from verifier.graph.ranges import ANYTHING, Range

X = torch.randn(2, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("excitation", EXCITATIONS, ids=lambda each: each.name)
def test_an_excitation_keeps_shape_and_dtype_and_changes_the_numbers(excitation: Excitation) -> None:
    made = excited(X, excitation, [6.0], ANYTHING)
    assert (made.shape, made.dtype) == (X.shape, X.dtype)
    assert made.isfinite().all()
    assert not made.equal(X)


@pytest.mark.parametrize("excitation", EXCITATIONS, ids=lambda each: each.name)
def test_an_excitation_stays_in_the_range_of_what_it_stands_for(excitation: Excitation) -> None:
    made = excited(X, excitation, [6.0], Range(0.0, 1.0))
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1


@pytest.mark.parametrize("excitation", EXCITATIONS, ids=lambda each: each.name)
def test_an_excitation_is_the_same_every_time(excitation: Excitation) -> None:
    assert excited(X, excitation, [6.0], ANYTHING).equal(excited(X, excitation, [6.0], ANYTHING))


@pytest.mark.parametrize("numbers", [[], [6.0], [20.0, 30.0], [-0.5, 0.1, 0.2], [1e5]])
def test_some_excitation_has_numbers_on_both_sides_of_every_bound(numbers: list[float]) -> None:
    made = torch.cat([excited(X, each, numbers, ANYTHING).flatten() for each in EXCITATIONS])
    bounds = sorted({0.0, *numbers})
    edges = torch.tensor([-math.inf, *bounds, math.inf], dtype=torch.float64)
    counts = torch.bucketize(made, edges).bincount(minlength=len(edges))
    assert (counts[1:] > 0).all()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6),
        torch.tensor([True, False]),
        torch.tensor([0.0, -math.inf]),
        torch.tensor([0.0, torch.finfo(torch.float64).min]),
        torch.tensor([math.nan]),
        torch.empty(0),
    ],
)
def test_indices_and_masks_are_left_as_they_are(tensor: torch.Tensor) -> None:
    assert not is_excitable(tensor)
    assert all(excited(tensor, each, [], ANYTHING) is tensor for each in EXCITATIONS)


def test_a_larger_tensor_holds_the_given_one() -> None:
    made = LARGER.make(X, ())
    assert made.shape == (2, 3, 6, 6)
    assert made[..., :5, :5].equal(X)
