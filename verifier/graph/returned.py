"""What a model returns: tensors, numbers and everything else, each with where it stands."""

from __future__ import annotations

import dataclasses
import enum
import numbers
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verifier.graph.tensors import dense, tensors_in

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
        tensors: Tensors as they were returned; numbers as int64, bool, float64 or complex128, a long list of them as
            one tensor, arrays of NumPy as they are.
        kinds: For each of `tensors`, what it was: its dtype (`float32`), its layout too where it is not strided, or
            the type of a number.
        words: Everything else that can be told apart: strings, None, dtypes.
        unread: What cannot be compared, by its type.
        named: Places the model gives a name to, not only a position.
    """

    tensors: tuple[tuple[str, Tensor], ...]
    kinds: tuple[str, ...]
    words: Mapping[str, str]
    unread: Mapping[str, str]
    named: frozenset[str]

    @classmethod
    def of(cls, structure: Any) -> Returned:
        """Take apart what a model returned.

        Raises:
            ModelError: It contains itself.
        """
        deque(tensors_in(structure), maxlen=0)
        tensors: list[tuple[str, Tensor]] = []
        kinds: list[str] = []
        words: dict[str, str] = {}
        unread: dict[str, str] = {}
        named: set[str] = set()
        for place, leaf, has_name in _leaves(structure, "", named=False):
            if has_name:
                named.add(place)
            tensor = _as_tensor(leaf)
            if tensor is not None:
                tensors.append((place, tensor))
                kinds.append(_kind(leaf))
            elif isinstance(leaf, _PLAIN):
                words[place] = repr(leaf)
            else:
                unread[place] = type(leaf).__name__
        return cls(tuple(tensors), tuple(kinds), words, unread, frozenset(named))

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
        return tuple(place for place in places if place in self.named)


def words_apart(baseline: Mapping[str, str], candidate: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Sentences on what two models return that is no number, and whether each might say nothing.

    A None that only one side spells out says nothing, and what only one side has may have been told with its key.
    """
    for place in dict.fromkeys((*baseline, *candidate)):
        one, two = baseline.get(place), candidate.get(place)
        if one != two:
            at = f" at {place}" if place else ""
            said = f"the baseline returns {one or 'nothing'} and the candidate returns {two or 'nothing'}{at}"
            yield said, None in (one, two)


def _leaves(structure: Any, path: str, *, named: bool) -> Iterator[tuple[str, Any, bool]]:
    """Everything in nested tuples, lists, mappings and dataclass instances that is none of these itself.

    With it come the place where it stands, and whether a name leads there.
    """
    inner: Any
    names = True
    if isinstance(structure, Mapping):
        inner = ((_text(key, number), value) for number, (key, value) in enumerate(structure.items()))
    elif isinstance(structure, tuple) and hasattr(structure, "_fields"):
        inner = zip(structure._fields, structure, strict=True)
    elif isinstance(structure, tuple | list) and not isinstance(structure, torch.Size):
        if _count(structure) > _ONE_BY_ONE:
            yield path, list(structure), named
            return
        inner, names = enumerate(structure), False
    elif isinstance(structure, set | frozenset):
        inner, names = enumerate(sorted(structure, key=repr)), False
    elif dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        inner = ((field.name, getattr(structure, field.name)) for field in dataclasses.fields(structure))
    else:
        yield path, structure, named
        return
    for key, value in inner:
        yield from _leaves(value, f"{path}.{key}" if path else str(key), named=named or names)


# Numbers in a list that are compared one by one, so that a large one does not hide the others.
_ONE_BY_ONE = 64


def _count(structure: Any) -> int:
    """How many numbers there are in nested lists of nothing else; 0 where something else is among them."""
    if isinstance(structure, list | tuple):
        counts = [_count(item) for item in structure]
        return sum(counts) if all(counts) else 0
    return int(isinstance(structure, numbers.Number))


def _text(key: object, number: int) -> str:
    """A key in words that are the same in every run."""
    if isinstance(key, str | int | float | bool | bytes | tuple | enum.Enum | type(None)):
        return str(key)
    return str(key.tolist()) if isinstance(key, Tensor) else f"{type(key).__name__} #{number}"


def _as_tensor(leaf: Any) -> Tensor | None:
    if isinstance(leaf, Tensor):
        return leaf
    try:
        if isinstance(leaf, list):
            leaf = np.array(leaf)
        if isinstance(leaf, np.ndarray | np.generic):
            known = leaf.dtype.kind in "biufc"
            return torch.from_numpy(np.array(leaf, dtype=leaf.dtype.newbyteorder("="))) if known else None
        if isinstance(leaf, bool | int | complex):
            return torch.tensor(leaf, dtype=_DTYPES.get(type(leaf), torch.int64))
        if isinstance(leaf, numbers.Real):
            return torch.tensor(float(leaf), dtype=torch.float64)
    except (OverflowError, RuntimeError, TypeError, ValueError):
        return None  # a number too large, lists of several lengths, a dtype that torch does not have
    return None


_DTYPES = {bool: torch.bool, int: torch.int64, complex: torch.complex128}


def _kind(leaf: Any) -> str:
    if isinstance(leaf, Tensor):
        dtype = str(leaf.dtype).removeprefix("torch.")
        if leaf.is_nested:
            return f"nested {dtype} of {', '.join(str(tuple(part.shape)) for part in leaf.unbind())}"
        layout = str(leaf.layout).removeprefix("torch.").replace("_", " ")
        return dtype if layout == "strided" else f"{layout} {dtype}"
    if isinstance(leaf, np.ndarray | np.generic):
        return f"an array of {leaf.dtype}"
    return type(leaf).__name__
