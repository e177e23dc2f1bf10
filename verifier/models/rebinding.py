"""Functions that belong to a model follow its copy: what they close over is the copy's, no longer the original's.

`copy.deepcopy` takes functions as they are. A layer whose `forward` was replaced by a closure over the layer itself,
a hook that holds another module, a wrapper made with `functools.partial` would go on computing with the original.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Copying = Callable[[Any], Any]

_CONTAINERS = (list, tuple, set)
_FUNCTIONS = types.FunctionType, types.MethodType, functools.partial
_MOST = 10_000  # objects looked through for modules: what holds a framework's own tables has no end


def rebound(value: Any, copied: Copying, memo: dict[int, Any]) -> Any:
    """A function, method or partial whose modules and tensors are replaced by what `copied` makes of them.

    The function itself where it holds none. `copied` is asked for whatever holds some; `memo` is told of a new
    function before that, since a function may hold itself.
    """
    value = getattr(value, "_torchdynamo_orig_callable", value)  # what is compared is the program inside
    if not _follows(value):
        return value
    if isinstance(value, types.MethodType):
        return types.MethodType(copied(value.__func__), copied(value.__self__))
    if isinstance(value, functools.partial):
        made = functools.partial(
            copied(value.func),
            *map(copied, value.args),
            **{name: copied(each) for name, each in value.keywords.items()},
        )
        made.__dict__.update({name: copied(each) for name, each in vars(value).items()})
        return made
    cells = tuple(types.CellType() for _ in value.__closure__ or ())
    world = dict(value.__globals__) if _global_names(value) else value.__globals__
    function = types.FunctionType(value.__code__, world, value.__name__, None, cells or None)
    memo[id(value)] = function
    function.__qualname__, function.__module__ = value.__qualname__, value.__module__
    for name in _global_names(value):
        world[name] = copied(value.__globals__[name])
    for cell, old in zip(cells, value.__closure__ or (), strict=True):
        if _filled(old):
            cell.cell_contents = copied(old.cell_contents)
    function.__defaults__ = copied(value.__defaults__)
    function.__kwdefaults__ = copied(value.__kwdefaults__)
    function.__dict__.update({name: copied(each) for name, each in vars(value).items()})
    return function


def is_callable(value: Any) -> bool:
    """Whether something is a function, method or partial that `rebound` looks into."""
    return isinstance(value, _FUNCTIONS)


def held_by(value: Any) -> Iterator[nn.Module | Tensor]:
    """Modules and tensors that a function, method, partial, container or object reaches, whosever they are."""
    stack: list[Any] = [value]
    seen: set[int] = set()
    while stack and len(seen) < _MOST:
        here = stack.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if isinstance(here, nn.Module | Tensor):
            yield here
        elif isinstance(here, dict):
            stack.extend(here.values())
        elif isinstance(here, _CONTAINERS):
            stack.extend(here)
        else:
            stack.extend(_held(here))


def _follows(value: Any) -> bool:
    return next(held_by(value), None) is not None


def _held(value: Any) -> list[Any]:
    """What a function, method or partial holds directly."""
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values(), *vars(value).values()]
    if not isinstance(value, types.FunctionType):
        opaque = isinstance(value, type | types.ModuleType | types.BuiltinFunctionType)
        return [] if opaque else list(getattr(value, "__dict__", {}).values())
    return [
        *(cell.cell_contents for cell in value.__closure__ or () if _filled(cell)),
        *(value.__defaults__ or ()),
        *(value.__kwdefaults__ or {}).values(),
        *(value.__globals__[name] for name in _global_names(value)),
        *vars(value).values(),
    ]


def _global_names(function: types.FunctionType) -> list[str]:
    """Names of global modules and tensors that a function's code mentions."""
    known = function.__globals__
    return [name for name in function.__code__.co_names if isinstance(known.get(name), nn.Module | Tensor)]


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
