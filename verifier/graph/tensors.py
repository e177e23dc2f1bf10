"""Finding the tensors inside the structures models take and return."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def tensors_in(structure: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclass instances, in a stable order."""
    if isinstance(structure, Tensor):
        yield structure
    elif isinstance(structure, Mapping):
        for item in structure.values():
            yield from tensors_in(item)
    elif isinstance(structure, tuple | list) and not isinstance(structure, torch.Size):
        for item in structure:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        for field in dataclasses.fields(structure):
            yield from tensors_in(getattr(structure, field.name))


def map_tensors(function: Callable[[Tensor], Tensor], structure: Any) -> Any:
    """`structure` with every tensor in it replaced by `function(tensor)`; other leaves stay as they are."""
    if isinstance(structure, Tensor):
        return function(structure)
    if isinstance(structure, dict):
        return {key: map_tensors(function, item) for key, item in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*(map_tensors(function, item) for item in structure))
    if isinstance(structure, tuple | list):
        return type(structure)(map_tensors(function, item) for item in structure)
    return structure


def same_memory(tensor: Tensor) -> int | None:
    """A key that two tensors share exactly when they share storage; None where a tensor has none."""
    try:
        return tensor.untyped_storage()._cdata  # noqa: SLF001 - torch has no public name for the identity
    except (NotImplementedError, RuntimeError):  # sparse and other storage-less layouts
        return None
