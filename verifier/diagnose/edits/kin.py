"""Operators near to those of the candidate's that the baseline need not have by name: others of a family, idioms."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from verifier.diagnose import codes
from verifier.diagnose.edits.edit import Edit
from verifier.diagnose.edits.leaves import leaves
from verifier.diagnose.edits.program import Step, fresh
from verifier.diagnose.edits.wiring import named
from verifier.graph import KeptCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from verifier.diagnose.edits.context import Context
    from verifier.diagnose.edits.program import Key, Place

    Make = Callable[..., Tensor]

# Families whose members take the same arguments: of one tensor, of a tensor and axes, of two tensors.
_FAMILIES: tuple[dict[str, Make], ...] = (
    {
        "relu": torch.relu,
        "silu": torch.nn.functional.silu,
        "gelu": torch.nn.functional.gelu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "softplus": torch.nn.functional.softplus,
        "hardsigmoid": torch.nn.functional.hardsigmoid,
        "hardswish": torch.nn.functional.hardswish,
        "relu6": torch.nn.functional.relu6,
    },
    {"mean": torch.mean, "sum": torch.sum, "amax": torch.amax, "amin": torch.amin},
    {"softmax": torch.softmax, "log_softmax": torch.log_softmax},
    {"cos": torch.cos, "sin": torch.sin},
    {"exp": torch.exp, "exp2": torch.exp2, "expm1": torch.expm1},
    {"log": torch.log, "log2": torch.log2, "log1p": torch.log1p, "log10": torch.log10},
    {"sqrt": torch.sqrt, "rsqrt": torch.rsqrt},
    {"add": torch.add, "sub": torch.sub},
    {"mul": torch.mul, "div": torch.div},
    {"maximum": torch.maximum, "minimum": torch.minimum},
    {"ge": torch.ge, "gt": torch.gt, "le": torch.le, "lt": torch.lt},
    {"floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "trunc": torch.trunc},
)
_ARGUMENTS = frozenset({"dim", "keepdim"})


def replaced(context: Context) -> Iterator[Edit]:
    """One operator that is another of its family; not one of which there are as many as in the baseline already."""
    here, there = ([step.op for step in each.steps] for each in (context.program, context.baseline))
    for at, step in context.steps():
        for family in _FAMILIES:
            if step.op not in family:
                continue
            for op, function in family.items():
                there_already = op in there and here.count(op) >= there.count(op)
                call = None if op == step.op or there_already else _as(step, function)
                if call is None:
                    continue
                yield Edit(
                    codes.of_operator(step.op, op),
                    f"it is {step.op} where {op} is right",
                    f"use {op}",
                    context.program.with_step(at, replace(step, op=op, call=call)),
                    (step.name,),
                    op in context.operators,
                )


def taken(context: Context) -> Iterator[Edit]:
    """One place along an axis where a mean, a sum, ... over all of it is right, and the other way round."""
    for at, step in context.steps():
        if len(step.call.operands) != 1 or step.call.state:
            continue
        (x,) = step.call.operands
        axis = _axis_of(step, x.dim())
        if axis is not None:
            for op, function in _FAMILIES[1].items():
                call = KeptCall.of(function, (x, axis), {}, set())
                yield _exchanged(context, at, call, op, f"one place along dim {axis}", f"its {op}")
        elif step.op in _FAMILIES[1]:
            for axis in range(x.dim()):
                for place, which in ((0, "first"), (-1, "last")):
                    call = KeptCall.of(torch.select, (x, axis, place), {}, set())
                    yield _exchanged(
                        context, at, call, "select", f"the {step.op}", f"the {which} along dim {axis}"
                    )


def _axis_of(step: Step, rank: int) -> int | None:
    """The axis of which a step takes one place and leaves the others as they are; None where it does not."""
    given = list(step.call.arguments.values())[1:]
    if step.op == "select" and len(given) == 2 and isinstance(given[0], int):
        return given[0] % rank
    if step.op != "getitem" or len(given) != 1:
        return None
    index = given[0] if isinstance(given[0], tuple) else (given[0],)
    index = tuple(each for each in index if each is not Ellipsis)
    axes = [k for k, each in enumerate(index) if type(each) is int]
    whole = all(each == slice(None) for each in index if type(each) is not int)
    if len(axes) != 1 or not whole:
        return None
    behind = isinstance(given[0], tuple) and given[0][0] is Ellipsis
    return axes[0] + rank - len(index) if behind else axes[0]


def _exchanged(context: Context, at: int, call: KeptCall, op: str, told: str, right: str) -> Edit:
    step = context.program.steps[at]
    return Edit(
        codes.of_operator(step.op, op),
        f"it takes {told} where {right} is right",
        f"take {right}",
        context.program.with_step(at, replace(step, op=op, call=replace(call, widens=step.call.widens))),
        (step.name,),
        op in context.operators,
    )


def _as(step: Step, function: Make) -> KeptCall | None:
    """A step's call of another function: its tensors and its axes, where it has nothing else to say."""
    call = step.call
    positional = [call.arguments[name] for name in call.positional]
    keywords = {name: value for name, value in call.arguments.items() if name not in call.positional}
    if not keywords.keys() <= _ARGUMENTS or call.state:
        return None
    return replace(KeptCall.of(function, positional, keywords, set()), widens=call.widens)


