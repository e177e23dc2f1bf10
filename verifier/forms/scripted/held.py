"""Where a model holds TorchScript: submodules, and what it keeps in plain lists, tuples and dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


def places(model: nn.Module) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """What holds scripted modules: a module's own dict, the name there, and what stands under it."""
    for parent in model.modules():
        if isinstance(parent, torch.jit.ScriptModule):
            continue
        yield from (
            (parent._modules, name, child)
            for name, child in parent._modules.items()
            if isinstance(child, torch.jit.ScriptModule)
        )
        yield from (
            (vars(parent), name, value)
            for name, value in vars(parent).items()
            if name not in _REGISTERED and any(True for _ in within(value))
        )


_REGISTERED = frozenset({"_buffers", "_modules", "_parameters"})


def within(value: Any) -> Iterator[torch.jit.ScriptModule]:
    """The scripted modules in a value."""
    if isinstance(value, torch.jit.ScriptModule):
        yield value
    elif type(value) in _PLAIN:
        for each in value.values() if type(value) is dict else value:
            yield from within(each)


def exchanged(value: Any, instead: Callable[[torch.jit.ScriptModule], nn.Module]) -> Any:
    """A value with others in the place of the scripted modules in it."""
    if isinstance(value, torch.jit.ScriptModule):
        return instead(value)
    if type(value) is dict:
        return {key: exchanged(each, instead) for key, each in value.items()}
    return type(value)(exchanged(each, instead) for each in value) if type(value) in _PLAIN else value


_PLAIN = (dict, list, tuple)
