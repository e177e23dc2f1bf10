"""Other operands: two exchanged, two tensors in each other's place everywhere, one from another source."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from verifier.diagnose.edits.edit import Edit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.diagnose.edits.context import Context
    from verifier.diagnose.edits.program import Key, Program

_MOST_TENSORS = 12
_MOST_PERMUTED = 4


def exchanged(context: Context) -> Iterator[Edit]:
    """The operands of one call in another order: two of them, or of a few every order."""
    program = context.program
    for at, step in context.steps():
        count = len(step.sources)
        if count < 2:
            continue
        orders = itertools.permutations(range(count)) if count <= _MOST_PERMUTED else _swaps(count)
        for order in sorted(orders, key=lambda order: sum(k != j for k, j in enumerate(order))):
            if list(order) == list(range(count)):
                continue
            operands = step.call.operands
            call = step.call.with_operands([operands[k] for k in order])
            changed = replace(step, call=call, sources=tuple(step.sources[k] for k in order))
            yield Edit(
                "operand-order",
                f"{step.op} takes its operands in another order: {_names(program, step.sources)}, "
                f"where {_names(program, changed.sources)} is right",
                "exchange its operands",
                program.with_step(at, changed),
                (step.name,),
            )


def _swaps(count: int) -> Iterator[tuple[int, ...]]:
    for one, other in itertools.combinations(range(min(count, 8)), 2):
        order = list(range(count))
        order[one], order[other] = other, one
        yield tuple(order)


def _names(program: Program, sources: tuple[Key | None, ...]) -> str:
    return ", ".join(named(program, source) for source in sources)


def named(program: Program, key: Key | None) -> str:
    """What a tensor is called in a sentence: by what made it, without where that stands."""
    if key is None:
        return "a constant"
    maker = program.maker(key)
    if maker is not None:
        step = program.steps[maker]
        return step.op if key == step.first else f"{step.op}[{key - step.first}]"
    return program.names.get(key, "an input" if key < 0 else "another tensor")


def crossed(context: Context) -> Iterator[Edit]:
    """Two tensors of one shape in each other's place wherever they are read: the parts of a split, say."""
    program = context.program
    for one, other in itertools.combinations(_tensors(context), 2):
        if not _alike(context, one, other):
            continue
        makers = [program.maker(key) for key in (one, other)]
        if makers[0] != makers[1]:  # a step may not read what comes after it
            if any(maker is not None for maker in makers):
                continue
            changed = program.renamed({one: other, other: one})
        else:
            changed = program.renamed({one: other, other: one}, -1 if makers[0] is None else makers[0])
        reads = {source for step in program.steps for source in step.sources}
        if one not in reads or other not in reads:
            continue
        names = named(program, one), named(program, other)
        yield Edit(
            "operand-order",
            f"{names[0]} and {names[1]} are exchanged: each is read where the other is right",
            f"exchange {names[0]} and {names[1]}",
            changed,
            tuple(step.name for step in program.steps if {one, other} & set(step.sources)),
        )


def resourced(context: Context) -> Iterator[Edit]:
    """One operand from another place: another tensor of its shape that is made before."""
    program = context.program
    tensors = _tensors(context)
    for at, slot, source in context.edges():
        step = program.steps[at]
        for key in tensors:
            maker = program.maker(key)
            if key == source or (maker is not None and maker >= at) or not _alike(context, key, source):
                continue
            names = named(program, source), named(program, key)
            yield Edit(
                "wiring-different",
                f"{step.op} reads {names[0]} where {names[1]} is right",
                f"let {step.op} read {names[1]}",
                program.with_step(at, step.reading(slot, key)),
                (step.name,),
                key in context.twins.values(),
                reread=(source, key),
            )
    for key in tensors:
        if key != program.result and _alike(context, key, program.result):
            names = named(program, program.result), named(program, key)
            yield Edit(
                "wiring-different",
                f"{names[0]} is handed on where {names[1]} is right",
                f"hand on {names[1]}",
                replace(program, result=key),
                (program.steps[-1].name,) if program.steps else (),
            )


def reads_exchanged(context: Context) -> Iterator[Edit]:
    """What two calls read in each other's place, by one operand each."""
    program = context.program
    edges = context.edges()[:_MOST_EDGES]
    for (at, slot, one), (other_at, other_slot, other) in itertools.combinations(edges, 2):
        if at == other_at or one == other or not _alike(context, one, other):
            continue
        maker = program.maker(other)
        if maker is not None and maker >= at:
            continue
        first, second = program.steps[at], program.steps[other_at]
        changed = program.with_step(at, first.reading(slot, other))
        changed = changed.with_step(other_at, second.reading(other_slot, one))
        names = named(program, one), named(program, other)
        yield Edit(
            "operand-order",
            f"{names[0]} and {names[1]} are exchanged: {first.op} reads the one and {second.op} the other",
            f"exchange {names[0]} and {names[1]}",
            changed,
            (first.name, second.name),
        )


_MOST_EDGES = 40


def _tensors(context: Context) -> list[Key]:
    """The keys there are, what comes in before what is made."""
    return context.tensors[:_MOST_TENSORS]


def _alike(context: Context, one: Key, other: Key) -> bool:
    tensors = context.tensor(one), context.tensor(other)
    return tensors[0].shape == tensors[1].shape and tensors[0].dtype == tensors[1].dtype
