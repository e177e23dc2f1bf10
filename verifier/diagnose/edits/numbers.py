"""Numbers of the candidate's calls, changed: solved for alone or together, tied, or endless."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch

from verifier.diagnose.edits.edit import Edit, shown
from verifier.diagnose.edits.leaves import Held, held, is_number, leaves
from verifier.diagnose.edits.schemas import argument_name
from verifier.diagnose.edits.solving import solve, written
from verifier.diagnose.edits.written import LITERAL, code_of, name_of, setting
from verifier.graph.operators import kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from verifier.diagnose.edits.context import Context
    from verifier.diagnose.edits.leaves import Leaf
    from verifier.diagnose.edits.program import Program, Step

_SAMPLE = 4096
_MOST_NUMBERS = 8  # that are solved for in subsets


def continuous(context: Context) -> list[tuple[int, Leaf]]:
    """The numbers of the candidate's calls that can have any value."""
    found = []
    for at, step in context.steps():
        for leaf in leaves(step.call):
            real = isinstance(leaf.value, float) and math.isfinite(leaf.value)
            if is_number(leaf.value) and (real or _takes_reals(step.op, leaf)):
                found.append((at, leaf))
    return found[:_MOST_NUMBERS]


def _takes_reals(op: str, leaf: Leaf | Held) -> bool:
    return not leaf.path and (kind(op) == "arithmetic" or op in _OF_REALS)


_OF_REALS = frozenset({"clamp", "elu", "hardtanh", "leaky_relu", "maximum", "pow", "rpow", "threshold"})


def solved(context: Context, size: int) -> Iterator[Edit]:
    """As many numbers at once as `size` says, solved for together."""
    for chosen in itertools.combinations(continuous(context), size):
        values = solved_for(context, chosen)
        if values is None:
            continue
        changed, told, remedies = context.program, [], []
        for (at, leaf), value in zip(chosen, values, strict=True):
            step = changed.steps[at]
            changed = changed.with_call(at, leaf.put(step.call, value))
            what = name_of(step.op, argument_name(step.call, leaf.name))
            told.append(f"{what} is {shown(leaf.value)} where {shown(value)} is right")
            remedies.append(f"{what} to {shown(value)}")
        first_at, first = chosen[0]
        op = context.program.steps[first_at].op
        yield Edit(
            code_of(op, argument_name(context.program.steps[first_at].call, first.name)),
            "; ".join(told),
            f"set {' and '.join(remedies)}",
            changed,
            tuple(context.program.steps[at].name for at, _ in chosen),
            all(value in context.numbers for value in values),
        )


def solved_for(context: Context, chosen: Sequence[tuple[int, Leaf]]) -> list[float] | None:
    """The values of some numbers that give what is wanted, as somebody would write them."""

    def changed(numbers: Sequence[float]) -> Tensor | None:
        program = context.program
        for (at, leaf), value in zip(chosen, numbers, strict=True):
            program = program.with_call(at, leaf.put(program.steps[at].call, value))
        return context.made(program)

    return fitted(context, changed, [float(leaf.value) for _, leaf in chosen])


def fitted(context: Context, make: Any, start: Sequence[float]) -> list[float] | None:
    """The numbers with which `make` gives what is wanted, exactly; None where none do.

    At least eight of the wanted numbers stand against each that is solved for.
    """
    wanted = context.wanted
    if not wanted.is_floating_point() or not wanted.numel():
        return None
    flat = wanted.double().flatten()
    finite = flat.isfinite()
    positions = finite.nonzero().flatten()
    if len(positions) < 8 * len(start):
        return None
    if len(positions) > _SAMPLE:
        positions = positions[torch.linspace(0, len(positions) - 1, _SAMPLE, device=positions.device).long()]
    target = flat[positions]
    size = float(target.norm()) or 1.0

    def residual(numbers: Sequence[float]) -> Tensor | None:
        made = make(numbers)
        if made is None or made.shape != wanted.shape:
            return None
        error = ((made.double().flatten()[positions] - target) / size).cpu()  # where least squares are solved
        return error if bool(error.isfinite().all()) else None

    found = solve(residual, start)
    if found is None:
        return None
    nice = [next(written(value, context.numbers), value) for value in found]
    for numbers in (nice, found):
        left = residual(numbers)
        if left is not None and float(left.norm()) <= context.limit:
            return numbers
    return None


def _written_in(step: Step) -> list[Leaf | Held]:
    return [*leaves(step.call), *held(step.call, step.sources)]


def endless(context: Context) -> Iterator[Edit]:
    """A number that is to stand for infinity: what fills a mask."""
    for at, step in context.steps():
        for leaf in _written_in(step):
            if not is_number(leaf.value) or not (isinstance(leaf.value, float) or leaf.name == "value"):
                continue
            for value in _ENDLESS:
                name = argument_name(step.call, leaf.name)
                call = leaf.put(step.call, value)
                yield setting(context, at, call, name, leaf.value, value, value in context.numbers)


_ENDLESS = (-math.inf, -1e30, math.inf)


def tied(context: Context) -> Iterator[Edit]:
    """One number that is written at several places, with either sign, solved for as one."""
    places = [
        (at, leaf)
        for at, step in context.steps()
        for leaf in _written_in(step)
        if is_number(leaf.value) and math.isfinite(leaf.value) and leaf.value
        if isinstance(leaf.value, float) or _takes_reals(step.op, leaf)
    ]
    sizes = dict.fromkeys(abs(leaf.value) for _, leaf in places)
    for size in sizes:
        alike = [(at, leaf) for at, leaf in places if abs(leaf.value) == size]
        if len(alike) < 2 and not isinstance(alike[0][1], Held):
            continue

        def changed(number: float, alike: Any = alike) -> Program:
            program = context.program
            for at, leaf in alike:
                sign = math.copysign(1.0, leaf.value)
                program = program.with_call(at, leaf.put(program.steps[at].call, sign * number))
            return program

        def make(numbers: Sequence[float], changed: Any = changed) -> Tensor | None:
            return context.made(changed(numbers[0]))

        found = fitted(context, make, [float(size)])
        if found is None:
            continue
        ops = ", ".join(dict.fromkeys(context.program.steps[at].op for at, _ in alike))
        right = "the baseline's" if found[0] in context.numbers else "where what is right is"
        yield Edit(
            LITERAL,
            f"the constant of {ops} is {shown(float(size))}, {right} {shown(found[0])}",
            f"set it to {shown(found[0])}",
            changed(found[0]),
            tuple(context.program.steps[at].name for at, _ in alike),
            found[0] in context.numbers,
        )
