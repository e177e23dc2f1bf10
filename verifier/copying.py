"""Working on copies: the models that were given are never run, hooked or written to."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from verifier.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by qualified name, persistent or not; a shared one appears once."""
    return {
        **{name: parameter.detach() for name, parameter in model.named_parameters()},
        **{name: buffer.detach() for name, buffer in model.named_buffers()},
    }


def copy_with(
    model: nn.Module,
    state: Mapping[str, Tensor],
    adapt: Callable[[Tensor], Tensor],
    *,
    role: str,
    written: Collection[str] | None = None,
) -> nn.Module:
    """A copy of `model` whose parameters and buffers are the tensors of `state`, not copies of them.

    Module objects are new, so hooks and buffers of the copy are its own; tensors are shared, so ten copies
    cost the memory of one. What a forward pass writes is cloned. Tensors that modules hold as plain attributes go
    through `adapt` as well (torch's own `Module.to` would leave them behind).

    Args:
        model: The module to copy; left untouched.
        state: A tensor for each name of `state_of(model)`, already in the wanted dtype and device.
        adapt: What to do with a tensor that is a plain attribute (cast, move).
        role: What the model is called in messages (`baseline`, `candidate`).
        written: Names of the tensors a forward pass writes; None if that is not known, for all of them.

    Raises:
        ModelError: The module cannot be copied.
    """
    memo: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        own = state[name].clone() if written is None or name in written else state[name]
        trainable = parameter.requires_grad and own.is_floating_point() and not own.is_inference()
        memo[id(parameter)] = nn.Parameter(own, requires_grad=trainable)
    for name, buffer in model.named_buffers():
        memo[id(buffer)] = state[name].clone() if written is None or name in written else state[name]
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and id(value) not in memo:
                adapted = adapt(value.detach())
                memo[id(value)] = adapted.clone() if adapted.data_ptr() == value.data_ptr() else adapted
            elif type(value) is OrderedDict and not value:
                memo[id(value)] = OrderedDict()  # most of a module is empty tables of hooks, slow to copy
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise ModelError(
            f"the {role} ({type(model).__name__}) cannot be copied for the comparison: {error}. "
            "Give its modules a working __deepcopy__, or pass a function that builds the model."
        ) from error
