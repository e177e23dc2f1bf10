"""What a copy of a model returns, and whether what something else of it returns is as near to float64."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.bench.nearness import Error, Few, Near, near, near_enough
from verifier.border import heartbeat
from verifier.border.programs import translating
from verifier.cells import ORACLE, Cell
from verifier.errors import ModelError
from verifier.graph.chance import same_chance
from verifier.graph.instrument import Instrument
from verifier.graph.returned import Returned
from verifier.graph.tensors import same_numbers, tensors_in
from verifier.inputs.samples import batch_size, ends, picked
from verifier.lockstep import Meeting, meet
from verifier.models.casting import cast, running
from verifier.models.compiled import interpreted
from verifier.models.copying import copy_with, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from verifier.bench.side import Side
    from verifier.inputs import Inputs


def begin(side: Side) -> None:
    """Tell who listens what is run."""
    heartbeat.stage("running the models as they were given")
    heartbeat.model(side.role)


def one_of_each_size(parts: Sequence[Inputs]) -> list[Inputs]:
    """Of some batches one of each number of samples."""
    return list({batch_size(each): each for each in reversed(parts)}.values())


def all_near(found: Sequence[Near]) -> bool:
    """Whether every tensor of something is near; what is the same has none."""
    return all(each.near for each in found)


def copied(side: Side, cell: Cell, seed: int | None = None) -> nn.Module:
    """A copy of the model; with a `seed` all its weights are off by a rounding."""
    state = state_of(side.model)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        state = {name: _jittered(tensor, side.cell(), generator) for name, tensor in state.items()}
    state = {name: cast(tensor, cell) for name, tensor in state.items()}
    return copy_with(side.model, state, lambda tensor: cast(tensor, cell), role=side.role)


def _jittered(tensor: Tensor, cell: Cell, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 2 - 1
    changed = tensor.double() * (1 + cell.unit_roundoff * noise.to(tensor.device))
    return cast(changed.to(tensor.dtype), cell)


def returned_by(
    side: Side, copied: nn.Module, inputs: Inputs, cell: Cell, *, failing: bool = False
) -> list[Tensor] | None:
    """What a copy returns, with the model's own tensors; None where it does not run, unless that is `failing`."""
    args, kwargs = side.arguments(inputs, cell)
    failure = partial(side.failure, inputs=inputs) if failing else lambda _: ModelError("")
    try:
        telling = _Teller.of(copied, (args, kwargs))
        with translating(failure), torch.no_grad(), running(cell), same_chance(), interpreted(), telling:
            values = Returned.of(copied(*args, **kwargs)).values()
            return None if any(t.is_meta for t in values) else [t.clone() for t in values]
    except ModelError:
        if failing:
            raise
        return None


class _Teller(Instrument):
    """Says where a run stands, so that a process that dies in it is told with that."""

    @classmethod
    def of(cls, model: nn.Module, given: object) -> contextlib.AbstractContextManager[object]:
        """One for a copy that nobody else holds, where anybody listens."""
        return cls(model, tensors_in(given)) if heartbeat.watched() else contextlib.nullcontext()

    def on_call(self, *_: object) -> None:
        """Nothing is kept of a call."""


def same(one: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
    """Whether two lists of tensors hold the same numbers."""
    return len(one) == len(two) and all(map(same_numbers, one, two))


_DRAWS = 2  # of weights, that tell whether a distance was small by luck


def agree(side: Side, inputs: Inputs, program: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[Near, ...]:
    """Whether each tensor of something is as near to float64 as a copy's is; nothing if both are the same."""
    if same(program, other):
        return ()
    if [t.shape for t in program] != [t.shape for t in other]:
        return tuple(Near(False, 0.0, each) for each in program or [torch.empty(0)])
    unit = side.cell().unit_roundoff
    for few in _few(side, inputs, program):
        found = tuple(map(partial(near_enough, unit), program, other, few))
        if all_near(found):
            return found
    exact = returned_by(side, copied(side, ORACLE), inputs, ORACLE)
    if exact is None or [t.shape for t in exact] != [t.shape for t in program]:
        exact = list(program)
    errors = list(map(Error.of, exact, program))
    found = tuple(map(partial(near, unit), exact, program, other, errors))
    if not all(each.near for each in found):
        for seed in range(_DRAWS):
            wide, narrow = (
                returned_by(side, copied(side, cell, seed), inputs, cell) for cell in (ORACLE, side.cell())
            )
            if wide is not None and narrow is not None and len(wide) == len(narrow) == len(errors):
                again = map(Error.of, wide, narrow)
                errors = [one.or_larger(two) for one, two in zip(errors, again, strict=True)]
        found = tuple(map(partial(near, unit), exact, program, other, errors))
    return found


def _few(side: Side, inputs: Inputs, program: Sequence[Tensor]) -> Iterator[Sequence[Few | None]]:
    """For each output nothing, then what a copy gives on a few samples, where these are not all."""
    yield [None] * len(program)
    few = picked(inputs, ends(batch_size(inputs)))
    if batch_size(few) >= batch_size(inputs):
        return
    wide, narrow = (returned_by(side, copied(side, cell), few, cell) for cell in (ORACLE, side.cell()))
    if wide is None or narrow is None:
        return
    shapes = [[t.shape[1:] for t in each] for each in (wide, narrow, program)]
    if shapes[0] == shapes[1] == shapes[2] and all(t.is_floating_point() for t in wide):
        yield list(map(Few, wide, narrow))


def apart(program: Sequence[Tensor], given: Sequence[Tensor], found: Sequence[Near]) -> tuple[Meeting, ...]:
    """What was returned by something else than a copy, held against float64; a count that differs too."""
    if len(found) == len(program) == len(given):
        return meet([each.like for each in found], given)
    count = min(len(program), len(given))
    more = () if len(program) == len(given) else (Meeting((len(program),), (len(given),), None),)
    return (*meet(program[:count], given[:count]), *more)
