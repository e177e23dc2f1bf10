"""What two recordings may be apart where neither was seen beside float64: roundings, counted along the graph."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from verifier.graph.operators import MOVES, SELECTS
from verifier.graph.reductions import reduction
from verifier.judge.budgets import arithmetic, numerics_budget
from verifier.records import Budget, PairResult, Verdict, brief

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from verifier.graph import Graph
    from verifier.judge.policy import Policy
    from verifier.judge.statuses import Judged

RECORDED = "recorded/"
"""What the rules of these budgets begin with."""

# `eps 0.001, baseline 1e-05`: two numbers, of which one is no whole number.
_FRACTIONS = re.compile(r"\w+ (?=.*[.e]\S*(,|$))[-+.\de]+, baseline [-+.\de]+$")

WHOLE = "recorded/whole numbers"
"""The rule of pairs whose numbers are not rounded themselves."""


def roundings(
    graph: Graph, units: Sequence[float], exact: Collection[int], policy: Policy
) -> tuple[list[float], list[float]]:
    """For each site, how far rounding takes it from exact arithmetic (NRMSE): by itself, and since all was equal.

    Errors of sites are independent, so their squares add up, each site's once however many ways lead on from it. That
    takes for granted that the network hands errors on as they are; what it amplifies lies beyond.

    Args:
        graph: A graph.
        units: The roundoff of each site's dtype, 0 for whole numbers.
        exact: Sites that are equal bit for bit on both sides: no error comes from there.
        policy: The constants.
    """
    own = [
        0.0
        if site.identity or site.op in MOVES | SELECTS or not units[site.index]
        else arithmetic(policy, units[site.index], reduction(graph, site.index))
        for site in graph.sites
    ]
    squares = np.array(own) ** 2
    width = -(-len(own) // 8)
    ways: list[int] = []
    total = []
    for site in graph.sites:
        way = 1 << site.index
        for source in site.inputs:
            if source >= 0 and source not in exact:
                way |= ways[source]
        ways.append(way)
        bits = np.unpackbits(np.frombuffer(way.to_bytes(width, "little"), np.uint8), bitorder="little")
        total.append(math.sqrt(float(squares[bits[: len(own)] > 0].sum())))
    return own, total


def recorded_budget(
    policy: Policy, dtype: str, unit_roundoff: float, total: float, own: float, *, whole: bool
) -> Budget:
    """What a pair of two recordings may be off by before rounding cannot be the reason.

    Up to `noise_total` rounding explains it; between that and `total` nothing can be said.

    Args:
        policy: The constants.
        dtype: The cell's, for the rule's name.
        unit_roundoff: The cell's.
        total: What rounding explains here (NRMSE), by `roundings`.
        own: What it explains of this step alone.
        whole: Whether whole numbers are compared: they are exact, unless they are made of what is rounded.
    """
    found = numerics_budget(policy, dtype, unit_roundoff, total, own)
    found = msgspec.structs.replace(
        found, rule=f"{RECORDED}{dtype}", oracle_total=None, oracle_intrinsic=None
    )
    if not whole:
        return found
    limit = policy.factor if total else 0.0  # a mask of rounded numbers may turn over anywhere
    return msgspec.structs.replace(found, rule=WHOLE, total=limit, intrinsic=limit)


def left_between(judged: Judged) -> Judged:
    """The judgement, without a match where an error is more than rounding explains and less than it rules out.

    Nor is it one where what is written otherwise may hide in the rounding: an epsilon, a factor.
    """
    if judged.verdict is not Verdict.MATCH:
        return judged
    hidden = next((row for row in judged.rows if _recorded(row) and _written_otherwise(row)), None)
    if hidden is not None:
        reason = f"{hidden.baseline}: {'; '.join(hidden.differences)}, and rounding may hide what that makes"
        return replace(judged, verdict=Verdict.INCONCLUSIVE, reason=brief(reason))
    row = next(filter(_between, judged.rows), None)
    if row is None or row.total is None or row.budget is None:
        return judged
    error = _most(row)
    reason = (
        f"{row.baseline}: relative error up to {error:.1e}, of which rounding explains {row.budget.noise_total:.1e}; "
        "float64 would tell, and two recordings cannot ask it"
    )
    return replace(judged, verdict=Verdict.INCONCLUSIVE, reason=brief(reason))


def _recorded(row: PairResult) -> bool:
    """Whether a row is judged by roundings, and is not the same bit for bit."""
    return (
        row.budget is not None
        and row.total is not None
        and row.budget.rule.startswith(RECORDED)
        and row.total.max_abs != 0
    )


def _written_otherwise(row: PairResult) -> bool:
    return any(map(_FRACTIONS.match, row.differences))


def _between(row: PairResult) -> bool:
    explained = None if row.budget is None else row.budget.noise_total
    return _recorded(row) and explained is not None and not _most(row) <= explained


def _most(row: PairResult) -> float:
    """The upper end of what a row's error may be."""
    assert row.total is not None  # noqa: S101 - callers have seen it
    return row.total.nrmse if row.total.interval is None else row.total.interval.nrmse[1]
