"""Pads on other sides, and reductions over other groups."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from verifier.diagnose import codes
from verifier.diagnose.edits.edit import Edit, shown
from verifier.diagnose.edits.leaves import leaves
from verifier.diagnose.edits.program import Step, fresh
from verifier.diagnose.edits.written import padding_code
from verifier.graph import KeptCall
from verifier.graph.operators import operator_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from verifier.diagnose.edits.context import Context

_FARTHEST = 4
_PADS_LEAST = float("-inf")  # what a maximum never takes


def padded(context: Context) -> Iterator[Edit]:
    """Convolutions, pools and pads with other amounts on their sides: the baseline's first."""
    for at, step in context.steps():
        before = _pads(step)
        if before is None:
            continue
        known = [tuple(each) for each in map(_pads, context.baseline.steps) if each is not None]
        for after in _amounts(before, known):
            call = _with_pads(step, after)
            if call is None:
                continue
            steps = call if isinstance(call, tuple) else (replace(step, call=call),)
            yield Edit(
                padding_code(context, step) if step.op == "pad" else codes.of_attribute(step.op, "padding"),
                f"it pads {_sides(before)}, {'the baseline' if after in known else 'where what is right is'} "
                f"{_sides(after)}",
                f"pad {shown(after)} on the sides (left, right, top, bottom) in that order",
                context.program.with_step(at, *steps),
                (step.name,),
                after in known,
            )


def _sides(pads: Sequence[int]) -> str:
    if len(set(pads)) == 1:
        return "nothing" if pads[0] == 0 else f"{pads[0]} on all sides"
    return shown(tuple(pads))


def _pads(step: Step) -> tuple[int, ...] | None:
    """What a step pads, from the last axis on, before and after."""
    arguments = step.call.arguments
    if step.op == "pad":
        pads = arguments.get("pad")
        return tuple(pads) if isinstance(pads, list | tuple) else None
    if not step.op.startswith(("conv", "max_pool", "avg_pool")) or "transpose" in step.op:
        return None
    dims = int(step.op[-2]) if step.op[-2:-1].isdigit() else 0
    padding = arguments.get("padding", 0)
    if padding == "valid":
        padding = 0
    amounts = [padding] * dims if isinstance(padding, int) else padding
    if not isinstance(amounts, list | tuple) or not dims:
        return None
    if len(amounts) == 2 * dims:  # each side by itself, as forms of other runtimes have it
        return tuple(amounts)
    each = list(amounts) * (dims if len(amounts) == 1 else 1)
    return tuple(amount for axis in reversed(each) for amount in (axis, axis))


