"""Models of which a part is TorchScript: with that part's program in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from verifier.forms.scripted.module import of
from verifier.models.copying import copy_with, state_of

if TYPE_CHECKING:
    from torch import nn


def opened(model: nn.Module, role: str) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with programs in place of its scripted modules, which shares its tensors, and what to know of it.

    Args:
        model: The model as it was given; it is as it was afterwards.
        role: What it is called in messages.

    Raises:
        ModelError: A part of it cannot be copied.
    """
    places = [
        (parent, name, child)
        for parent in model.modules()
        if not isinstance(parent, torch.jit.ScriptModule)
        for name, child in parent._modules.items()
        if isinstance(child, torch.jit.ScriptModule)
    ]
    forms = {id(child): of(child) for _, _, child in places}
    try:
        for parent, name, child in places:
            parent._modules[name] = forms[id(child)].program
        program = copy_with(model, state_of(model), lambda tensor: tensor, role=role, written=())
    finally:
        for parent, name, child in places:
            parent._modules[name] = child
    return program, tuple(dict.fromkeys(note for form in forms.values() for note in form.notes))
