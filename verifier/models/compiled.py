"""Models that were compiled, wholly or in part: what they are, and the program inside."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from verifier.models.copying import INSIDE, copy_with, is_plain, state_of
from verifier.models.rebinding import is_callable

if TYPE_CHECKING:
    from collections.abc import Iterator


def compiled_parts(model: nn.Module) -> list[str]:
    """Names of the modules of which compiled code runs, empty for the model itself."""
    return [name for name, module in model.named_modules() if _is_compiled(module)]


def compiled_functions(model: nn.Module) -> bool:
    """Whether its classes have compiled methods, or functions of theirs name a compiled one beside them."""
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    return any(_calls_compiled(value) for kind in kinds - {nn.Module} for value in vars(kind).values())


def _calls_compiled(function: object) -> bool:
    if hasattr(function, _ORIGINAL):
        return True
    code, names = getattr(function, "__code__", None), getattr(function, "__globals__", None)
    if code is None or names is None or names.get("__name__", "").startswith("torch."):
        return False
    return any(hasattr(names.get(name), _ORIGINAL) for name in code.co_names)


_ORIGINAL = "_torchdynamo_orig_callable"  # what torch.compile leaves on a function


def eager(model: nn.Module, role: str) -> nn.Module:
    """The program inside: the model itself where nothing is compiled, else one that shares its tensors.

    Args:
        model: The model as it was given; left untouched.
        role: What it is called in messages.

    Raises:
        ModelError: A part of it cannot be copied.
    """
    if not compiled_parts(model):
        return model
    return copy_with(model, state_of(model), lambda tensor: tensor, role=role, written=())


def patched(model: nn.Module) -> bool:
    """Whether a model is more than its modules: scripted parts, hooks, classes copied in their own way."""
    if any(
        isinstance(module, torch.jit.ScriptModule)
        or not is_plain(type(module))
        or type(module).__call__ is not nn.Module.__call__
        for module in model.modules()
    ):
        return True
    return any(
        is_callable(each)
        for module in model.modules()
        for value in vars(module).values()
        for each in (value.values() if isinstance(value, dict) else (value,))
    )


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
    """Whatever is compiled runs as the Python it was made of, in the whole process.

    Only where something was compiled before: torch's compiler takes a second to import.
    """
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is None:
        yield
        return
    with dynamo.set_stance("force_eager"):
        yield


def _is_compiled(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):  # no Python is inside
        return False
    forward = vars(module).get("forward", type(module).forward)
    return (
        INSIDE in module._modules
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(forward, _ORIGINAL)
    )
