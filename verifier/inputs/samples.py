"""Some of the samples of given inputs, or all of them in another order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.graph.tensors import leaves_in, mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from verifier.inputs.given import Inputs


def batch_size(inputs: Inputs) -> int:
    """Size of the first tensor's batch dimension; 1 where it has none."""
    first = next(leaf for _, leaf in leaves_in((inputs.args, inputs.kwargs)) if isinstance(leaf, Tensor))
    dim = inputs.batch_dim
    return int(first.shape[dim]) if dim is not None and _has(first, dim) else 1


def _has(tensor: Tensor, dim: int) -> bool:
    return -tensor.dim() <= dim < tensor.dim()


def sample(inputs: Inputs, count: int, start: int = 0) -> Inputs:
    """`count` samples of every tensor that shares the first tensor's batch dimension, from `start` on."""
    args, kwargs = _each(inputs, lambda t, dim: t.narrow(dim, start, min(count, t.shape[dim] - start)))
    other = None if inputs.other is None else sample(inputs.other, count, start)
    return replace(inputs, args=args, kwargs=kwargs, other=other)


def picked(inputs: Inputs, numbers: Sequence[int]) -> Inputs:
    """The samples of these numbers, of every tensor that has as many samples as the first one."""
    args, kwargs = _each(
        inputs, lambda t, dim: t.index_select(dim, torch.tensor([*numbers], device=t.device))
    )
    other = None if inputs.other is None else picked(inputs.other, numbers)
    return replace(inputs, args=args, kwargs=kwargs, other=other)


def reversed_samples(inputs: Inputs) -> Inputs:
    """The same samples from the last to the first, in every tensor that has as many of them as the first one."""
    args, kwargs = _each(inputs, lambda t, dim: t.flip(dim))
    return replace(inputs, args=args, kwargs=kwargs)


def ends(samples: int) -> list[int]:
    """The numbers of the last and the first of so many samples."""
    return sorted({samples - 1, 0}, reverse=True)


def rows(tensors: Sequence[Tensor], samples: int, numbers: Sequence[int]) -> list[Tensor]:
    """These samples, by number, of every tensor that holds so many of them along its first dimension."""
    return [t[list(numbers)] if t.dim() and t.shape[0] == samples else t for t in tensors]


def batches(inputs: Inputs, size: int | None) -> list[Inputs]:
    """The inputs in batches of `size` samples; all in one where `size` is None or they have no batch dimension."""
    count = batch_size(inputs)
    if size is None or size >= count:
        return [inputs]
    return [sample(inputs, size, start) for start in range(0, count, size)]


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Samples of several inputs of one structure in one: tensors that hold samples one behind the other."""
    leaves = [
        [leaf for _, leaf in leaves_in((part.args, part.kwargs)) if isinstance(leaf, Tensor)]
        for part in parts
    ]
    places = iter(range(len(leaves[0])))
    counts, dim = [batch_size(part) for part in parts], parts[0].batch_dim

    def together(tensor: Tensor) -> Tensor:
        k = next(places)
        if dim is None or not _has(tensor, dim) or tensor.shape[dim] != counts[0]:
            return tensor
        return torch.cat([each[k] for each in leaves], dim)

    args, kwargs = mapped((parts[0].args, parts[0].kwargs), together)
    others = [part.other for part in parts if part.other is not None]
    return replace(parts[0], args=args, kwargs=kwargs, other=joined(others) if others else None)


def joinable(parts: Sequence[Inputs]) -> list[list[int]]:
    """Which inputs, by their place, can be joined: those of one structure, whose samples have the same shapes."""
    groups: dict[object, list[int]] = {}
    for place, part in enumerate(parts):
        groups.setdefault((_form(part), part.other and _form(part.other)), []).append(place)
    return [*groups.values()]


def _form(inputs: Inputs) -> tuple[object, ...]:
    count, dim = batch_size(inputs), inputs.batch_dim

    def shape(tensor: Tensor) -> tuple[int, ...]:
        sizes = [*tensor.shape]
        if dim is not None and _has(tensor, dim) and sizes[dim] == count:
            sizes[dim] = -1
        return tuple(sizes)

    leaves = leaves_in((inputs.args, inputs.kwargs))
    return tuple((path, shape(leaf), leaf.dtype) for path, leaf in leaves if isinstance(leaf, Tensor))


def _each(
    inputs: Inputs, change: Callable[[Tensor, int], Tensor]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The arguments with every tensor changed that holds samples."""
    count, dim = batch_size(inputs), inputs.batch_dim

    def changed(tensor: Tensor) -> Tensor:
        return (
            change(tensor, dim)
            if dim is not None and _has(tensor, dim) and tensor.shape[dim] == count
            else tensor
        )

    args, kwargs = mapped((inputs.args, inputs.kwargs), changed)
    return args, kwargs
