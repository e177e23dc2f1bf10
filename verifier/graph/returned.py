"""What a model returns: tensors, numbers and everything else, each with where it stands."""

from __future__ import annotations

import dataclasses
import enum
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verifier.graph.tensors import dense

# What stands for itself in words: two of a kind are the same where their words are.
_PLAIN = (
    str,
    bytes,
    type(None),
    torch.dtype,
    torch.device,
    torch.Size,
    range,
    slice,
    type,
    enum.Enum,
    numbers.Number,
)


@dataclasses.dataclass(frozen=True)
class Returned:
    """What one forward pass returned, in the model's own order, each with where it stands (`logits`, `states.1`).

    Attributes:
        tensors: Tensors as they were returned; numbers and lists of them as float64 (complex ones as complex128),
            arrays of NumPy as they are.
        kinds: For each of `tensors`, what it was: its dtype (`float32`), its layout too where it is not strided, or
            the type of a number.
        words: Everything else that can be told apart: strings, None, dtypes.
        unread: What cannot be compared, by its type.
    """

    tensors: tuple[tuple[str, Tensor], ...]
    kinds: tuple[str, ...]
    words: Mapping[str, str]
    unread: Mapping[str, str]

    @classmethod
    def of(cls, structure: Any) -> Returned:
        """Take apart what a model returned."""
        tensors: list[tuple[str, Tensor]] = []
        kinds: list[str] = []
        words: dict[str, str] = {}
        unread: dict[str, str] = {}
        for place, leaf in _leaves(structure, ""):
            tensor = _as_tensor(leaf)
            if tensor is not None:
                tensors.append((place, tensor))
                kinds.append(_kind(leaf))
            elif isinstance(leaf, _PLAIN):
                words[place] = repr(leaf)
            else:
                unread[place] = type(leaf).__name__
        return cls(tuple(tensors), tuple(kinds), words, unread)

    @property
    def names(self) -> tuple[str, ...]:
        """Where each tensor stands; empty for a bare one."""
        return tuple(name for name, _ in self.tensors)

    def values(self, order: tuple[int, ...] | None = None) -> list[Tensor]:
        """The tensors as the numbers they hold, strided, in their own order or in another."""
        found = [dense(tensor) for _, tensor in self.tensors]
        return [found[k] for k in order or range(len(found))]

    def keys(self) -> tuple[str, ...]:
        """The names the model gives to what can be compared, without positions; what is None counts as left out."""
        places = [*self.names, *(name for name, word in self.words.items() if word != "None")]
        return tuple(place for place in places if place and not place.replace(".", "").isdigit())


def _leaves(structure: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Everything in nested tuples, lists, mappings and dataclass instances that is none of these itself."""
    inner: Any
    if isinstance(structure, Mapping):
        inner = structure.items()
    elif isinstance(structure, tuple) and hasattr(structure, "_fields"):
        inner = zip(structure._fields, structure, strict=True)
    elif isinstance(structure, list) and _as_tensor(structure) is not None:
        yield path, structure  # as many numbers as there are samples, say
        return
    elif isinstance(structure, tuple | list) and not isinstance(structure, torch.Size):
        inner = enumerate(structure)
    elif isinstance(structure, set | frozenset):
        inner = enumerate(sorted(structure, key=repr))
    elif dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        inner = ((field.name, getattr(structure, field.name)) for field in dataclasses.fields(structure))
    else:
        yield path, structure
        return
    for key, value in inner:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _as_tensor(leaf: Any) -> Tensor | None:
    if isinstance(leaf, Tensor):
        return leaf
    if _all_numbers(leaf):
        try:
            array = np.array(float(leaf) if isinstance(leaf, numbers.Real) else leaf)
        except (OverflowError, ValueError):  # beyond all floats; lists of several lengths
            return None
        if array.dtype.kind in "biuf":
            return torch.from_numpy(array.astype(np.float64))
        return torch.from_numpy(array.astype(np.complex128)) if array.dtype.kind == "c" else None
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "biufc":
        try:
            return torch.from_numpy(np.array(leaf, dtype=leaf.dtype.newbyteorder("=")))
        except TypeError:  # a dtype that torch does not have
            return None
    return None


def _all_numbers(leaf: Any) -> bool:
    """Whether it is a number of Python's, or nested lists of nothing else."""
    if isinstance(leaf, list):
        return bool(leaf) and all(map(_all_numbers, leaf))
    return isinstance(leaf, numbers.Number) and not isinstance(leaf, np.generic)


def _kind(leaf: Any) -> str:
    if isinstance(leaf, Tensor):
        dtype = str(leaf.dtype).removeprefix("torch.")
        if leaf.is_nested:
            return f"nested {dtype}"
        layout = str(leaf.layout).removeprefix("torch.").replace("_", " ")
        return dtype if layout == "strided" else f"{layout} {dtype}"
    if isinstance(leaf, np.ndarray | np.generic):
        return f"an array of {leaf.dtype}"
    return type(leaf).__name__
