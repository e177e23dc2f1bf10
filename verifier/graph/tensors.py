"""Finding the tensors inside the structures models take and return."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from verifier.errors import ModelError

_DEEPEST = 200  # containers in containers: what goes on has no end, since it contains itself


def tensors_in(structure: Any, depth: int = 0) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclass instances, in a stable order.

    Raises:
        ModelError: It is nested beyond all measure, as what contains itself is.
    """
    if depth > _DEEPEST:
        raise ModelError(
            f"what one of the models takes or returns is a structure more than {_DEEPEST} containers deep, or one "
            "that contains itself; give tensors in tuples, lists or dicts."
        )
    if isinstance(structure, Tensor):
        yield structure
    elif isinstance(structure, Mapping):
        for key in sorted(structure, key=str):  # models fill their outputs in different orders
            yield from tensors_in(structure[key], depth + 1)
    elif isinstance(structure, tuple | list) and not isinstance(structure, torch.Size):
        for item in structure:
            yield from tensors_in(item, depth + 1)
    elif dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        for field in dataclasses.fields(structure):
            yield from tensors_in(getattr(structure, field.name), depth + 1)


def dense(tensor: Tensor) -> Tensor:
    """The numbers a tensor holds, strided: sparse and quantised ones written out, nested ones in one row."""
    if tensor.is_nested:
        parts = [dense(part).reshape(-1) for part in tensor.unbind()]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=tensor.dtype, device=tensor.device)
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
    if not one.numel() or bool(_bytes(one).eq(_bytes(two)).all()):
        return True
    if one.is_complex():
        one, two = torch.view_as_real(one.resolve_conj()), torch.view_as_real(two.resolve_conj())
    if not one.is_floating_point():
        return False
    if one.element_size() == 1:  # few operators know the eight-bit formats
        one, two = one.float(), two.float()
    return bool(((one == two) | (one.isnan() & two.isnan())).all())


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
