"""What models return, batch for batch: how far that of one is off that of another, and all batches in one."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.metrics import Moments, collect, compare, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from verifier.records import Comparison

    Batches = Sequence[Sequence[Tensor]]


def whole(tensor: Tensor) -> bool:
    """Whether it holds whole numbers, as classes and masks are."""
    return not (tensor.is_floating_point() or tensor.is_complex())


def between(one: Batches, other: Batches) -> Comparison | None:
    """All outputs of one model against another's but whole numbers, over all batches; None where there are none."""
    return _compared(one, other, lambda each: not whole(each))


def differing(one: Batches, other: Batches) -> Comparison | None:
    """The same, or whole numbers where nothing else is apart."""
    found = between(one, other)
    return found if found is not None and found.max_abs != 0 else _compared(one, other, whole) or found


def changed(one: Batches, other: Batches) -> float | None:
    """The share of whole numbers that are others, over all batches; None where there are none."""
    found = [(int((a != b).sum()), a.numel()) for a, b in _shared(one, other) if whole(a)]
    count = sum(size for _, size in found)
    return sum(apart for apart, _ in found) / count if count else None


def flipped(one: Sequence[Tensor], other: Sequence[Tensor], samples: int) -> float | None:
    """The share of samples with another class, of outputs that give a whole number for each; None of others."""
    for a, b in zip(one, other, strict=False):
        if whole(a) and a.shape == b.shape and a.dim() and len(a) == a.numel() == samples:
            return float((a != b).double().mean())
    return None


def joined(outputs: Batches) -> list[Tensor]:
    """Each output over all batches, along the dimension in which these differ, else the first.

    What differs in several cannot be put together, and is empty.
    """
    found = []
    for parts in zip(*outputs, strict=True):
        first = parts[0]
        if len(parts) == 1 or not first.dim():
            found.append(first)
            continue
        if any(each.dim() != first.dim() for each in parts):
            found.append(first.new_empty(0))
            continue
        dims = [k for k in range(first.dim()) if any(each.shape[k] != first.shape[k] for each in parts)]
        found.append(torch.cat(parts, dims[0] if dims else 0) if len(dims) <= 1 else first.new_empty(0))
    return found


def ordered(outputs: Batches, order: Sequence[int] | None) -> list[tuple[Tensor, ...]]:
    """The outputs in the order in which they are compared (`verifier.graph.Graph.output_order`)."""
    return [
        tuple(batch if order is None or len(order) != len(batch) else (batch[k] for k in order))
        for batch in outputs
    ]


def _compared(one: Batches, other: Batches, wanted: Callable[[Tensor], bool]) -> Comparison | None:
    found = [measure(a, b) for a, b in _shared(one, other) if wanted(a)]
    return compare(reduce(Moments.merge, collect(found))) if found else None


def _shared(one: Batches, other: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs of both by position, where they are of one shape: others are told of the model with nothing rounded."""
    for batch in zip(one, other, strict=True):
        yield from ((a, b) for a, b in zip(*batch, strict=False) if a.shape == b.shape)
