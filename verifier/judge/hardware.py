"""Does the device compute as exactly as the cell's dtype promises? It is the baseline that is asked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from verifier.judge.budgets import arithmetic
from verifier.records import Hardware, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.cells import Cell
    from verifier.judge.policy import Policy
    from verifier.records import PairResult

# What devices do in another arithmetic than asked for: sums of products.
_PRODUCTS = ("conv", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm")
_COMMON = 0.5


def hardware(policy: Policy, cell: Cell, rows: Sequence[PairResult]) -> Hardware | None:
    """How the baseline's products on this device compare with float64 on the CPU; None if that was not measured.

    Every step was given the very same numbers on both, or else all that has come along with it stays below what one
    step may err by. What is larger than a multiple of the cell's rounding is another arithmetic (TF32 or a reduced
    accumulation where nobody asked for it, a kernel that is wrong), or a sum in which almost everything cancels. The
    second is a matter of single sites, so it takes more than half of them to say the first. Numbers beyond the
    dtype's range are told elsewhere (`range_notes`) and count for nothing here.
    """
    finite = [each for each in _products(policy, cell, rows) if math.isfinite(each.distance)]
    found = [each for each in finite if each.alone or each.distance <= each.allowed]
    if not found or (len(found) < len(finite) and not any(each.alone for each in found)):
        return None
    over = [each for each in found if each.distance > each.allowed]
    worst = max(found, key=lambda each: each.distance / each.allowed)
    return Hardware(
        verdict=Verdict.DIVERGED if len(over) > _COMMON * len(found) else Verdict.MATCH,
        compared=len(found),
        beyond=len(over),
        site=worst.site,
        distance=worst.distance,
        allowed=worst.allowed,
    )


def summed_up(policy: Policy, cell: Cell, rows: Sequence[PairResult]) -> bool:
    """Whether what has added up at a product is more than one step may err by, so that only single steps tell."""
    found = _products(policy, cell, rows)
    return any(
        not each.alone and math.isfinite(each.distance) and each.distance > each.allowed for each in found
    )


class _Product(NamedTuple):
    """A site that sums products: how far the baseline is from float64 there, by this step alone or in all."""

    site: str | None
    distance: float
    allowed: float
    alone: bool


def _products(policy: Policy, cell: Cell, rows: Sequence[PairResult]) -> Iterator[_Product]:
    for row in rows:
        if row.budget is None or row.accuracy is None or row.between_baseline:
            continue
        alone, whole = row.accuracy.baseline_intrinsic, row.accuracy.baseline_total
        distance = whole if alone is None else alone
        if row.op.startswith(_PRODUCTS) and distance is not None:
            allowed = arithmetic(policy, cell.unit_roundoff, row.budget.reduction)
            yield _Product(row.baseline, distance, allowed, alone is not None)
