"""The range of a site holds every number it can give."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verifier.graph import record
from verifier.graph.ranges import Range, ranges

if TYPE_CHECKING:
    from collections.abc import Callable


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def last(function: Callable[[Tensor], Tensor]) -> Range:
    return ranges(record(Of(function), (torch.randn(2, 3, 8, 8),), {}))[-1]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (F.relu, (0, math.inf)),
        (F.relu6, (0, 6)),
        (torch.sigmoid, (0, 1)),
        (lambda x: F.relu(torch.sigmoid(x)), (0, 1)),
        (lambda x: F.relu(torch.tanh(x)), (0, 1)),
        (lambda x: x.clamp(-2, 3), (-2, 3)),
        (lambda x: x.clamp(-2, 3).clamp(max=1), (-2, 1)),
        (lambda x: F.hardtanh(x, -4, 5), (-4, 5)),
        (lambda x: F.max_pool2d(F.relu(x), 2), (0, math.inf)),
        (lambda x: F.avg_pool2d(x.clamp(1, 2), 2, padding=1), (0, 2)),
        (lambda x: F.pad(F.relu6(x), (1, 1), value=-7), (-7, 6)),
        (lambda x: F.pad(F.relu6(x), (1, 1, 1, 1), mode="reflect"), (0, 6)),
        (lambda x: torch.cat([F.relu6(x), torch.tanh(x)]), (-1, 6)),
        (lambda x: F.relu(x) + F.relu(x), (0, math.inf)),
        (lambda x: F.relu6(x).flatten(1)[:, :4].mean(1), (0, 6)),
        (lambda x: x * 2, (-math.inf, math.inf)),
        (lambda x: F.relu(x) * -2, (-math.inf, math.inf)),
        (lambda x: F.relu(x) - 1, (-math.inf, math.inf)),
    ],
)
def test_a_range_follows_from_the_operators(
    function: Callable[[Tensor], Tensor], expected: tuple[float, float]
) -> None:
    assert last(function)[:2] == expected


@pytest.mark.parametrize(
    ("function", "whole"),
    [
        (torch.round, True),
        (lambda x: torch.floor(x).flatten(), True),
        (lambda x: torch.round(x).clamp(-2, 3), True),
        (lambda x: torch.round(x).clamp(-2, 2.5), False),
        (lambda x: torch.cat([torch.ceil(x), torch.trunc(x)]), True),
        (lambda x: torch.cat([torch.ceil(x), x]), False),
        (lambda x: torch.round(x).mean(1), False),
        (lambda x: torch.round(x) * 0.5, False),
    ],
)
def test_whole_numbers_stay_whole_where_they_are_only_moved(
    function: Callable[[Tensor], Tensor], whole: bool
) -> None:
    assert last(function).whole is whole


@pytest.mark.parametrize(
    "function",
    [F.gelu, F.silu, F.mish, F.hardswish, F.softplus, torch.erf, torch.cos, F.hardsigmoid, torch.square],
)
def test_no_number_of_an_activation_lies_outside_its_range(function: Callable[[Tensor], Tensor]) -> None:
    limits = last(function)
    made = function(torch.linspace(-50, 50, 100_001, dtype=torch.float64))
    assert limits.low <= float(made.min())
    assert float(made.max()) <= limits.high


def test_a_sum_with_a_negative_number_is_not_taken_for_positive() -> None:
    assert last(lambda x: F.relu(x).sub(1).sum(1)).low == -math.inf


def test_of_what_reads_a_parameter_nothing_is_known() -> None:
    found = ranges(record(nn.Sequential(nn.ReLU(), nn.Linear(8, 8)), (torch.randn(2, 8),), {}))
    assert found == (Range(0, math.inf), Range())
