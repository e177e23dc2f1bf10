"""The smallest set of layers to keep in float such that a budget of the task is met: found by search, then run."""

from __future__ import annotations

import heapq
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from verifier.errors import UsageError
from verifier.metrics.agreement import agreement
from verifier.quantised.outputs import flipped
from verifier.records import KeptInFloat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.quantised.trials import Trials

Measure = Literal["top-1", "error"]
TOP1: Measure = "top-1"
ERROR: Measure = "error"


class TaskBudget(NamedTuple):
    """What quantisation may change.

    Attributes:
        asked: As it was asked for.
        measure: `top-1`, the share of samples whose class changes; `error`, the relative error of the outputs (NRMSE)
            or, if it is larger, the share of whole numbers that change, which also count where they are no classes.
        limit: What it may be.
    """

    asked: str
    measure: Measure
    limit: float

    @classmethod
    def of(cls, text: str) -> TaskBudget:
        """From `0.1%`, `top-1=0.1%` or `error=1%`; `0.001` is `0.1%`.

        Raises:
            UsageError: It says none.
        """
        found = re.fullmatch(r"(?:(top-1|error)=)?([0-9.]+(?:e-?[0-9]+)?)(%?)", text.strip())
        try:
            limit = float(found[2]) / (100 if found[3] else 1) if found else -1.0
        except ValueError:
            limit = -1.0
        if found is None or not 0 <= limit <= 1:
            raise UsageError(
                f"the budget of what is kept in float is {text!r}: give a share such as 0.1% (of the samples whose "
                "highest class may change) or error=1% (of the outputs, NRMSE)."
            )
        return cls(text, ERROR if found[1] == ERROR else TOP1, limit)


def kept_in_float(trials: Trials, budget: TaskBudget) -> KeptInFloat:
    """The layers to keep in float, confirmed by a run with exactly these.

    Greedy: the layer whose keeping lowers the error of the outputs most comes next, measured again among what is kept
    already; then the least needed are dropped again, until without any of them the budget is not met: the set is
    minimal by inclusion, which is no proof that no smaller one is.
    """
    if _value(trials, budget, []) is None:
        budget = budget._replace(measure=ERROR)
    kept: list[str] = []
    value = _of(trials, budget, kept)
    if value > budget.limit:
        kept = _minimal(trials, budget, _added(trials, budget))
    order = [name for name in trials.names if name in kept]
    return KeptInFloat(
        asked=budget.asked,
        measure=budget.measure,
        limit=budget.limit,
        before=value,
        after=_of(trials, budget, order),
        layers=tuple(order),
        exclusion=trials.quantised.exclusion,
        samples=sum(trials.samples),
        runs=trials.runs,
    )


def _minimal(trials: Trials, budget: TaskBudget, kept: Sequence[str]) -> list[str]:
    """A set of which no layer can be left out: tried in the order of what is off without each, again while one goes.

    The first to be kept was the best of all, and may be the least needed now; and what cannot go may go once another
    is gone.
    """

    def without(name: str) -> list[str]:
        return [each for each in kept if each != name]

    kept, before = [*kept], 0
    while before != len(kept):
        before = len(kept)
        for name in sorted(kept, key=lambda each: trials.off(without(each)).error):
            if _of(trials, budget, without(name)) <= budget.limit:
                kept = without(name)
                if before <= _FEW:
                    break
    return kept


_FEW = 32  # layers: of more, all that may go are dropped before the rest is measured again


def _added(trials: Trials, budget: TaskBudget) -> list[str]:
    """Layers in the order in which they were kept, until the budget is met.

    What a layer gains is measured again when it is the best by what it gained before: gains shrink among what is
    kept, so that one that is still the best then is the best of all.
    """
    kept: list[str] = []
    error = trials.off([]).error
    names = [layer.name for layer in trials.quantised.layers if layer.excluded]
    queue = [(-(error - trials.off([name]).error), k, name, 0) for k, name in enumerate(names)]
    heapq.heapify(queue)
    while queue:
        gain, k, name, known = heapq.heappop(queue)
        if known < len(kept):
            gain = -(error - trials.off([*kept, name]).error)
            heapq.heappush(queue, (gain, k, name, len(kept)))
            continue
        kept.append(name)
        error = trials.off(kept).error
        if _of(trials, budget, kept) <= budget.limit:
            break
    return kept


def _of(trials: Trials, budget: TaskBudget, kept: Sequence[str]) -> float:
    """What the budget limits with some layers in float."""
    value = _value(trials, budget, kept)
    return 1.0 if value is None else value


def _value(trials: Trials, budget: TaskBudget, kept: Sequence[str]) -> float | None:
    """What the budget limits with some layers in float; None where it is about classes and none are returned."""
    if budget.measure == ERROR:
        return trials.off(kept).error  # which a run with these has told
    outputs = trials.outputs(kept)
    changed, samples = 0.0, 0
    for right, given, size in zip(trials.reference, outputs, trials.samples, strict=True):
        told = agreement(right, given)
        if told is not None and told.top1_agreement is not None and told.samples:
            changed += (1 - told.top1_agreement) * told.samples
            samples += told.samples
        elif (share := flipped(right, given, size)) is not None:
            changed += share * size
            samples += size
        else:
            return None
    return changed / samples if samples else None
