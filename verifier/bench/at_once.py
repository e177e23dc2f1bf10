"""Deployed forms that are made for one number of samples: others go through so many at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from verifier.inputs.samples import batch_size

if TYPE_CHECKING:
    from verifier.bench.side import Side
    from verifier.inputs import Inputs
    from verifier.inputs.streams import Stream

Sides = tuple["Side", "Side"]


def samples_at_once(
    sides: Sides, given: Inputs, stream: Stream | None, asked: int | None
) -> tuple[Sides, int | None]:
    """How many samples go through both models at once, and the models with a note where a form decides that.

    Args:
        sides: Both models.
        given: What they are run on.
        stream: The batches of a data set, which say themselves how many.
        asked: How many were asked for; None for all.
    """
    if asked is not None or stream is not None:
        return sides, asked
    for side in sides:
        number = fixed(side, given)
        if number and number < batch_size(given) and not batch_size(given) % number:
            note = (
                f"the {side.role} is made for {number} at a time: so many samples went through both at once"
            )
            noted = replace(side, notes=(*side.notes, note))
            return (noted, sides[1]) if side is sides[0] else (sides[0], noted), number
    return sides, None


def fixed(side: Side, given: Inputs) -> int | None:
    """The number of samples that a form says it takes; None for any, or where it says none."""
    dim, shapes = given.batch_dim, () if side.form is None else side.form.shapes
    if dim is None or not shapes or not -len(shapes[0]) <= dim < len(shapes[0]):
        return None
    return shapes[0][dim]
