"""Finding the tensors inside the structures models take and return."""

from __future__ import annotations

import copy
import dataclasses
import enum
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from verifier.errors import ModelError

_DEEPEST = 200  # containers in containers: what goes on has no end, since it contains itself


def tensors_in(structure: Any, depth: int = 0) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclass instances, in a stable order.

    Raises:
        ModelError: It is nested beyond all measure, as what contains itself is.
    """
    _check_depth(depth)
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


def _check_depth(depth: int) -> None:
    if depth > _DEEPEST:
        raise ModelError(
            f"what one of the models takes or returns is a structure more than {_DEEPEST} containers deep, or one "
            "that contains itself; give tensors in tuples, lists or dicts."
        )


# What has nothing inside and is not changed by whoever gets it.
_ATOMS: tuple[type, ...] = (
    *(str, bytes, int, float, complex, type(None), torch.dtype, torch.device, torch.Size, enum.Enum),
    *(range, slice, type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType),
)


def leaves_in(
    structure: Any, *, objects: bool = True, by_name: bool = False
) -> Iterator[tuple[str, Tensor | Any]]:
    """Everything a model is given, each with where it stands: `[0]`, `[1].boxes`, `['mask']`.

    Args:
        structure: Tuples, lists, mappings and objects, in any nesting.
        objects: Whether attributes of objects (a cache of keys and values) are gone into, each object once.
        by_name: Whether what a mapping holds comes in the order of its keys, as `tensors_in` has it.

    Raises:
        ModelError: It contains itself.
    """
    walked: set[int] = set()

    def walk(value: Any, place: str, depth: int) -> Iterator[tuple[str, Any]]:
        _check_depth(depth)
        inner: Iterator[tuple[str, Any]] | None = None
        if isinstance(value, (Tensor, *_ATOMS)):
            pass
        elif isinstance(value, Mapping):
            keys = sorted(value, key=str) if by_name else value
            inner = ((f"[{key!r}]", value[key]) for key in keys)
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            inner = ((f".{name}", getattr(value, name)) for name in value._fields)
        elif isinstance(value, tuple | list):
            inner = ((f"[{k}]", each) for k, each in enumerate(value))
        elif objects and (names := _attributes(value)):
            if id(value) in walked:
                return
            walked.add(id(value))
            inner = ((f".{name}", getattr(value, name)) for name in names)
        if inner is None:
            yield place, value
        else:
            for name, each in inner:
                yield from walk(each, place + name, depth + 1)

    return walk(structure, "", 0)


def _attributes(value: object) -> list[str]:
    """Names of what an object itself holds, in slots or not."""
    slots = [getattr(kind, "__slots__", ()) for kind in type(value).__mro__]
    named = [name for each in slots for name in ((each,) if isinstance(each, str) else each)]
    return [name for name in (*getattr(value, "__dict__", ()), *named) if hasattr(value, name)]


def tensors_given(structure: Any) -> list[Tensor]:
    """All tensors in what a model is given, in the order of `tensors_in`; those inside objects, too."""
    return [leaf for _, leaf in leaves_in(structure, by_name=True) if isinstance(leaf, Tensor)]


def mapped(structure: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a model is given with every tensor changed; containers and objects are new, so that a call spoils none.

    Raises:
        Exception: What an object raises that cannot be copied.
    """
    memo: dict[int, Any] = {}

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return change(leaf)
        if isinstance(leaf, _ATOMS):
            return leaf
        for _, inside in leaves_in(leaf):
            if isinstance(inside, Tensor) and id(inside) not in memo:
                memo[id(inside)] = change(inside)
        return copy.deepcopy(leaf, memo)

    return pytree.tree_map(one, structure)


def dense(tensor: Tensor) -> Tensor:
    """The numbers a tensor holds, strided: sparse and quantised ones written out, nested ones in one row."""
    if tensor.is_nested:
        parts = [dense(part).reshape(-1) for part in tensor.unbind()]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=tensor.dtype, device=tensor.device)
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def once(tensor: Tensor) -> Tensor:
    """A view of what a strided tensor holds that is in memory once, however often it is expanded: 1 along there."""
    for dimension, stride in enumerate(tensor.stride()):
        if not stride and tensor.shape[dimension] > 1:
            tensor = tensor.narrow(dimension, 0, 1)
    return tensor


def copied(tensor: Tensor) -> Tensor:
    """A copy without gradients, which needs no more memory than the tensor: what is expanded stays so.

    A weight that is expanded for each sample or token may be hundreds of times as large as what it holds.
    """
    tensor = tensor.detach()
    if tensor.is_nested or tensor.layout != torch.strided:
        return tensor.clone()
    return once(tensor).clone().expand(tensor.shape)


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
    if not one.numel() or torch.equal(_words(one), _words(two)):
        return True
    if one.is_complex():
        one, two = torch.view_as_real(one.resolve_conj()), torch.view_as_real(two.resolve_conj())
    if not one.is_floating_point():
        return False
    if one.element_size() == 1:  # few operators know the eight-bit formats
        one, two = one.float(), two.float()
    return bool(((one == two) | (one.isnan() & two.isnan())).all())


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}


def _words(tensor: Tensor) -> Tensor:
    """The bits of a tensor as integers, which are equal where the bits are."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().flatten()
    return flat.view(_WORDS[flat.element_size()])
