"""A match that figures of the same record speak against is none: the last look before it is given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.judge.rows import within_budget
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.records import CellResult, Criterion

# Figures of all outputs are pooled and those of one are not: the two are rounded apart.
_ROUNDING = 1e-6
# A channel may be this much smaller than the whole tensor, whose size its rounding error has where terms cancel.
_CHANNEL = 100.0


def contradiction(cells: Sequence[CellResult], criteria: Sequence[Criterion]) -> str:
    """What in the record speaks against a match, as a sentence; empty where nothing does.

    The outputs' error may be no larger than what was judged at the rows that stand for them, and these must be inside
    their budgets. Criteria that fail and classes that change must be rounding: of a bounded budget, and of no channel
    that a larger one beside it hides.
    """
    for cell in cells:
        if cell.verdict is Verdict.SKIPPED or cell.output is None or not cell.outputs:
            continue
        ends = [cell.layers[index] for index in cell.outputs]
        errors = [row.total for row in ends if row.total is not None]
        for what, figure, judged in (
            ("an MSE", cell.output.mse, max((error.mse for error in errors), default=0.0)),
            (
                "a logit error",
                cell.output.largest_logit_error or 0.0,
                max((error.max_abs for error in errors), default=0.0),
            ),
        ):
            if figure > judged * (1 + _ROUNDING):
                return (
                    f"in {cell.name} the outputs differ by {what} of {figure:.3g}, "
                    f"of which no site shows more than {judged:.3g}"
                )
        if cell.verdict is not Verdict.MATCH:  # a policy that judges the task accepts what the sites do not
            continue
        for row in ends:
            if not within_budget(row.total, row.budget):
                return f"in {cell.name} the error of {row.baseline} exceeds its budget"
        failed = [each for each in criteria if not each.passed and each.cell in ("", cell.name)]
        flipped = cell.output.top1_agreement is not None and cell.output.top1_agreement < 1
        if not (failed or flipped):
            continue
        allowed = max((row.budget.total for row in ends if row.budget is not None), default=0.0)
        what = f"criteria fail ({failed[0].title})" if failed else "top-1 changes"
        if math.isinf(allowed):
            return f"in {cell.name} nothing bounds the outputs' error, and {what}"
        channel = cell.output.worst_channel
        if channel is not None and channel > _CHANNEL * allowed:
            return (
                f"in {cell.name} {what}, and one channel of an output is off by {channel:.3g}, "
                f"where {allowed:.3g} is allowed of the whole"
            )
    return ""
