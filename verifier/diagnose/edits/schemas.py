"""What an operator can be told: its arguments' names, and the settings it has, given or left at their default."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch._ops import OpOverload

from verifier.graph.operators import IRRELEVANT, operator_name, signature_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.graph import KeptCall


class Setting(NamedTuple):
    """A setting a call does not mention: its name and its default."""

    name: str
    default: Any


def argument_name(call: KeptCall, name: str) -> str:
    """What an argument is called: torch's table of overridable functions has a wrong name or none for some."""
    if name not in call.positional or inspect.isfunction(call.function):
        return name
    position, value = call.positional.index(name), call.arguments[name]
    for schema in _schemas(call.function):
        names = [argument for argument in schema.arguments if not argument.kwarg_only]
        if len(names) < len(call.positional):
            continue
        argument = names[position]
        if (str(argument.type) == "bool") == isinstance(value, bool):
            return str(argument.name)
    return name


def unset(call: KeptCall) -> list[Setting]:
    """The settings a call leaves at their default, from the function's signature and torch's schemas."""
    found: dict[str, Any] = {}
    for name, default in _defaults(call.function):
        if name not in call.arguments and name not in _NOT_TRIED:
            found.setdefault(name, default)
    return [Setting(name, default) for name, default in found.items()]


_NOT_TRIED = IRRELEVANT | {"_stacklevel", "dtype", "device", "layout", "pin_memory", "requires_grad", "names"}
_NOT_TRIED |= {"memory_format", "non_blocking", "copy", "enable_gqa", "sparse", "as_tuple", "return_indices"}


@cache
def _defaults(function: Callable[..., Any]) -> tuple[tuple[str, Any], ...]:
    found: list[tuple[str, Any]] = []
    for signature in (_python_signature(function), signature_of(function)):
        if signature is not None:
            found += [
                (name, parameter.default)
                for name, parameter in signature.parameters.items()
                if parameter.default is not parameter.empty
            ]
    for schema in _schemas(function):
        for argument in schema.arguments:
            if argument.name == "correction":
                found.append(("correction", 1))
            elif argument.has_default_value() and not argument.is_out:
                found.append((argument.name, argument.default_value))
    if operator_name(function) == "meshgrid":  # its signature takes any keyword
        found.append(("indexing", "ij"))
    return tuple(found)


def _schemas(function: Callable[..., Any]) -> list[Any]:
    if isinstance(function, OpOverload):
        return [function._schema]
    name = getattr(function, "_qualified_op_name", f"aten::{operator_name(function)}")
    try:
        found: list[Any] = torch._C._jit_get_schemas_for_operator(name)
    except RuntimeError:  # no operator of that name
        return []
    return [schema for schema in found if not schema.overload_name.endswith("out")]


def _python_signature(function: Callable[..., Any]) -> inspect.Signature | None:
    if not inspect.isfunction(function):
        return None
    signature = inspect.signature(function)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return None if inspect.Parameter.VAR_POSITIONAL in kinds else signature


_PADS = ("constant", "reflect", "replicate", "circular")
_WORDS = {
    "approximate": ("none", "tanh"),
    "indexing": ("ij", "xy"),
    "norm": ("backward", "ortho", "forward"),
    "pad_mode": _PADS,
    "padding": ("same", "valid"),
    "padding_mode": ("zeros", "border", "reflection", "reflect", "replicate", "circular"),
    "rounding_mode": ("floor", "trunc", None),
}
_MODES = {
    "pad": _PADS,
    "interpolate": ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"),
    "grid_sample": ("bilinear", "nearest", "bicubic"),
    "embedding_bag": ("sum", "mean", "max"),
}


def words(op: str, name: str) -> tuple[str | None, ...]:
    """The words an argument can be, as far as they are known."""
    return _MODES.get(op, ()) if name == "mode" else _WORDS.get(name, ())


DIMENSIONS = frozenset({"dim", "dims", "axis", "dim0", "dim1", "axis0", "axis1", "start_dim", "end_dim"})
