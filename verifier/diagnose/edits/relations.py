"""What is computed, put right by one more operator: another order, exchanged axes, a factor, an offset."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.diagnose.edits.edit import Edit, shown
from verifier.diagnose.edits.numbers import fitted
from verifier.diagnose.edits.program import Program, Step, fresh
from verifier.diagnose.edits.wiring import named
from verifier.diagnose.edits.written import LITERAL
from verifier.diagnose.neighbourhood import distance
from verifier.graph import KeptCall
from verifier.recognise.axes import as_text, axis_orders
from verifier.recognise.slices import order_in_words, order_of_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from verifier.diagnose.edits.context import Context
    from verifier.diagnose.edits.program import Key

ORDER = "elements-permuted"
FACTOR = "factor-different"
OFFSET = "offset-different"


@dataclass(frozen=True)
class Relation:
    """One operator that makes one tensor another: its code, what is wrong without it, and the call."""

    code: str
    summary: str
    remedy: str
    call: KeptCall


def related(given: Tensor, wanted: Tensor, limit: float) -> Relation | None:
    """The operator that makes `wanted` of `given`; None where no single one does."""
    if not (given.is_floating_point() and wanted.is_floating_point()) or not given.numel():
        return None
    if given.numel() != wanted.numel():
        return None
    for relation in _candidates(given, wanted):
        made = relation.call.run()[0][0]
        if made.shape == wanted.shape and distance(made, wanted) <= limit:
            return relation
    return None


def _candidates(given: Tensor, wanted: Tensor) -> Iterator[Relation]:
    rank = given.dim()
    for axes in axis_orders(tuple(given.shape), tuple(wanted.shape)):
        yield Relation(
            ORDER, "has its axes in another order", f"permute its axes by {as_text(axes)}",
            _call(torch.permute, given, axes),
        )  # fmt: skip
    if given.shape != wanted.shape:
        return
    long = [axis for axis in range(rank) if given.shape[axis] > 1]
    for count in range(1, min(2, len(long)) + 1):
        for chosen in itertools.combinations(reversed(long), count):
            axes = tuple(sorted(chosen))
            yield Relation(
                ORDER, f"is reversed along axis {_axes(axes)}", f"flip it along axis {_axes(axes)}",
                _call(torch.flip, given, axes),
            )  # fmt: skip
    for axis in range(rank):
        order = order_of_slices(wanted, given, axis)
        if order is not None and rank > 1 and len(order) > 1:
            told = order_in_words(order.tolist())
            yield Relation(
                ORDER,
                f"holds the baseline's numbers in another order along axis {axis}: the baseline's is {told}",
                f"permute axis {axis}: {told}",
                _call(torch.index_select, given, axis, order),
            )
        for steps in _shifts(given.shape[axis]):
            yield Relation(
                ORDER, f"stands {abs(steps)} off along axis {axis}", f"roll it by {steps} along axis {axis}",
                _call(torch.roll, given, steps, axis),
            )  # fmt: skip


def _shifts(size: int) -> Sequence[int]:
    return (1, -1) if size > 2 else ()


def _axes(axes: Sequence[int]) -> str:
    return " and ".join(map(str, axes))


def _call(function: Callable[..., Any], *args: Any) -> KeptCall:
    return KeptCall.of(function, args, {}, set())


def inserted(context: Context) -> Iterator[Edit]:
    """An operator that makes a tensor of the candidate's one of the baseline's, where it is read."""
    for key, relation in _relations(context):
        yield _edit(context, [(key, relation)])


def all_inserted(context: Context) -> Iterator[Edit]:
    """Such an operator at each of several tensors: the first that each has."""
    first: dict[Key, Relation] = {}
    for key, relation in _relations(context):
        if key != context.program.result:
            first.setdefault(key, relation)
    for size in range(2, min(len(first), 4) + 1):
        for chosen in itertools.combinations(first.items(), size):
            yield _edit(context, chosen)


def _relations(context: Context) -> Iterator[tuple[Key, Relation]]:
    found = context.notes.get("relations")
    if found is None:
        ends = ((context.program.result, context.wanted),)
        pairs = ((key, other) for key in _made(context) for other in context.baseline_trace.of_key.values())
        found = [
            (key, relation)
            for key, other in itertools.chain(pairs, ends)
            if (relation := related(context.tensor(key), other, context.limit)) is not None
        ]
        context.notes["relations"] = found
    yield from found


def _edit(context: Context, chosen: Sequence[tuple[Key, Relation]]) -> Edit:
    program = context.program
    told = []
    sites: list[str] = []
    for key, relation in chosen:
        name = named(context.program, key)
        constants = (None,) * (len(relation.call.operands) - 1)
        new = Step(name, "index_select", relation.call, (key, *constants), fresh())
        maker = program.maker(key)
        after = -1 if maker is None else maker
        changed = program.renamed({key: new.first}, after)
        program = replace(changed, steps=(*changed.steps[: after + 1], new, *changed.steps[after + 1 :]))
        told.append(f"{name} {relation.summary}")
        sites += [] if maker is None else [changed.steps[maker].name]
    relation = chosen[0][1]
    return Edit(relation.code, "; ".join(dict.fromkeys(told)), relation.remedy, program, tuple(sites))


def _made(context: Context) -> Iterator[Key]:
    return iter(context.tensors[:16])


def states_scaled(context: Context) -> Iterator[Edit]:
    """A factor or an offset on a parameter where an operator reads it: solved for."""
    program = context.program
    for at, step in context.steps():
        for role in sorted(step.call.state):
            tensor = step.call.arguments[role]
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                continue
            for code, start, function in ((OFFSET, 0.0, torch.add), (FACTOR, 1.0, torch.mul)):

                def changed(
                    number: float, at: Any = at, role: Any = role, function: Any = function
                ) -> Program:
                    call = program.steps[at].call
                    return program.with_call(
                        at, call.with_argument(role, function(call.arguments[role], number))
                    )

                def make(numbers: Sequence[float], changed: Any = changed) -> Tensor | None:
                    return context.made(changed(numbers[0]))

                found = fitted(context, make, [start])
                if found is None or found[0] == start:
                    continue
                number = shown(found[0])
                yield Edit(
                    code,
                    f"{number} is not added to the parameter of {step.op}" if code == OFFSET
                    else f"the parameter of {step.op} is not multiplied by {number}",
                    f"add {number} to it" if code == OFFSET else f"multiply it by {number}",
                    changed(found[0]),
                    (step.name,),
                    found[0] in context.numbers,
                )  # fmt: skip


def scaled(context: Context) -> Iterator[Edit]:
    """A factor or an offset, one number, where a tensor is read: solved for."""
    program = context.program
    for place, (op, start, code, function) in itertools.product(
        [None, *context.places(program)[:-1]],
        (("a factor", 1.0, FACTOR, torch.mul), ("an offset", 0.0, OFFSET, torch.add)),
    ):
        key, reader = program.read_at(place), program.reader_at(place)
        tensor = None if key is None else context.tensor(key)
        if key is None or tensor is None or not tensor.is_floating_point():
            continue

        def changed(number: float, place: Any = place, key: Any = key, function: Any = function) -> Program:
            call = _call(function, context.tensor(key), number)
            step = Step("", "scale", call, (key,), fresh())
            return program.inserted(step, 0, place)

        def make(numbers: Sequence[float], changed: Any = changed) -> Tensor | None:
            return context.made(changed(numbers[0]))

        found = fitted(context, make, [start])
        if found is None or found[0] == start:
            continue
        where = f"of {named(program, key)}"
        if reader is not None:
            where += f" before {reader.op}"
        yield Edit(
            code,
            f"{op} of {shown(found[0])} is missing {where}" if op == "a factor"
            else f"{shown(found[0])} is not added {where}",
            f"multiply by {shown(found[0])}" if op == "a factor" else f"add {shown(found[0])}",
            changed(found[0]),
            () if reader is None else (reader.name,),
            found[0] in context.numbers,
        )  # fmt: skip


__all__ = ["FACTOR", "LITERAL", "OFFSET", "ORDER", "inserted", "related", "scaled"]
