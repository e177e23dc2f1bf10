"""What is written in the candidate's calls, changed: numbers, flags, words, axes, two numbers exchanged."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from verifier.diagnose import codes
from verifier.diagnose.edits.edit import Edit, shown
from verifier.diagnose.edits.leaves import Leaf, is_number, leaves
from verifier.diagnose.edits.schemas import DIMENSIONS, argument_name, unset, words
from verifier.graph.operators import MOVES, canonical, kind, readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.diagnose.edits.context import Context
    from verifier.diagnose.edits.program import Step
    from verifier.graph import KeptCall

_COUNTS = frozenset({"num_groups", "groups", "num_heads", "upscale_factor", "downscale_factor", "chunks"})


def discrete(context: Context) -> Iterator[Edit]:
    """One setting with another value of a few: the baseline's first, then the next numbers, flags, words, axes."""
    edits = [edit for at, _ in context.steps() for edit in _of_step(context, at)]
    yield from sorted(edits, key=lambda edit: not edit.known)


def everywhere(context: Context) -> Iterator[Edit]:
    """One setting with another value in all calls of one operator that have it alike."""
    program = context.program
    for op, count in Counter(step.op for _, step in context.steps()).items():
        alike = [at for at, step in context.steps() if step.op == op]
        if count < 2:
            continue
        first = program.steps[alike[0]]
        for leaf in leaves(first.call):
            name = argument_name(first.call, leaf.name)
            twins = [
                (at, other)
                for at in alike
                for other in leaves(program.steps[at].call)
                if (other.name, other.path, other.value) == (leaf.name, leaf.path, leaf.value)
            ]
            known = context.written_in(op)
            for value in _others(first, leaf, name, known) if len(twins) > 1 else ():
                changed = program
                for at, other in twins:
                    changed = changed.with_call(at, other.put(changed.steps[at].call, value))
                one = setting(context, alike[0], first.call, name, leaf.value, value, value in known)
                sites = tuple(program.steps[at].name for at, _ in twins)
                yield replace(one, program=changed, at=sites)


def _of_step(context: Context, at: int) -> Iterator[Edit]:
    step = context.program.steps[at]
    known = context.written_in(step.op)
    for leaf in leaves(step.call):
        name = argument_name(step.call, leaf.name)
        for value in _others(step, leaf, name, known):
            yield setting(context, at, leaf.put(step.call, value), name, leaf.value, value, value in known)
    for name, default in unset(step.call):
        for value in _of_default(step.op, name, default):
            call = step.call.with_argument(name, value)
            yield setting(context, at, call, name, default, value, value in known)
    yield from _exchanged(context, at)
    yield from _negated(context, at)


