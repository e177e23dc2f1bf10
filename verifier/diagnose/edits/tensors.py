"""Tensors that a call brings along: constants, and parameters of the operators in a region."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.diagnose import codes
from verifier.diagnose.edits.edit import Edit, shown
from verifier.graph import KeptCall
from verifier.recognise.permutations import flipped
from verifier.recognise.reals import reals
from verifier.recognise.values import relate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.diagnose.edits.context import Context
    from verifier.diagnose.edits.program import Key, Program, Step

CONSTANT = "constant-different"


def constants(context: Context) -> Iterator[Edit]:
    """A constant that is another of the baseline's, or one of its own in another order."""
    program = context.program
    constants_there = [
        tensor
        for step in context.baseline.steps
        for tensor, source in zip(step.call.operands, step.sources, strict=True)
        if source is None
    ]
    for at, step in context.steps():
        operands = step.call.operands
        for slot, (tensor, source) in enumerate(zip(operands, step.sources, strict=True)):
            if source is not None or not tensor.numel():
                continue
            fitting = [
                each for each in constants_there if each.numel() == tensor.numel() and not _same(each, tensor)
            ]
            fitting += [each for each in _turned(tensor) if not any(_same(each, other) for other in fitting)]
            for k, other in enumerate(fitting):
                known = any(other is each for each in constants_there)
                laid = other.reshape(tensor.shape).to(tensor.dtype)
                changed = [*operands[:slot], laid, *operands[slot + 1 :]]
                yield Edit(
                    CONSTANT,
                    f"the constant of {step.op} is {shown(tensor)}, "
                    f"{_right(known)} {shown(laid)}{_relation(tensor, laid)}",
                    f"give it {shown(laid)}",
                    program.with_call(at, step.call.with_operands(changed)),
                    (step.name,),
                    known,
                )
                if k > _MOST:
                    break


_MOST = 6


def _right(known: bool) -> str:
    return "the baseline's" if known else "where what is right is"


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(one.to(other.dtype).equal(other))


def _turned(tensor: Tensor) -> list[Tensor]:
    axes = [axis for axis in range(tensor.dim()) if tensor.shape[axis] > 1]
    found = [tensor.flip(axis) for axis in axes]
    if tensor.dim() >= 2 and tensor.shape[-1] == tensor.shape[-2] > 1:
        found.append(tensor.transpose(-1, -2))
    if tensor.dtype == torch.bool:
        found.append(~tensor)
    elif tensor.is_floating_point():
        found.append(-tensor)
    return found


def _relation(candidate: Tensor, baseline: Tensor) -> str:
    if candidate.numel() < 2 or candidate.dtype == torch.bool:
        return ""
    reverse = flipped(reals(candidate, baseline))
    if reverse is not None:
        return ": one is the other's reverse"
    relation = relate(candidate, baseline)
    if relation is None or relation.kind not in {"scaled", "shifted", "permuted", "transposed"}:
        return ""
    return f": it {relation.summary}"


def parameters(context: Context) -> Iterator[Edit]:
    """A parameter or buffer of an operator in the region that holds other numbers than the baseline's."""
    program = context.program
    for at, step in context.steps():
        for role in sorted(step.call.state):
            held = step.call.arguments[role]
            if not isinstance(held, Tensor):
                continue
            others = list(_states(context.baseline.steps))
            others += [(role, held.t())] if held.dim() == 2 and held.shape[0] == held.shape[1] else []
            others += [(name, other.t()) for name, other in others if other.dim() == 2]  # stored turned round
            for other_role, other in others:
                if other.numel() != held.numel():
                    continue
                laid = other.reshape(held.shape)
                if laid.equal(held):
                    continue
                relation = relate(held, laid)
                kind = "perturbed" if relation is None else relation.kind
                told = "differs" if relation is None else relation.summary
                plain = other_role if role.startswith("arg") or role in _OPERANDS else role
                yield Edit(
                    codes.of_tensor(plain, kind),
                    f"the {plain.replace('_', ' ')} of {step.op} {told}",
                    f"load the baseline's {plain}",
                    program.with_call(at, step.call.with_argument(role, laid)),
                    (step.name,),
                    known=True,
                    evidence=() if relation is None else relation.evidence,
                )


_OPERANDS = frozenset(
    {"input", "mat1", "mat2", "other", "tensor1", "tensor2"}
)  # where a weight is like any tensor


def _states(steps: tuple[Step, ...]) -> Iterator[tuple[str, Tensor]]:
    for step in steps:
        for role in sorted(step.call.state):
            tensor = step.call.arguments[role]
            if isinstance(tensor, Tensor):
                yield role, tensor


def tables(context: Context) -> Iterator[Edit]:
    """A table that is stored, with the numbers of one that the baseline computes of nothing that comes in."""
    program, baseline = context.program, context.baseline
    fixed = _fixed(baseline)
    for at, step in context.steps():
        if not step.call.state or any(source is not None for source in step.sources):
            continue
        given = context.tensor(step.first)
        for maker in baseline.steps:
            right = context.baseline_trace.of_key[maker.first]
            if maker.first not in fixed or right.numel() != given.numel() or given.numel() < _LEAST:
                continue
            laid = right.reshape(given.shape).to(given.dtype)
            call = KeptCall.of(torch.clone, (laid,), {}, set())
            table = " ".join(("the stored table", *step.held[:1]))
            yield Edit(
                CONSTANT,
                f"{table} that {step.op} reads is not what the baseline's {maker.op} gives"
                f"{_relation(given, laid)}",
                f"store what the baseline's {maker.op} gives",
                program.with_step(at, replace(step, op="clone", call=call, sources=(None,))),
                (step.name,),
                known=True,
                evidence=(f"what is read of it is {shown(given)}, the baseline's {shown(laid)}",),
            )


_LEAST = 2


def _fixed(program: Program) -> frozenset[Key]:
    """Tensors that depend on nothing that comes in."""
    found: set[Key] = set()
    for step in program.steps:
        if all(source is None or source in found for source in step.sources):
            found.add(step.first)
    return frozenset(found)
