"""One call of torch as Python text."""

from __future__ import annotations

import inspect
import types
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import resolve_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


class UnwritableError(Exception):
    """Something that lines of torch alone cannot say; the text says what, and completes "is not written: "."""


_FUNCTIONAL = "torch.nn.functional."
# Where a function is looked for that torch's table of overridable functions does not have.
_PLACES: tuple[str, ...] = (
    "torch",
    "torch.nn.functional",
    "torch.Tensor",
    "torch.linalg",
    "torch.special",
    "torch.fft",
)
_PLACES += ("torch._C._nn", "torch._C._VariableFunctions", "torch.nested", "torch.sparse")
_BINARY = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
    "matmul": "@", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "and": "&", "or": "|", "xor": "^",
}  # fmt: skip
_UNARY = {"neg": "-", "invert": "~"}
_IN_PLACE = {"iadd": "add_", "isub": "sub_", "imul": "mul_", "itruediv": "div_"}
_UNSAID = frozenset({"_stacklevel"})  # says where a warning points


@cache
def path_of(function: Callable[..., Any]) -> str:
    """Where torch has a function, `torch.nn.functional.relu`.

    Raises:
        UnwritableError: It is none of torch's.
    """
    if isinstance(function, OpOverload):
        packet = function.overloadpacket
        if function.namespace in {"aten", "prims"}:
            return f"torch.ops.{function.namespace}.{packet.__name__}.{function._overloadname}"
    elif isinstance(function, OpOverloadPacket):
        if str(function).partition(".")[0] in {"aten", "prims"}:
            return f"torch.ops.{function}"
    else:
        for path in _candidates(function):
            if path is not None and path.startswith("torch.") and _at(path) == function:
                return path
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or str(function)
    raise UnwritableError(f"{name} is no operator of torch's own")


def _candidates(function: Callable[..., Any]) -> Iterator[str | None]:
    path = resolve_name(function)
    if path is not None and not path.startswith((_FUNCTIONAL, "torch.Tensor.")):
        yield f"torch.{path.rpartition('.')[2]}"  # torch.functional.einsum is torch.einsum
    yield path
    name = getattr(function, "__name__", "")
    yield from (f"{place}.{name}" for place in _PLACES)


def _at(path: str) -> Any:
    found: Any = torch
    for part in path.split(".")[1:]:
        found = getattr(found, part, None)
    return found


def call_text(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    positional: Sequence[str],
    tensors: Iterator[str],
) -> str:
    """A call as an expression.

    Args:
        function: What is called.
        arguments: Everything it is given by name, tensors in any nesting.
        positional: Names of those that are given by position.
        tensors: What stands for each tensor, in the order in which they stand in the arguments.

    Raises:
        UnwritableError: The function is none of torch's, or an argument cannot be written.
    """
    path = path_of(function)
    method = path.removeprefix("torch.Tensor.") if path.startswith("torch.Tensor.") else ""
    if method in {"__getitem__", "__setitem__"}:
        values = list(arguments.values())
        first = value_text(values[0], tensors)
        index = _index_text(values[1], tensors)
        return f"{first}[{index}]" + ("" if len(values) < 3 else f" = {value_text(values[2], tensors)}")
    texts = {name: value_text(value, tensors) for name, value in arguments.items()}
    by_name = _names(function, arguments, positional)
    given = [texts[name] for name in positional if name not in by_name]
    named = [f"{name}={texts[name]}" for name in texts if name in by_name or name not in positional]
    named = [each for each in named if each.partition("=")[0] not in _UNSAID]
    if method:
        return _method_text(method, given, named)
    return f"{path.replace(_FUNCTIONAL, 'F.')}({', '.join([*given, *named])})"


def _method_text(method: str, given: Sequence[str], named: Sequence[str]) -> str:
    first, *rest = given
    if method.endswith(".__get__"):
        return f"{first}.{method.removesuffix('.__get__')}"
    if method.startswith("__") and not named:
        bare = method.strip("_")
        if bare in _BINARY and len(rest) == 1:
            return f"{first} {_BINARY[bare]} {rest[0]}"
        if bare[:1] == "r" and bare[1:] in _BINARY and len(rest) == 1:
            return f"{rest[0]} {_BINARY[bare[1:]]} {first}"
        if bare in _UNARY:
            return f"{_UNARY[bare]}{first}"
        method = _IN_PLACE.get(bare, method)
    return f"{first}.{method}({', '.join([*rest, *named])})"


def _names(
    function: Callable[..., Any], arguments: Mapping[str, Any], positional: Sequence[str]
) -> frozenset[str]:
    """Of the arguments that were given by position those that read better by name: what follows the tensors."""
    if not isinstance(function, types.FunctionType):
        return frozenset()
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return frozenset()
    able = all(
        name in known and known[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for name in positional
    )
    if not able or list(known)[: len(positional)] != list(positional):
        return frozenset()
    last = max((k for k, name in enumerate(positional) if isinstance(arguments[name], Tensor)), default=0)
    return frozenset(positional[last + 1 :])


def _index_text(value: Any, tensors: Iterator[str]) -> str:
    if isinstance(value, tuple) and type(value) is tuple and value:
        texts = [_slice_text(each, tensors) for each in value]
        return ", ".join(texts) + ("," if len(texts) == 1 else "")
    return _slice_text(value, tensors)


def _slice_text(value: Any, tensors: Iterator[str]) -> str:
    if not isinstance(value, slice):
        return value_text(value, tensors)
    start, stop, step = (
        "" if each is None else value_text(each, tensors) for each in (value.start, value.stop, value.step)
    )
    return f"{start}:{stop}" + (f":{step}" if step else "")


def value_text(value: Any, tensors: Iterator[str]) -> str:
    """An argument as text.

    Raises:
        UnwritableError: It is of a kind that has none.
    """
    if isinstance(value, Tensor):
        return next(tensors)
    if value is None or isinstance(value, bool | str):
        return repr(value)
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, float):
        number = repr(float(value))
        return number if value - value == 0 else f'float("{number}")'
    if isinstance(value, complex):
        return repr(complex(value))
    if value is Ellipsis:
        return "..."
    if isinstance(value, torch.device):
        return '"cpu"'
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return str(value)
    if isinstance(value, slice):
        parts = (value_text(each, tensors) for each in (value.start, value.stop, value.step))
        return f"slice({', '.join(parts)})"
    if isinstance(value, list):
        return f"[{', '.join(value_text(each, tensors) for each in value)}]"
    if isinstance(value, tuple):
        texts = [value_text(each, tensors) for each in value]
        return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"
    if type(value) is dict and all(isinstance(key, str) for key in value):
        texts = [f"{key!r}: {value_text(value[key], tensors)}" for key in sorted(value)]
        return f"{{{', '.join(texts)}}}"
    raise UnwritableError(f"an argument is of the type {type(value).__name__}")
