"""Does the device compute as exactly as the cell's dtype promises? It is the baseline that is asked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.judge.policy import arithmetic
from verifier.result import Hardware, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.judge.cells import Cell
    from verifier.judge.policy import Policy
    from verifier.result import PairResult


def hardware(policy: Policy, cell: Cell, rows: Sequence[PairResult]) -> Hardware | None:
    """How the baseline's single steps on this device compare with float64 on the CPU; None if not measured.

    Every step was given the very same numbers on both. What is larger than a multiple of the cell's rounding is
    another arithmetic: TF32 or a reduced accumulation where nobody asked for it, a kernel that is wrong.
    """
    found = [
        (row, row.accuracy.baseline_intrinsic, arithmetic(policy, cell.unit_roundoff, row.budget.reduction))
        for row in rows
        if row.budget is not None
        and row.accuracy is not None
        and row.accuracy.baseline_intrinsic is not None
        and row.op not in {"input", "state"}
    ]
    if not found:
        return None
    row, distance, allowed = max(found, key=lambda each: _share(each[1], each[2]))
    return Hardware(
        verdict=Verdict.MATCH if distance <= allowed else Verdict.DIVERGED,
        compared=len(found),
        site=row.baseline,
        distance=distance,
        allowed=allowed,
    )


def hardware_note(cell: Cell, found: Hardware | None) -> tuple[str, ...]:
    """What to say of a device that does not compute as its cell's dtype promises."""
    if found is None or found.verdict is Verdict.MATCH:
        return ()
    return (
        f"on {cell.device} the baseline itself is {found.distance:.1e} from float64 at {found.site} in one step, "
        f"where {cell.dtype} explains {found.allowed:.1e}: the device computes less exactly than the cell says",
    )


def _share(distance: float, allowed: float) -> float:
    return math.inf if math.isnan(distance) else distance / allowed
