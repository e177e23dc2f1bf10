"""Operators moved, left out, added and replaced."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from verifier.diagnose import codes
from verifier.diagnose.edits.edit import Edit, shown
from verifier.diagnose.edits.leaves import is_number, leaves
from verifier.diagnose.edits.program import Edge
from verifier.diagnose.edits.wiring import named
from verifier.graph.operators import MOVES, SELECTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set

    from verifier.diagnose.edits.context import Context
    from verifier.diagnose.edits.program import Key, Place, Program, Step

_LAID_OUT = MOVES | SELECTS


def moved(context: Context) -> Iterator[Edit]:
    """One operator at another place: first where it changes places with a neighbour."""
    found = [edit for at, _ in context.steps() for edit in _moves(context, at)]
    yield from (edit for _, edit in sorted(found, key=lambda each: each[0]))


def neighbours(context: Context) -> Iterator[Edit]:
    """Two operators, one behind the other, in each other's place."""
    found = [edit for at, _ in context.steps() for edit in _moves(context, at) if edit[0] < _FAR]
    yield from (edit for _, edit in sorted(found, key=lambda each: each[0]))


_FAR = 2


def _moves(context: Context, at: int) -> Iterator[tuple[int, Edit]]:
    program, step = context.program, context.program.steps[at]
    if step.op in _LAID_OUT:
        return
    for slot, source in enumerate(step.sources):
        if source is None:
            continue
        without = program.bypassed(at, slot)
        for place in context.places(without):
            index, key = without.index_at(place), without.read_at(place)
            itself = isinstance(place, Edge) and place.at == at
            if key is None or itself or (key == source and index > at):
                continue
            reader = without.reader_at(place)
            up = index < at and reader is not None
            if up and reader is not None:
                where = f"{step.op} follows {reader.op} where it is to precede it"
                near = program.maker(source) == index
            else:
                where = f"{step.op} precedes {named(program, key)} where it is to follow it"
                maker = program.maker(key)
                near = maker is not None and step.first in program.steps[maker].sources
            changed = _inserted(without, step, slot, place)
            if changed is not None and key != step.first:
                yield (
                    (0 if near else _FAR) + (not up),
                    Edit(
                        "order-different",
                        where,
                        "exchange the two" if near else f"move {step.op}",
                        changed,
                        (step.name,) if reader is None else (step.name, reader.name),
                    ),
                )


def _inserted(program: Program, step: Step, slot: int, place: Place) -> Program | None:
    """A step at a place; None where its other operands are made behind it."""
    at = program.index_at(place)
    for k, source in enumerate(step.sources):
        maker = None if source is None else program.maker(source)
        if k != slot and maker is not None and maker >= at:
            return None
    return program.inserted(step, slot, place)


def fewer(context: Context) -> Iterator[Edit]:
    """One operator left out: what reads it reads one of its operands, be it a parameter."""
    program = context.program
    for at, step in context.steps():
        left = [program.bypassed(at, slot) for slot, source in enumerate(step.sources) if source is not None]
        if step.first != program.result:
            held = [step.call.arguments[name] for name in step.call.state]
            left += [program.unread(at, tensor) for tensor in held if isinstance(tensor, Tensor)]
        for changed in left:
            yield Edit(
                codes.of_region([], [step.op], _reader(program, step.first)),
                f"{step.op} is one operator too many",
                f"remove the {step.op}",
                changed,
                (step.name,),
                step.op not in context.operators,
            )


def without(context: Context) -> Iterator[Edit]:
    """All operators between left out, where they are several: each reader reads what the first of them reads."""
    program = context.program
    between = [step for step in program.steps if step.first != program.result]
    if len(between) < 2:
        return
    changed = program
    for at, step in enumerate(program.steps):
        if step in between:
            slot = next((k for k, source in enumerate(step.sources) if source is not None), None)
            if slot is None:
                return
            changed = changed.bypassed(at, slot)
    ops = [step.op for step in between]
    told = ", ".join(op for op in ops if op not in MOVES) or ", ".join(ops)
    yield Edit(
        codes.of_region([], ops, program.steps[-1].op),
        f"{told} are operators too many",
        f"remove the {told}",
        changed,
        tuple(step.name for step in between),
    )


def _reader(program: Program, key: Key) -> str:
    return next((step.op for step in program.steps if key in step.sources), "output")


