"""Finding the tensors inside the structures models take and return."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
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


def named_tensors(structure: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in what a model returns, in its own order, each with where it stands: `logits`, `0`, `states.1`."""
    if isinstance(structure, Tensor):
        yield path, structure
        return
    inner: Iterable[tuple[object, Any]] = ()
    if isinstance(structure, Mapping):
        inner = structure.items()
    elif isinstance(structure, tuple) and hasattr(structure, "_fields"):
        inner = zip(structure._fields, structure, strict=True)
    elif isinstance(structure, tuple | list) and not isinstance(structure, torch.Size):
        inner = enumerate(structure)
    elif dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        inner = ((field.name, getattr(structure, field.name)) for field in dataclasses.fields(structure))
    for key, value in inner:
        yield from named_tensors(value, f"{path}.{key}" if path else str(key))


def same_memory(tensor: Tensor) -> int | None:
    """A key that two living tensors share exactly when they share storage; None where a tensor has none."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse and other storage-less layouts
        return None
