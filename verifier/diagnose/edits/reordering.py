"""Tensors read in another order: turned about, by pairs or by halves, or with a move that another one undoes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from verifier.diagnose import codes
from verifier.diagnose.edits.edit import Edit
from verifier.diagnose.edits.program import Step, fresh
from verifier.diagnose.edits.relations import ORDER
from verifier.diagnose.edits.wiring import named
from verifier.graph import KeptCall
from verifier.graph.operators import MOVES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from verifier.diagnose.edits.context import Context
    from verifier.diagnose.edits.program import Key, Place, Program

_MOST_PLACES = 48
_MOST_PARTS = 4


def turned(context: Context) -> Iterator[Edit]:
    """A tensor turned about along one axis where it is read."""
    program = context.program
    for place in _places(context):
        key = program.read_at(place)
        if key is None:
            continue
        tensor, reader = context.tensor(key), program.reader_at(place)
        for axis in _long(tensor):
            call = KeptCall.of(torch.flip, (tensor, (axis,)), {}, set())
            before = "the output" if reader is None else reader.op
            yield Edit(
                ORDER,
                f"{named(program, key)} is not reversed along axis {axis} before {before}",
                f"flip it along axis {axis}",
                program.inserted(Step("flip", "flip", call, (key,), fresh()), 0, place),
                () if reader is None else (reader.name,),
                "flip" in context.operators,
            )


def swapped(context: Context) -> Iterator[Edit]:
    """Two axes of a tensor exchanged before it is laid out anew: the transpose between heads and tokens, say."""
    program = context.program
    for place in _places(context):
        key, reader = program.read_at(place), program.reader_at(place)
        if key is None or reader is None or reader.op not in MOVES:
            continue
        tensor = context.tensor(key)
        for axes in itertools.combinations(_long(tensor), 2):
            call = KeptCall.of(torch.transpose, (tensor, *axes), {}, set())
            yield Edit(
                codes.of_region(["transpose"], [], reader.op),
                f"transpose {axes} is missing between {named(program, key)} and {reader.op}",
                f"add transpose {axes}",
                program.inserted(Step("transpose", "transpose", call, (key,), fresh()), 0, place),
                (reader.name,),
                "transpose" in context.operators,
            )


def turned_and_back(context: Context) -> Iterator[Edit]:
    """A tensor that comes in turned about along one axis, and what goes out turned back."""
    program = context.program
    for key in (key for key in context.tensors if program.maker(key) is None):
        for axis in _long(context.tensor(key)):
            order = torch.arange(context.tensor(key).shape[axis]).flip(0)
            summary = f"{named(program, key)} is not reversed along axis {axis}"
            changed = _reordered(context, program, key, axis, order)
            one = Edit(ORDER, summary, "read it reversed, and reverse it back", changed, _at(program, key))
            yield from _and_back(context, one, order)


def _places(context: Context) -> list[Place]:
    return context.places(context.program)[-_MOST_PLACES:]


def _long(tensor: Tensor) -> list[int]:
    return [axis for axis in range(tensor.dim()) if tensor.shape[axis] > 1]


def undone_less(context: Context) -> Iterator[Edit]:
    """Two operators that lay a tensor out in another order, there and back, left out."""
    program = context.program
    movers = [at for at, step in context.steps() if step.op in MOVES and len(step.sources) == 1]
    for one, other in itertools.combinations(movers, 2):
        first, second = program.steps[one], program.steps[other]
        if first.op != second.op:
            continue
        yield Edit(
            codes.of_region([], [first.op, second.op], _reader(program, second.first)),
            f"{first.op} and the {second.op} that undoes it put axes in another order than the baseline",
            f"remove both {first.op}",
            program.bypassed(one, 0).bypassed(other, 0),
            (first.name, second.name),
        )


def _reader(program: Program, key: Key) -> str:
    return next((step.op for step in program.steps if key in step.sources), "output")


def interleaved(context: Context) -> Iterator[Edit]:
    """A tensor whose parts lie side by side read as if they took turns, or the other way about; put back or not."""
    program = context.program
    for key in context.tensors[:_MOST_PLACES]:
        tensor = context.tensor(key)
        for axis in reversed(_long(tensor)):
            n = tensor.shape[axis]
            for parts in (k for k in range(2, _MOST_PARTS + 1) if n % k == 0 and n > k):
                for order, told in _orders(n, parts):
                    changed = _reordered(context, program, key, axis, order)
                    summary = f"{named(program, key)} {told} along axis {axis} where the other order is right"
                    one = Edit(ORDER, summary, "read it in the other order", changed, _at(program, key))
                    yield one
                    yield from _and_back(context, one, order)


def _at(program: Program, key: Key) -> tuple[str, ...]:
    return tuple(dict.fromkeys(step.name for step in program.steps if key in step.sources))


def _orders(n: int, parts: int) -> Iterator[tuple[Tensor, str]]:
    by_turns = torch.arange(n).view(-1, parts).t().flatten()
    in_turns = torch.arange(n).view(parts, -1).t().flatten()
    pairs = "pairs" if parts == 2 else f"turns of {parts}"
    pieces = "halves" if parts == 2 else f"{parts} parts"
    yield by_turns, f"is read in {pieces}, not in {pairs} (interleaved),"
    if not in_turns.equal(by_turns):
        yield in_turns, f"is read in {pairs} (interleaved), not in {pieces},"


def _and_back(context: Context, one: Edit, order: Tensor) -> Iterator[Edit]:
    wanted = context.wanted
    back = order.argsort()
    for axis in range(wanted.dim()):
        if wanted.shape[axis] == len(order):
            changed = _reordered(context, one.program, one.program.result, axis, back)
            summary = f"{one.summary}, and what comes out along axis {axis} accordingly"
            yield replace(one, summary=summary, program=changed)


def _reordered(context: Context, program: Program, key: Key, axis: int, order: Tensor) -> Program:
    """A program that reads a tensor with one axis in another order."""
    given = context.wanted if key == program.result else context.tensor(key)
    call = KeptCall.of(torch.index_select, (given, axis, order.to(given.device)), {}, set())
    new = Step("index_select", "index_select", call, (key, None), fresh())
    maker = program.maker(key)
    after = -1 if maker is None else maker
    changed = program.renamed({key: new.first}, after)
    return replace(changed, steps=(*changed.steps[: after + 1], new, *changed.steps[after + 1 :]))
