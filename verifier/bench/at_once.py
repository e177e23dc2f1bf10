"""Deployed forms that are made for one number of samples: others go through so many at a time where they may."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from verifier.bench.outputs import agree, all_near, begin, copied, returned_by
from verifier.errors import OutOfMemoryError
from verifier.inputs.samples import batch_size, batches, sample

if TYPE_CHECKING:
    from torch import Tensor

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
        asked: How many were asked for; None for all. Where the other model gives other numbers for
            pieces than for all, the form is left to refuse them.

    Raises:
        InputError: The baseline does not take what it is given.
        ModelError: The candidate fails on it.
    """
    if asked is not None or stream is not None:
        return sides, asked
    numbers = [fixed(side, given) for side in sides]
    for side, number in zip(sides, numbers, strict=True):
        if number and number < batch_size(given) and not batch_size(given) % number:
            free = [other for other, own in zip(sides, numbers, strict=True) if not own]
            if not all(_in_pieces(other, given, number) for other in free):
                return sides, None
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


def _in_pieces(side: Side, given: Inputs, number: int) -> bool:
    """Whether a copy gives for so many samples at a time what it gives for these among all."""
    begin(side)
    whole = given if side.role == "baseline" else given.other or given
    cell = side.cell()
    try:
        program = returned_by(side, copied(side, cell), whole, cell, failing=True)
    except OutOfMemoryError:
        if batch_size(given) <= 2 * number:
            raise
        return _in_pieces(side, sample(given, 2 * number), number)
    for k, piece in enumerate(batches(whole, number)):
        alone = returned_by(side, copied(side, cell), piece, cell)
        if program is None or alone is None:
            return False
        among = [_along(t, whole, k * number, number) for t in program]
        if not all_near(agree(side, piece, alone, among)):
            return False
    return True


def _along(tensor: Tensor, inputs: Inputs, start: int, number: int) -> Tensor:
    """Some of the samples of an output, along the dimension that holds all of them, if one does."""
    count = batch_size(inputs)
    for dim in dict.fromkeys((inputs.batch_dim or 0, 0)):
        if -tensor.dim() <= dim < tensor.dim() and tensor.shape[dim] == count:
            return tensor.narrow(dim, start, number)
    return tensor