def _others(step: Step, leaf: Leaf, name: str, known: Sequence[Any]) -> Iterator[Any]:
    value = leaf.value
    known = [each for each in known if is_number(each)]
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, str):
        yield from (word for word in words(step.op, name) if word != value)
    elif name == "correction":
        yield from (other for other in (0, 1) if other != value)
    elif name in DIMENSIONS and isinstance(value, int):
        yield from (dim for dim in _dims(step) if dim not in {value, value % rank_of(step)})
    elif isinstance(value, int):
        near = [*known, value + 1, value - 1, -value, value + 2, value - 2]
        if name in _COUNTS and value > 0:
            near += [value * 2, value // 2, value * 4, value // 4, 1]
        yield from (other for other in dict.fromkeys(near) if other != value and other == int(other))
    elif value is None and isinstance(leaf.path[-1] if leaf.path else "", str):
        yield from (1, -1)  # an end of a slice
    elif isinstance(value, float):
        yield from (
            other for other in dict.fromkeys((*known, -value, 1 / value if value else 0.0)) if other != value
        )


def rank_of(step: Step) -> int:
    """How many axes the largest operand of a call has."""
    operands = step.call.operands
    return max((tensor.dim() for tensor in operands), default=1) or 1


def _dims(step: Step) -> range:
    return range(rank_of(step))


def _of_default(op: str, name: str, default: Any) -> Iterator[Any]:
    if name == "correction":
        yield 0
    elif isinstance(default, bool):
        yield not default
    elif words(op, name):
        yield from (word for word in words(op, name) if word != default)
    elif default is None and name == "align_corners":
        yield True
    elif isinstance(default, int) and name not in _FACTORS:
        yield from (default + 1, default - 1)


_FACTORS = frozenset({"alpha", "beta"})  # none of which is better told as an operator too many


def setting(context: Context, at: int, call: KeptCall, name: str, old: Any, new: Any, known: bool) -> Edit:
    """One setting with another value."""
    step = context.program.steps[at]
    what = name_of(step.op, name)
    right = f"the baseline's {shown(new)}" if known else f"where {shown(new)} is right"
    also = _MEANING.get(name, {}).get(int(new), "") if isinstance(new, int) else ""
    return Edit(
        code_of(step.op, name) if name != "mode" else f"{padding_code(context, step)}-mode",
        f"{what} is {shown(old)}, {right}{also}" if known else f"{what} is {shown(old)} {right}{also}",
        f"set {what} to {shown(new)}",
        context.program.with_call(at, call),
        (step.name,),
        known,
    )


_DIVIDED = {
    0: ": the variance is to be divided by n, not n - 1",
    1: ": the variance is to be divided by n - 1, not n",
}
_MEANING = {"correction": _DIVIDED, "unbiased": _DIVIDED}


def name_of(op: str, name: str) -> str:
    """What a setting is called in a sentence."""
    if kind(op) == "arithmetic" and name in {"other", "arg1"}:
        return f"the constant of {op}"
    return f"{name} of {op}"


def code_of(op: str, name: str) -> str:
    """The code for a setting."""
    return LITERAL if kind(op) == "arithmetic" else codes.of_attribute(op, name)


def padding_code(context: Context, step: Step) -> str:
    """The code for what a step pads: that of its reader, if that is one which can pad itself."""
    reader = next((each for each in context.program.steps if step.first in each.sources), step)
    pads_for = step.op == "pad" and reader.op.startswith(("conv", "max_pool", "avg_pool"))
    return codes.of_attribute(reader.op, "padding") if pads_for else codes.family(step.op)


LITERAL = "literal-different"


def _exchanged(context: Context, at: int) -> Iterator[Edit]:
    """Two whole numbers of one call in each other's place: the order of axes, of sizes, of pads."""
    step = context.program.steps[at]
    whole = [
        leaf for leaf in leaves(step.call) if isinstance(leaf.value, int) and not isinstance(leaf.value, bool)
    ]
    for one, other in itertools.combinations(whole[:8], 2):
        if one.value == other.value:
            continue
        call = one.put(step.call, other.value)
        call = Leaf(other.name, other.path, other.value).put(call, one.value)
        before, after = (_sizes(each) for each in (step.call, call))
        yield Edit(
            code_of(step.op, argument_name(step.call, one.name)),
            f"{step.op} has {shown(before)} where {shown(after)} is right: "
            f"{one.value} and {other.value} are exchanged",
            f"exchange {one.value} and {other.value}",
            context.program.with_call(at, call),
            (step.name,),
            any(_sizes(each.call) == after for each in context.baseline.steps if each.op == step.op),
        )


def twice_exchanged(context: Context) -> Iterator[Edit]:
    """Two numbers exchanged in each of two calls that lay a tensor out: a split in another order, permuted back."""
    steps = [at for at, step in context.steps() if step.op in MOVES]
    for one, other in itertools.combinations(steps, 2):
        for first, second in itertools.product(_exchanged(context, one), _exchanged(context, other)):
            changed = first.program.with_call(other, second.program.steps[other].call)
            yield replace(
                first,
                summary=f"{first.summary}; {second.summary}",
                remedy=f"{first.remedy}; {second.remedy}",
                program=changed,
                at=first.at + second.at,
                known=first.known and second.known,
            )


def _negated(context: Context, at: int) -> Iterator[Edit]:
    """All whole numbers of one call with the opposite sign: the way a tensor is rolled."""
    step = context.program.steps[at]
    for name in step.call.arguments:
        group = [leaf for leaf in leaves(step.call) if leaf.name == name and is_number(leaf.value)]
        if len(group) < 2 or not any(leaf.value for leaf in group):
            continue
        call = step.call
        for leaf in group:
            call = leaf.put(call, -leaf.value)
        old, new = (each.arguments[name] for each in (step.call, call))
        yield setting(context, at, call, argument_name(step.call, name), old, new, known=False)


def _sizes(call: KeptCall) -> tuple[Any, ...]:
    return tuple(leaf.value for leaf in leaves(call) if is_number(leaf.value))


def as_the_baselines(context: Context) -> Iterator[Edit]:
    """The settings of several calls at once as those of the baseline's calls of the same operators, in order."""
    program = context.program
    changes: list[tuple[int, KeptCall]] = []
    left = list(context.baseline.steps)
    for at, step in context.steps():
        match = next((k for k, each in enumerate(left) if each.op == step.op), None)
        if match is None:
            continue
        twin = left.pop(match)
        if len(twin.call.operands) != len(step.call.operands):
            continue
        call = twin.call.with_operands(step.call.operands)
        for name in call.state & step.call.state:
            call = call.with_argument(name, step.call.arguments[name])
        if _plain(call) == _plain(step.call) and call.state == step.call.state:
            continue
        changes.append((at, call))
    for size in range(1, min(len(changes), 4) + 1):
        for chosen in itertools.combinations(changes, size):
            changed = program
            for at, call in chosen:
                changed = changed.with_call(at, call)
            ops = [program.steps[at].op for at, _ in chosen]
            told = [_otherwise(program.steps[at], call) for at, call in chosen]
            yield Edit(
                told[0][0],
                "; ".join(words for _, words in told),
                f"write {' and '.join(ops)} with the baseline's settings",
                changed,
                tuple(program.steps[at].name for at, _ in chosen),
                known=True,
            )


def _otherwise(step: Step, call: KeptCall) -> tuple[str, str]:
    """The code for what a call of a step's operator sets otherwise, a tensor or settings, and in words."""
    alone = sorted(call.state ^ step.call.state)
    names = [
        name
        for name, value in call.arguments.items()
        if readable(value) != "tensor" and canonical(value) != canonical(step.call.arguments.get(name))
    ]
    if len(alone) == 1 and {*names} <= {*alone}:
        if alone[0] in call.state:
            return f"{alone[0]}-missing", f"{step.op} has no {alone[0]}, the baseline has one"
        return f"{alone[0]}-extra", f"{step.op} has a {alone[0]}, the baseline has none"
    literal = kind(step.op) == "arithmetic"
    if len(names) != 1 or names[0] not in step.call.arguments:
        code = LITERAL if literal else codes.of_attribute(step.op, "settings")
        return code, f"{step.op} has {_told(step.call)}, the baseline's {_told(call)}"
    name = argument_name(step.call, names[0])
    old, new = (shown(canonical(each.arguments[names[0]])) for each in (step.call, call))
    code = LITERAL if literal else codes.of_attribute(step.op, name)
    return code, f"{name_of(step.op, name)} is {old}, the baseline's {new}"


def _plain(call: KeptCall) -> list[tuple[str, Any]]:
    return [(str(leaf.path), leaf.value) for leaf in leaves(call)]


def _told(call: KeptCall) -> str:
    found = [shown(leaf.value) for leaf in leaves(call)]
    return f"({', '.join(found)})" if len(found) != 1 else found[0]
