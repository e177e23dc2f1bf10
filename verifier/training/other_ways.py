"""What differs in two trainings and makes no difference: other ways to the same weights after every batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.training.baseline_batch import GRADIENT_OF_ACTIVATION, LOSS, NORM, WEIGHT, Place
from verifier.training.records import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.training.records import Allowed
    from verifier.training.side_by_side import SideBySide

# Differences of the way and not of what comes of it: a loss may be divided instead of its gradients.
_DIVIDED = (Phase.LOSS, Phase.BACKWARD)
# Phases of which one side may have no tensor by that name, though it does the same.
_UNNAMED = (Phase.CLIP, Phase.OPTIMISER)
WAYS = (*_DIVIDED, *_UNNAMED, Phase.SCHEDULE)
"""Phases in which what differs may be another way."""
_SHOWN = 3
# Weights that agree to this agree; in a narrow dtype what is applied may be off by more than they show.
_EXACT = 1e-12
# Steps in which what an optimiser keeps has to show in the weights, if it ever does.
_STEPS = 2


def exceeding(forced: SideBySide, allowed: Mapping[Phase, Allowed]) -> dict[Place, int]:
    """The batch in which each place first differs by more than its phase is allowed."""
    first: dict[Place, int] = {}
    for number, batch in enumerate(forced.compared):
        for place, error in batch.errors.items():
            if place.what != NORM and not error <= allowed[place.phase].limit:
                first.setdefault(place, number)
    return first


def same_weights(run: SideBySide, allowed: Mapping[Phase, Allowed]) -> bool:
    """Whether the candidate has the baseline's weights after every batch."""
    errors = [
        error
        for batch in run.compared
        for place, error in batch.errors.items()
        if place.phase is Phase.AFTER and place.what == WEIGHT
    ]
    return bool(errors) and all(error <= allowed[Phase.AFTER].limit for error in errors)


def inconsequential(
    whole: SideBySide, forced: SideBySide, allowed: Mapping[Phase, Allowed], first: Mapping[Place, int]
) -> dict[Place, int]:
    """Places that differ and are no fault.

    What an optimiser keeps and the other side does not, or keeps under another name, is none: a fault shows in the
    weights. Where the candidate has the baseline's weights after every batch of `whole`, neither are gradients that
    are divided where the other side divides its loss, nor an update by hand, nor numbers and rates that have had the
    time to show. A forward pass that differs is a fault. The gradient of a loss is none beside its loss.
    """
    same = forced.moves and same_weights(whole, allowed)
    dropped = {}
    for place, number in first.items():
        batch = forced.compared[number]
        if _kept_alone(place, forced, first) or (same and _other_way(place, number, whole, forced, allowed)):
            dropped[place] = number
        elif place.what == GRADIENT_OF_ACTIVATION and place.subject in batch.relation.outputs:
            loss = forced.causes.get(Place(Phase.LOSS, LOSS, ""))
            if loss is not None and loss == forced.causes.get(place):
                dropped[place] = number
    return dropped


def _kept_alone(place: Place, forced: SideBySide, first: Mapping[Place, int]) -> bool:
    """Whether it is kept by one side's optimiser alone, or one side updates by hand and has none."""
    number = first[place]
    if place not in forced.compared[number].alone:
        return False
    if place.phase is Phase.OPTIMISER and place.what != WEIGHT:
        later = len(set(forced.step_of)) - 1 > forced.step_of[number]
        return later or Place(Phase.OPTIMISER, WEIGHT, place.subject) in first or not forced.options_differ
    return place.phase in _UNNAMED and forced.by_hand


def _other_way(
    place: Place, number: int, whole: SideBySide, forced: SideBySide, allowed: Mapping[Phase, Allowed]
) -> bool:
    batch, limit = forced.compared[number], allowed[place.phase].limit
    exact = allowed[Phase.AFTER].limit <= _EXACT
    if place.phase in _DIVIDED:
        return _steps_from(number, whole) > 0
    if place.phase is Phase.SCHEDULE:  # set before a step on one side, and after the step before on the other
        return exact and _steps_from(number + 1, whole) > 0
    if place.phase not in _UNNAMED:
        return False
    if place in batch.reasons:
        return True
    if all(each.errors.get(place, 0.0) <= limit for each in whole.compared):
        return True  # forcing it upstream made the difference
    needed = 0 if place.phase is Phase.CLIP else _STEPS
    return exact and _steps_from(number, whole) > needed


def _steps_from(number: int, whole: SideBySide) -> int:
    """Steps from a batch on in which weights move: those at a rate of 0 show nothing."""
    steps = {
        step
        for step, (rate, _) in list(zip(whole.step_of, whole.rates, strict=True))[number:]
        if rate or math.isnan(rate)
    }
    return len(steps)


def different(forced: SideBySide, dropped: Mapping[Place, int]) -> list[str]:
    """What was dropped, as a note."""
    told = {place: number for place, number in dropped.items() if place.what != GRADIENT_OF_ACTIVATION}
    if not told:
        return []
    said = dict.fromkeys(
        f"{place.phase}, {place.what}: {forced.compared[number].reasons.get(place, 'other numbers')}"
        for place, number in told.items()
    )
    some = "; ".join(list(said)[:_SHOWN]) + (f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else "")
    return [f"the trainings go other ways, to the same weights after every batch ({some})"]
