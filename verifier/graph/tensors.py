"""Finding the tensors inside the structures models take and return."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def tensors_in(structure: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclass instances, in a stable order."""
    if isinstance(structure, Tensor):
        yield structure
    elif isinstance(structure, Mapping):
        for key in sorted(structure, key=str):  # models fill their outputs in different orders
            yield from tensors_in(structure[key])
    elif isinstance(structure, tuple | list) and not isinstance(structure, torch.Size):
        for item in structure:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        for field in dataclasses.fields(structure):
            yield from tensors_in(getattr(structure, field.name))


def dense(tensor: Tensor) -> Tensor:
    """The numbers a tensor holds, strided: sparse and quantised ones written out, nested ones in one row."""
    if tensor.is_nested:
        return torch.cat([dense(part).reshape(-1) for part in tensor.unbind()])
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape of what `dense` makes of a tensor: nested ones have none of their own."""
    return (tensor.numel(),) if tensor.is_nested else tuple(tensor.shape)


def same_memory(tensor: Tensor) -> int | None:
    """A key that two living tensors share exactly when they share storage; None where a tensor has none."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse and other storage-less layouts
        return None


def same_numbers(one: Tensor, two: Tensor) -> bool:
    """Whether two strided tensors hold the same numbers in the same dtype; a NaN is like any other."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if torch.equal(one, two):
        return True
    return one.dtype.is_floating_point and bool(((one == two) | (one.isnan() & two.isnan())).all())
