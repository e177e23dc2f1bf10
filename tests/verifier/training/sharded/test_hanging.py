"""Hooks on the nodes that add up gradients, which another dtype of a parameter would lose."""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.parallel import DistributedDataParallel

from verifier.training.sharded.hanging import hung_on, wrapped_in


def test_hooks_on_a_node_are_seen_and_nothing_else_is() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda _: None)  # type: ignore[no-untyped-call]
        parameter.register_hook(lambda gradient: gradient)  # type: ignore[no-untyped-call]
    model(torch.ones(1, 2)).sum().backward()
    assert hung_on(model) == ""
    node = get_gradient_edge(model.get_parameter("1.weight")).node  # as who registers a hook there keeps it
    node.register_hook(lambda *_: None)
    assert hung_on(model) == "1.weight"


def test_a_model_has_its_dtype_before_it_is_wrapped() -> None:
    seen = []

    class Wrapper(DistributedDataParallel):
        def __init__(self, module: nn.Module) -> None:
            seen.append(next(module.parameters()).dtype)
            try:
                super().__init__(module)
            except (RuntimeError, ValueError):  # there is no process group
                seen.append(next(module.parameters()).dtype)

    original = DistributedDataParallel.__init__
    with wrapped_in(torch.float64):
        Wrapper(nn.Linear(2, 2))
    assert seen == [torch.float32, torch.float64]
    assert DistributedDataParallel.__init__ is original