def one_more(context: Context) -> Iterator[Edit]:
    """A function of one tensor that the candidate has elsewhere, where it has none."""
    program = context.program
    functions = _FAMILIES[0]
    have = [op for op in dict.fromkeys(step.op for _, step in context.steps()) if op in functions]
    for place in context.places(program):
        key, reader = program.read_at(place), program.reader_at(place)
        if key is None or not context.tensor(key).is_floating_point():
            continue
        before = "the output" if reader is None else reader.op
        for op in have:
            call = KeptCall.of(functions[op], (context.tensor(key),), {}, set())
            yield Edit(
                f"{codes.family(op)}-missing",
                f"{op} is missing between {named(program, key)} and {before}",
                f"add the {op}",
                program.inserted(Step(op, op, call, (key,), fresh()), 0, place),
                () if reader is None else (reader.name,),
            )


def missing(context: Context) -> Iterator[Edit]:
    """A few operators that are written on one tensor: its mean taken off, divided by its sum or its length."""
    program = context.program
    for place in context.places(program):
        key = program.read_at(place)
        if key is None or not context.tensor(key).is_floating_point():
            continue
        for dims in _dims(context, context.tensor(key).dim()):
            for op, inner, told in _IDIOMS:
                yield _inserted(context, place, key, op, inner, told, dims)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "div": torch.div,
    "mean": torch.mean,
    "sub": torch.sub,
    "sum": torch.sum,
}
_IDIOMS = (
    ("sub", "mean", "its mean is not taken off"),
    ("div", "sum", "it is not divided by its sum"),
)


def _dims(context: Context, rank: int) -> list[tuple[int, ...]]:
    """Axes to go along: the last, those written in either side's calls, each alone."""
    found = [(rank - 1,)] if rank else []
    for step in (*context.program.steps, *context.baseline.steps):
        for name, value in step.call.arguments.items():
            if isinstance(value, list | tuple) and name.startswith(("dim", "arg")) and _fit(value, rank):
                found.append(tuple(sorted({axis % rank for axis in value})))
        found += [
            (leaf.value % rank,)
            for leaf in leaves(step.call)
            if leaf.name == "dim" and isinstance(leaf.value, int) and -rank <= leaf.value < rank
        ]
    found += [(axis,) for axis in range(rank)]
    return list(dict.fromkeys(found))


def _fit(axes: Sequence[Any], rank: int) -> bool:
    return bool(axes) and all(isinstance(axis, int) and -rank <= axis < rank for axis in axes)


def _inserted(
    context: Context, place: Place, key: Key, op: str, inner: str, told: str, dims: Sequence[int]
) -> Edit:
    program = context.program
    x = context.tensor(key)
    over = KeptCall.of(_FUNCTIONS[inner], (x, tuple(dims)), {"keepdim": True}, set())
    reduced = Step(inner, inner, over, (key,), fresh())
    outer = KeptCall.of(_FUNCTIONS[op], (x, x), {}, set())
    joined = Step(op, op, outer, (key, reduced.first), fresh())
    reader = program.reader_at(place)
    changed = program.inserted(joined, 0, place)
    at = next(k for k, each in enumerate(changed.steps) if each.op == op and each.call is outer)
    changed = replace(changed, steps=(*changed.steps[:at], reduced, *changed.steps[at:]))
    before = "the output" if reader is None else reader.op
    where = f"{named(program, key)} before {before}"
    return Edit(
        f"{op}-missing",
        f"{told}: {inner}, {op} are missing behind {where}",
        f"add {inner} over {', '.join(map(str, dims))} and {op}",
        changed,
        () if reader is None else (reader.name,),
        {op, inner} <= context.operators,
    )