def _amounts(before: Sequence[int], known: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    seen = {tuple(before)}
    axes = len(before) // 2
    total = before[0] + before[1]
    pairs = sorted(
        itertools.product(range(max(before) + _FARTHEST), repeat=2),
        key=lambda pair: (abs(sum(pair) - total), abs(pair[0] - before[0]), abs(pair[1] - before[1])),
    )
    for pads in (*known, *(pair * axes for pair in pairs), *_one_axis(before)):
        if pads not in seen and len(pads) == len(before):
            seen.add(pads)
            yield pads


def _one_axis(before: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for axis in range(0, len(before), 2):
        for pair in itertools.product(range(max(before) + 2), repeat=2):
            yield (*before[:axis], *pair, *before[axis + 2 :])


def _with_pads(step: Step, pads: tuple[int, ...]) -> KeptCall | tuple[Step, Step] | None:
    if step.op == "pad":
        return step.call.with_argument("pad", list(pads))
    operands = step.call.operands
    if not operands or step.sources[0] is None:
        return None
    if all(pads[k] == pads[k + 1] for k in range(0, len(pads), 2)):
        return step.call.with_argument("padding", tuple(reversed(pads[::2])))
    fill = _PADS_LEAST if step.op.startswith("max") else 0.0
    call = KeptCall.of(F.pad, (operands[0], list(pads), "constant", fill), {}, set())
    pad = Step(step.name, "pad", call, (step.sources[0],), fresh())
    bare = replace(step, call=step.call.with_argument("padding", 0)).reading(0, pad.first)
    return pad, bare


_REDUCTIONS = frozenset(
    {"mean", "sum", "var", "std", "amax", "amin", "norm", "logsumexp", "vector_norm", "linalg_vector_norm"}
)
_KEEPING = frozenset({"softmax", "log_softmax", "normalize", "cumsum", "rms_norm", "layer_norm"})
_MOST_GROUPS = 64


def grouped(context: Context) -> Iterator[Edit]:
    """A reduction or normalisation over groups of the elements that it takes all together."""
    sizes = _divisions(context)
    for at, step in context.steps():
        if step.op not in _REDUCTIONS | _KEEPING or not step.call.operands:
            continue
        x = step.call.operands[0]
        axis = _axis(step, x)
        if axis is None:
            continue
        n = x.shape[axis]
        counts = [g for g in range(2, min(n, _MOST_GROUPS + 1)) if n % g == 0]
        for groups in sorted(counts, key=lambda g: g not in sizes and n // g not in sizes):
            call = _Grouped(step.call, axis, groups, keeps=step.op in _KEEPING)
            kept = KeptCall(
                call, step.call.arguments, step.call.state, step.call.positional, step.call.chance
            )
            yield Edit(
                GROUPS,
                f"{step.op} over {n} where the baseline has {groups} groups of {n // groups}",
                f"take the {step.op} of each of {groups} groups",
                context.program.with_call(at, kept),
                (step.name,),
                groups in sizes,
            )


GROUPS = "groups-different"


def _divisions(context: Context) -> set[int]:
    """Numbers and sizes that stand on the baseline's side."""
    sizes = {int(number) for number in context.numbers if number == int(number)} if context.numbers else set()
    for tensor in context.baseline_trace.of_key.values():
        sizes.update(tensor.shape)
    return sizes


def _axis(step: Step, x: Tensor) -> int | None:
    if step.op in {"rms_norm", "layer_norm"}:
        return x.dim() - 1 if x.dim() else None
    numbers = (leaf for leaf in leaves(step.call) if isinstance(leaf.value, int))
    given = next((leaf.value for leaf in numbers if leaf.name in {"dim", "arg1"}), None)
    if given is None or isinstance(given, bool) or not -x.dim() <= given < x.dim():
        return None
    return int(given) % x.dim()


class _Grouped:
    """An operator over the groups of one axis, its result as long as the operator's own is broadcast to be."""

    def __init__(self, call: KeptCall, axis: int, groups: int, *, keeps: bool) -> None:
        self._function, self._axis, self._groups, self._keeps = call.function, axis, groups, keeps
        self.__name__ = operator_name(call.function)

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        axis, n = self._axis, x.shape[self._axis]
        split = x.reshape(*x.shape[:axis], self._groups, n // self._groups, *x.shape[axis + 1 :])
        if self._keeps and self.__name__ in {"rms_norm", "layer_norm"}:
            return self._normalised(split, x.shape, args, kwargs)
        args = tuple(_later(value, axis, x.dim()) for value in args)
        kwargs = {name: _later(v, axis, x.dim()) if name == "dim" else v for name, v in kwargs.items()}
        made: Tensor = self._function(split, *args, **kwargs)
        if self._keeps:
            return made.flatten(axis, axis + 1)
        if made.dim() == split.dim():  # the axis is kept
            made = made.squeeze(axis + 1)
        return made.repeat_interleave(n // self._groups, axis)

    def _normalised(self, split: Tensor, shape: torch.Size, args: Any, kwargs: Any) -> Tensor:
        args_ = list(args)
        args_[0] = (split.shape[-1],)
        tensors = [each for each in args_ if isinstance(each, torch.Tensor)]
        bare = [None if isinstance(each, torch.Tensor) else each for each in args_]
        made: Tensor = self._function(split, *bare, **kwargs).reshape(shape)
        for k, tensor in enumerate(tensors):
            made = made * tensor if k == 0 else made + tensor
        return made


def _later(value: Any, axis: int, rank: int) -> Any:
    """An axis counted from the front, of a tensor that has one more."""
    if isinstance(value, bool) or not isinstance(value, int | list | tuple):
        return value
    if isinstance(value, int):
        return value % rank + (value % rank >= axis) if -rank <= value < rank else value
    return tuple(_later(item, axis, rank) for item in value)
