"""What hangs on the nodes that add up parameters' gradients, which do not outlive another dtype of the parameter."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from torch.autograd.graph import get_gradient_edge
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

_MARK = "verifier"


@contextlib.contextmanager
def wrapped_in(dtype: torch.dtype | None) -> Iterator[None]:
    """Let `DistributedDataParallel` hang its reductions on parameters that have a dtype already."""
    wrapper: Any = DistributedDataParallel
    original = wrapper.__init__

    def init(self: Any, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, module.to(dtype), *args, **kwargs)

    if dtype is not None:
        wrapper.__init__ = init
    try:
        yield
    finally:
        wrapper.__init__ = original


def hung_on(model: nn.Module) -> str:
    """The first parameter whose gradient's node something holds on to, as hooks do that are registered there."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_leaf:
            # A node that nobody holds is gone at once, and what is noted on it.
            _noted(parameter)[_MARK] = True
            if _noted(parameter).pop(_MARK, False):
                return name
    return ""


def _noted(parameter: nn.Parameter) -> dict[Any, Any]:
    node: Any = get_gradient_edge(parameter).node
    found: dict[Any, Any] = node.metadata
    return found
