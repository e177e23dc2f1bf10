"""Does the device compute as exactly as the cell's dtype promises? It is the baseline that is asked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.judge.budgets import arithmetic
from verifier.records import Hardware, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.cells import Cell
    from verifier.judge.policy import Policy
    from verifier.records import PairResult

# What devices do in another arithmetic than asked for: sums of products.
_PRODUCTS = ("conv", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm")
_COMMON = 0.5


def hardware(policy: Policy, cell: Cell, rows: Sequence[PairResult]) -> Hardware | None:
    """How the baseline's products on this device compare with float64 on the CPU; None if none was measured.

    Every step was given the very same numbers on both. What is larger than a multiple of the cell's rounding is
    another arithmetic (TF32 or a reduced accumulation where nobody asked for it, a kernel that is wrong), or a sum
    in which almost everything cancels. The second is a matter of single sites, so it takes more than half of them to
    say the first. Numbers beyond the dtype's range are told elsewhere (`range_notes`) and count for nothing here.
    """
    found = [
        (row, row.accuracy.baseline_intrinsic, arithmetic(policy, cell.unit_roundoff, row.budget.reduction))
        for row in rows
        if row.op.startswith(_PRODUCTS)
        and row.budget is not None
        and row.accuracy is not None
        and row.accuracy.baseline_intrinsic is not None
        and math.isfinite(row.accuracy.baseline_intrinsic)
        and not row.between_baseline
    ]
    if not found:
        return None
    over = [each for each in found if each[1] > each[2]]
    row, distance, allowed = max(found, key=lambda each: each[1] / each[2])
    return Hardware(
        verdict=Verdict.DIVERGED if len(over) > _COMMON * len(found) else Verdict.MATCH,
        compared=len(found),
        beyond=len(over),
        site=row.baseline,
        distance=distance,
        allowed=allowed,
    )
