"""Roundings along a graph: each once, none from where two recordings are equal; what lies between is left open."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from verifier.graph import Graph, record
from verifier.judge import STRICT, recorded_budget, roundings
from verifier.judge.budgets import arithmetic

UNIT = 2.0**-24


class Diamond(nn.Module):
    """Two branches of one tensor, added."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.line(x)
        return (x.exp() + x.sin()).reshape(-1)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return record(Diamond(), (torch.randn(2, 64),), {})


def found(graph: Graph, exact: set[str]) -> dict[str, tuple[float, float]]:
    own, total = roundings(
        graph, [UNIT] * len(graph.sites), {graph.by_name[name].index for name in exact}, STRICT
    )
    return {site.name: (own[site.index], total[site.index]) for site in graph.sites}


def test_what_two_branches_share_is_counted_once(graph: Graph) -> None:
    at = found(graph, set())
    line, one = arithmetic(STRICT, UNIT, 64), arithmetic(STRICT, UNIT, 1)
    assert at["line"] == pytest.approx((line, line))
    assert at["add"] == pytest.approx((one, math.sqrt(line**2 + 3 * one**2)))
    assert at["reshape"] == pytest.approx((0.0, at["add"][1]))


def test_nothing_comes_from_where_both_are_equal(graph: Graph) -> None:
    one = arithmetic(STRICT, UNIT, 1)
    assert found(graph, {"line"})["add"][1] == pytest.approx(math.sqrt(3) * one)
    assert found(graph, {"exp", "sin"})["add"][1] == pytest.approx(one)


def test_whole_numbers_round_nothing_and_may_turn_over_behind_what_rounds(graph: Graph) -> None:
    own, total = roundings(graph, [0.0] * len(graph.sites), (), STRICT)
    assert (set(own), set(total)) == ({0.0}, {0.0})
    assert recorded_budget(STRICT, "float32", UNIT, 0.0, 0.0, whole=True).total == 0.0
    assert recorded_budget(STRICT, "float32", UNIT, 1e-6, 0.0, whole=True).total > 1.0


def test_what_rounding_rules_out_lies_beyond_what_it_explains() -> None:
    budget = recorded_budget(STRICT, "float32", UNIT, 1e-6, 1e-7, whole=False)
    assert (budget.noise_total, budget.noise_intrinsic) == (1e-6, 1e-7)
    assert budget.total >= 8e-6
    assert 8e-7 <= budget.intrinsic < budget.total
    assert budget.rule == "recorded/float32"
