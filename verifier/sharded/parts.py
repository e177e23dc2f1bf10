"""Parts that are cut, put together, handed out or computed with wrongly, told by the numbers of one site."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from verifier.sharded.aligning import wide
from verifier.sharded.parameters import cut_wrongly
from verifier.sharded.placing import cut, place
from verifier.sharded.slices import close

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.sharded.case import Blame, Case

STATISTICS = frozenset(
    {
        "amax",
        "amin",
        "batch_norm",
        "group_norm",
        "instance_norm",
        "layer_norm",
        "linalg_vector_norm",
        "log_softmax",
    }
    | {
        "logsumexp",
        "max",
        "mean",
        "min",
        "norm",
        "normalize",
        "rms_norm",
        "softmax",
        "std",
        "sum",
        "var",
        "var_mean",
    }
)
"""Operators whose results depend on all that lies along a dimension."""

BY_FLAW = {
    "replicas": ("shard-replicas", "load or broadcast the same weights to all ranks"),
    "swapped": ("shard-exchanged", "give each rank the weights of the modules that it stands for"),
    "uneven": (
        "shard-uneven",
        "cut the parameter so that all of its slices are on a rank, the last ones too",
    ),
    "twice": ("shard-order", "cut the parameter by each rank's own place in the group"),
    "other": ("", "load the baseline's weights"),
}


def replicas_differ(case: Case) -> Blame | None:
    """Copies of which some are the baseline's and some are not."""
    if not case.full or len(case.pieces) < 2 or len(case.pieces) != len(case.found.ranks):
        return None
    wrong = [
        rank
        for rank, piece in zip(case.found.ranks, case.pieces, strict=True)
        if not close(piece, case.whole, case.slack)
    ]
    if not 0 < len(wrong) < len(case.pieces):
        return None
    return case.blame(
        "shard-replicas",
        f"rank {', '.join(map(str, wrong))} has other numbers than the rest, which have the baseline's",
        remedy="find what is drawn, loaded or branched on by each rank for itself",
    )


def other_axis(case: Case) -> Blame | None:
    """Parts that were put together along another axis than they were cut."""
    count = case.ranks
    if len(case.pieces) < 1 or any(piece.numel() != case.whole.numel() for piece in case.pieces):
        return None
    piece = case.pieces[0]
    for axis in range(case.whole.dim()):
        if case.whole.shape[axis] % count:
            continue
        for along in range(piece.dim()):
            if piece.shape[along] % count:
                continue
            parts = list(piece.chunk(count, along))
            size = list(case.whole.shape)
            size[axis] //= count
            joined = torch.cat([part.reshape(size) for part in parts], axis)
            if close(joined, case.whole, case.slack):
                return case.blame(
                    "shard-axis",
                    f"the ranks' parts are put together along axis {along}, and were cut along axis {axis}",
                    f"put together along axis {axis} they are the baseline's tensor",
                    remedy=f"gather along axis {axis}",
                )
    return None


def statistics(case: Case) -> Blame | None:
    """A norm or another statistic of all that lies along a dimension, of which each rank has a part."""
    event = case.found.event
    if event.call is None or event.op not in STATISTICS or event.given is None or case.found.key.returned:
        return None
    given = case.bench.given(case.found.key)
    whole = wide(event.given)
    placed = place(whole, given, case.found.budget.total)
    if placed is None or placed.kind != "shard" or placed.axis is None or placed.shape is not None:
        return None
    function, args, kwargs = event.call
    parts = cut(placed, whole, len(given))
    size = whole.shape[placed.axis]
    for part, index, piece in zip(parts, placed.indices or (), case.pieces, strict=True):

        def own(value: object, part: Tensor = part, index: Tensor = index) -> object:
            if isinstance(value, torch.Tensor):
                if value.shape == whole.shape:
                    return part
                return wide(value)[index] if tuple(value.shape) == (size,) else value
            if isinstance(value, tuple | list) and list(value) == [size]:
                return (len(index),)
            return value

        try:
            made = function(*map(own, args), **{name: own(value) for name, value in kwargs.items()})
        except (RuntimeError, TypeError, ValueError):
            return None
        if not isinstance(made, torch.Tensor) or not close(wide(made), piece, case.slack):
            return None
    found = case.blame(
        "shard-statistics",
        f"{event.op} is taken over each rank's own part along axis {placed.axis}, not over all of it",
        "the baseline's own operator gives the candidate's numbers on each rank's part of the baseline's input",
        remedy="gather its input, or reduce its statistics over the ranks",
    )
    return found if found.placed is not None else replace(found, placed=placed)


def uneven(case: Case) -> Blame | None:
    """Slices that no rank has, or that are none of the baseline's."""
    if any(piece.dim() != case.whole.dim() for piece in case.pieces):
        return None
    if len(case.pieces) != len(case.found.ranks):
        return None
    axes = {
        k
        for piece in case.pieces
        for k, (one, two) in enumerate(zip(piece.shape, case.whole.shape, strict=True))
        if one != two
    }
    if len(axes) != 1:
        return None
    said, flaw = cut_wrongly(case.whole, case.pieces, case.found.ranks, axes.pop(), case.slack)
    if flaw not in ("uneven", "twice"):
        return None
    code, _ = BY_FLAW[flaw]
    return case.blame(
        code, said, remedy="let the last ranks have fewer slices, and leave no slice out or filled up"
    )


def misrouted(case: Case) -> Blame | None:
    """A module of several alike that was given what the baseline gives another one."""
    key = case.found.key
    if key.op:
        return None
    given = case.bench.given(key)
    if not given:
        return None
    parts = key.scope.split(".")
    for k, part in enumerate(parts):
        if not part.isdigit():
            continue
        for other in case.bench.baseline.events.values():
            names = other.key.scope.split(".")
            same = len(names) == len(parts) and names[:k] == parts[:k] and names[k + 1 :] == parts[k + 1 :]
            if other.key.op or not same or names[k] == part or other.given is None:
                continue
            if place(wide(other.given), given, case.found.budget.total) is not None:
                return case.blame(
                    "shard-exchanged",
                    f"{key.scope} is given what the baseline gives {other.key.scope}",
                    remedy="send each sample to the rank that holds the module it is routed to",
                )
    return None
