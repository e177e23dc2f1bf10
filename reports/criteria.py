"""Published criteria and budgets of the task: what was measured, and whether that passes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reports.wording import figure

if TYPE_CHECKING:
    from verifier.records import Criterion

_DIGITS = 17  # of which no two numbers share all


def measured(each: Criterion) -> str:
    """What was measured for a criterion, in as many digits as tell it from what is required."""
    said, digits = figure(each.value), 3
    while said == figure(each.limit) and each.value != each.limit and digits < _DIGITS:
        digits += 1
        said = f"{each.value:.{digits}g}"
    return said


def sentence(each: Criterion) -> str:
    """A criterion with the number measured for it."""
    outcome = "passed" if each.passed else "failed"
    required = f"{each.comparison} {figure(each.limit)}"
    value = "undefined, for one side is constant or not finite" if math.isnan(each.value) else measured(each)
    return f"{outcome}: {each.title} is {value}, required {required}"