def more(context: Context) -> Iterator[Edit]:
    """One operator of the baseline's added where the candidate has none: of which it has fewer."""
    program = context.program
    here, there = ([step.op for step in each.steps] for each in (program, context.baseline))
    lacking = [step for step in context.baseline.steps if here.count(step.op) < there.count(step.op)]
    for extra in sorted(lacking, key=lambda step: here.count(step.op)):
        for slot, sources in _readable(context, extra):
            step = replace(extra, sources=sources)
            for place in context.places(program):
                changed = _inserted(program, step, slot, place)
                key, reader = program.read_at(place), program.reader_at(place)
                if changed is None or key is None:
                    continue
                before = "the output" if reader is None else reader.op
                yield Edit(
                    codes.of_region([extra.op], [], before),
                    f"{_written(extra)} is missing between {named(program, key)} and {before}",
                    f"add the {_written(extra)}",
                    changed,
                    () if reader is None else (reader.name,),
                    known=True,
                )


def chains(context: Context) -> Iterator[Edit]:
    """Two to four operators of the baseline's, one behind the other, added where the candidate has none."""
    program, steps = context.program, context.baseline.steps
    for length, start in itertools.product(range(2, _LONGEST + 1), range(len(steps))):
        chain = _chain(context, steps[start : start + length])
        if chain is None or len(chain) != length:
            continue
        for place in context.places(program):
            changed, at = program, program.index_at(place)
            there: Place = place
            for step, slot in reversed(chain):  # each in front of the one that was added before
                more = _inserted(changed, step, slot, there)
                if more is None:
                    break
                changed, there = more, Edge(at, slot)
            else:
                reader = program.reader_at(place)
                before = "the output" if reader is None else reader.op
                told = ", ".join(_written(step) for step, _ in chain)
                yield Edit(
                    codes.of_region([step.op for step, _ in chain], [], before),
                    f"{told} are missing before {before}",
                    f"add {told}",
                    changed,
                    () if reader is None else (reader.name,),
                    known=True,
                )


_LONGEST = 4


def _chain(context: Context, steps: Sequence[Step]) -> list[tuple[Step, int]] | None:
    """Steps that each read the one before, with the operand by which they do; None if they do not."""
    found = []
    before: Key | None = None
    for step in steps:
        for slot, sources in _readable(context, step):
            if before is None or step.sources[slot] == before:
                found.append((replace(step, sources=sources), slot))
                break
        else:
            return None
        before = step.first
    return found


def _written(step: Step) -> str:
    """An operator with the numbers that are written in it."""
    numbers = [shown(leaf.value) for leaf in leaves(step.call) if is_number(leaf.value)]
    return f"{step.op} ({', '.join(numbers)})" if 0 < len(numbers) <= _FEW else step.op


_FEW = 4


def _readable(context: Context, step: Step) -> Iterator[tuple[int, tuple[Key | None, ...]]]:
    """A baseline's step with all operands but one from where the candidate has the same tensors."""
    sources = tuple(None if source is None else context.twins.get(source) for source in step.sources)
    for slot, source in enumerate(step.sources):
        rest = [k for k in range(len(sources)) if k != slot and step.sources[k] is not None]
        if source is not None and all(sources[k] is not None for k in rest):
            yield slot, sources


def replaced_in_kind(context: Context) -> Iterator[Edit]:
    """One operator of the baseline's in the place of one of its kind: an activation, a norm, a pooling.

    Only of which the candidate has fewer: with as many of them it has one of its own too many, not another.
    """
    here, there = ([step.op for step in each.steps] for each in (context.program, context.baseline))
    lacking = {op for op in there if here.count(op) < there.count(op)}
    return (edit for edit in replaced(context, lacking) if edit.code != "operator-different")


def replaced(context: Context, among: Set[str] | None = None) -> Iterator[Edit]:
    """One operator of the baseline's, with its settings, on the operands of one of the candidate's."""
    program = context.program
    others = [step for step in context.baseline.steps if among is None or step.op in among]
    for (at, step), other in itertools.product(context.steps(), others):
        if len(step.sources) != len(other.sources) or step.op == other.op or step.op in _LAID_OUT:
            continue
        orders = [range(len(step.sources))] if len(step.sources) != 2 else [(0, 1), (1, 0)]
        for order in orders:
            new = replace(other, sources=tuple(step.sources[k] for k in order), first=step.first)
            if any(source is None for source in new.sources):
                continue
            yield Edit(
                codes.of_operator(step.op, other.op),
                f"it is {step.op}, the baseline {other.op}",
                f"use {other.op}",
                program.with_step(at, new),
                (step.name,),
                known=True,
            )
