"""Models of which a part is TorchScript: with that part's program in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.forms.scripted.held import exchanged, places, within
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
    found = [*places(model)]
    forms = {id(child): of(child) for _, _, value in found for child in within(value)}
    try:
        for parent, name, value in found:
            parent[name] = exchanged(value, lambda child: forms[id(child)].program)
        program = copy_with(model, state_of(model), lambda tensor: tensor, role=role, written=())
    finally:
        for parent, name, value in found:
            parent[name] = value
    return program, tuple(dict.fromkeys(note for form in forms.values() for note in form.notes))
