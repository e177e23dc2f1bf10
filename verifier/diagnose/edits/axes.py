"""Axes that are written in the candidate's calls: in another order, others, more or fewer."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from verifier.diagnose.edits.schemas import DIMENSIONS, argument_name
from verifier.diagnose.edits.written import rank_of, setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.diagnose.edits.context import Context
    from verifier.diagnose.edits.edit import Edit
    from verifier.diagnose.edits.program import Step


def others(context: Context) -> Iterator[Edit]:
    """The axes of one call, as many or fewer: of a permutation in another order, of a reduction others."""
    for at, step in context.steps():
        rank = rank_of(step)
        for name, value in step.call.arguments.items():
            if not _names_axes(step, name, value) or rank > _MOST_AXES:
                continue
            known = [each.call.arguments.get(name) for each in context.baseline.steps if each.op == step.op]
            old = tuple(axis % rank for axis in value)
            shape = step.call.operands[0].shape if step.call.operands else ()
            orders = _orders(old) if step.op == "permute" else _subsets(old, rank)
            for new in orders:
                if (
                    step.op != "permute"
                    and math.prod(shape[axis] for axis in new if axis < len(shape)) < _FEWEST
                ):
                    continue  # a variance has none of one number
                call = step.call.with_argument(name, type(value)(new))
                told = argument_name(step.call, name)
                yield setting(context, at, call, told, tuple(value), new, new in known)


_MOST_AXES = 6
_FEWEST = 2


def _names_axes(step: Step, name: str, value: Any) -> bool:
    if not isinstance(value, list | tuple) or not value or name in step.call.state:
        return False
    named = argument_name(step.call, name) in DIMENSIONS
    whole = all(isinstance(axis, int) and not isinstance(axis, bool) for axis in value)
    return named and whole and step.op not in _PAIRED_AXES


_PAIRED_AXES = frozenset({"roll", "movedim", "moveaxis", "tensordot", "squeeze", "unsqueeze"})


def _orders(axes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """All orders, those first in which most stay where they are."""
    others = sorted(itertools.permutations(axes), key=lambda each: sum(map(int.__ne__, each, axes)))
    yield from others[1:]


def _subsets(axes: tuple[int, ...], rank: int) -> Iterator[tuple[int, ...]]:
    """All sets of axes, those first that differ in few."""
    sizes = range(1, rank + 1)
    every = itertools.chain.from_iterable(itertools.combinations(range(rank), size) for size in sizes)
    found = sorted(every, key=lambda each: (abs(len(each) - len(axes)), len(set(each) ^ set(axes))))
    yield from (each for each in found if set(each) != set(axes))
