"""What a form was specialised to when it was made: sizes, settings, and branches that depend on numbers.

A program that was captured from one call may hold that call's sizes as constants and the way that it took. So it is
asked about others, each of which the other model takes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from verifier.bench.outputs import agree, all_near, copied, returned_by
from verifier.bench.probes import Draw, draws
from verifier.border.error_texts import account
from verifier.border.signals import check_unanswered
from verifier.errors import ModelError, VerifierError
from verifier.graph.tensors import mapped, tensors_given
from verifier.inputs.samples import batch_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.bench.side import Side
    from verifier.graph import Graph
    from verifier.inputs import Inputs
    from verifier.records import Cause, PairResult

_MOST = 4  # sizes, and settings, that are tried
_GUARD = re.compile(r"(?:\w+: )?Guard failed: (.*)", re.DOTALL)
_SIZE = re.compile(r"(.+)\.size\(\)\[(\d+)\] == (\d+)")


class Specialised(NamedTuple):
    """What was found.

    Attributes:
        notes: What a form fails on that the other model takes, with its guard.
        draws: What both take, and do not give the same for.
    """

    notes: tuple[str, ...] = ()
    draws: tuple[Draw, ...] = ()


class Way(NamedTuple):
    """Another way that a model takes for other numbers.

    Attributes:
        role: The model that was captured, of which the other one goes that way.
        draw: For which numbers.
        ops: Operators that it has there, and not for the numbers that were given.
    """

    role: str
    draw: Draw
    ops: frozenset[str]


def specialised(sides: tuple[Side, Side], given: Inputs) -> Specialised:
    """Ask each form that holds guards about sizes and settings that it was not made with.

    Args:
        sides: Both models, with weights of their own.
        given: What they were compared on; where the candidate has inputs of its own, nothing is asked.
    """
    notes: dict[str, None] = {}
    found: list[Draw] = []
    for side, other in (sides, sides[::-1]):
        if side.form is None or not side.form.guarded or given.other is not None:
            continue
        for draw in (*_sizes(given), *_settings(given)):
            taken = _returned(other, draw.inputs)
            if isinstance(taken, str):
                continue
            own = _returned(side, draw.inputs)
            if isinstance(own, str):
                notes[_said(side, other, draw, own, given)] = None
            elif not all_near(agree(other, draw.inputs, taken, own)):
                found.append(draw)
    return Specialised(tuple(notes), tuple(found))


def other_ways(
    sides: tuple[Side, Side], graphs: tuple[Graph, Graph], given: Inputs, seed: int, *, apart: bool
) -> Iterator[Way]:
    """For other numbers of the given shapes, the ways that a model takes of which the other was captured.

    Where the two are not `apart`, that is asked of a model which computes one number that no output depends on, as
    the condition of a branch is.

    Args:
        sides: Both models.
        graphs: What they do for what was given.
        given: What they were compared on.
        seed: For numbers that are drawn.
        apart: Whether they gave other numbers anywhere.
    """
    for side, other, graph in zip(sides, sides[::-1], graphs[::-1], strict=True):
        reads = apart or any(not site.live and math.prod(site.shape) == 1 for site in graph.sites)
        if not reads or side.form is None or not side.form.captured or given.other is not None:
            continue
        seen = {frozenset(usual := Counter(site.op for site in graph.sites).items())}
        for draw in draws(given, seed, batch_size(given)):
            if draw.resized or draw.training:
                continue
            try:
                ops = Counter(site.op for site in other.record(draw.inputs).sites)
            except VerifierError:
                continue
            if frozenset(ops.items()) not in seen:
                seen.add(frozenset(ops.items()))
                yield Way(side.role, draw, frozenset(ops - usual))


def _returned(side: Side, inputs: Inputs) -> list[Tensor] | str:
    """What a model returns, or how it fails."""
    cell = side.cell()
    try:
        return returned_by(side, copied(side, cell), inputs, cell, failing=True) or []
    except ModelError as error:
        return account(error.__cause__ or error)
    except Exception as error:  # the baseline's, which is told otherwise
        check_unanswered(error)
        return account(error.__cause__ or error)


def _said(side: Side, other: Side, draw: Draw, failure: str, given: Inputs) -> str:
    """That a form fails on what the other model takes, by its guard."""
    form = side.form.kind if side.form is not None else "a form"
    guard = _GUARD.search(failure)
    if guard is None:
        return f"the {side.role}, {form}, fails on {draw.name}, which the {other.role} takes: {failure}"
    text = " ".join(guard[1].split())
    size = _SIZE.fullmatch(text)
    if size is None:
        what = f"fails on {draw.name}"
    elif int(size[2]) == given.batch_dim:
        what = f"is specialised to batch {size[3]}"
    else:
        what = f"is specialised to size {size[3]} of dimension {size[2]} of {size[1]}"
    return f"the {side.role}, {form}, {what} (guard: {text}); the {other.role} takes others"


def _sizes(given: Inputs) -> Iterator[Draw]:
    """The inputs with one of their sizes larger, and smaller: all dimensions that are of one size are changed."""
    shapes = [tuple(tensor.shape) for tensor in tensors_given((given.args, given.kwargs))]
    found: dict[tuple[bool, int], None] = {}
    for shape in shapes:
        for dim, size in enumerate(shape):
            if size > 1 or dim == given.batch_dim:
                found[dim == given.batch_dim, size] = None
    for batch, size in sorted(found, key=lambda each: not each[0])[:_MOST]:
        for other in dict.fromkeys((size + 1, size // 2)):
            if other:
                what = f"{other} samples" if batch else f"size {other} in place of {size}"
                yield Draw(what, _resized(given, size, other, batch=batch), resized=True)


def _resized(given: Inputs, size: int, other: int, *, batch: bool) -> Inputs:
    def made(tensor: Tensor) -> Tensor:
        for dim in range(tensor.dim()):
            if tensor.shape[dim] == size and (dim == given.batch_dim) == batch:
                order = torch.arange(other, device=tensor.device) % size
                tensor = tensor.index_select(dim, order)
        return tensor

    args, kwargs = mapped((given.args, given.kwargs), made)
    return replace(given, args=args, kwargs=kwargs)


def _settings(given: Inputs) -> Iterator[Draw]:
    """The inputs with one truth value or number among them another one."""
    leaves, spec = pytree.tree_flatten((given.args, given.kwargs))
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, bool | int | float)]
    for place in places[:_MOST]:
        value: Any = not leaves[place] if isinstance(leaves[place], bool) else leaves[place] + 1
        args, kwargs = pytree.tree_unflatten([*leaves[:place], value, *leaves[place + 1 :]], spec)
        yield Draw(
            f"{value!r} in place of {leaves[place]!r}", replace(given, args=args, kwargs=kwargs), resized=True
        )


def with_ways(row: PairResult, cause: Cause, ways: Sequence[Way]) -> Cause:
    """The cause of a culprit, with where a captured program has the operator of another way of the other model."""
    for way in ways:
        other = "baseline" if way.role == "candidate" else "candidate"
        if (row.candidate_op if way.role == "candidate" else row.op) in way.ops:
            said = (
                f"the {other} takes that way too, for other numbers ({way.draw.name}): it branches on them, and the "
                f"{way.role} holds the way of the call that it was captured on"
            )
            return msgspec.structs.replace(cause, summary=f"{cause.summary}; {said}")
    return cause
