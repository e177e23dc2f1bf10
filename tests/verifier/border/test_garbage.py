"""The collector of cycles is asked less often, and left as it was."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from verifier import verify
from verifier.border.garbage import collecting_seldom


@pytest.fixture(autouse=True)
def _as_before() -> object:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_it_runs_less_often_and_then_as_before_also_after_an_exception() -> None:
    gc.set_threshold(700, 10, 10)
    meanwhile = (0, 0, 0)

    def fail() -> None:
        nonlocal meanwhile
        with collecting_seldom():
            meanwhile = gc.get_threshold()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(one > two for one, two in zip(meanwhile, (700, 10, 10), strict=True))
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("chosen", [(0, 10, 10), (10**6, 50, 500)])
def test_what_collects_even_less_often_stays_so(chosen: tuple[int, int, int]) -> None:
    gc.set_threshold(*chosen)
    with collecting_seldom():
        assert gc.get_threshold() == chosen


def test_a_comparison_leaves_it_alone() -> None:
    gc.set_threshold(701, 11, 12)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    verify(model, model, torch.randn(2, 4))
    assert gc.get_threshold() == (701, 11, 12)
