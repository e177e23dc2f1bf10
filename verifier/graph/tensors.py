"""Finding the tensors inside the structures models take and return."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
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
