"""Faults of compilers: a backend that gets one operator of the graph that it is handed wrong."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from torch.fx import GraphModule, Node


def scaled(value: Tensor) -> Tensor:
    """All of it is a little too large."""
    return value * 1.05


def shifted(value: Tensor) -> Tensor:
    """Something is added to all of it."""
    return value + 0.1


def one_row(value: Tensor) -> Tensor:
    """One row or channel of it is another."""
    if value.dim() < 2 or value.shape[-1] < 2:
        return value
    return torch.cat([value[..., :1] * 1.5 + 0.1, value[..., 1:]], -1)


def through_half(value: Tensor) -> Tensor:
    """It is kept in half precision."""
    return value.half().float()


def turned(value: Tensor) -> Tensor:
    """Its last dimension runs the other way."""
    return value.flip(-1)


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    each.__name__: each for each in (scaled, shifted, one_row, through_half, turned)
}


def calls(graph: GraphModule) -> list[Node]:
    """The nodes of a captured graph that compute, in order."""
    return [node for node in graph.graph.nodes if node.op in ("call_function", "call_method")]


class Wrong:
    """A backend that makes code of a graph in which one node gives something else.

    Args:
        kind: One of `FAULTS`.
        rng: Which node it is.

    Attributes:
        count: How many nodes the graph has that compute.
        place: The number of the node among them; -1 before anything was compiled.
    """

    def __init__(self, kind: str, rng: random.Random) -> None:
        self._kind, self._draw = kind, rng.random()
        self.count, self.place = 0, -1

    def __call__(self, graph: GraphModule, _example: Any) -> Callable[..., Any]:
        changed = copy.deepcopy(graph)
        nodes = calls(changed)
        tensors = [
            k
            for k, node in enumerate(nodes)
            if isinstance(node.meta.get("example_value"), Tensor)
            and node.meta["example_value"].is_floating_point()
        ]
        self.count, self.place = len(nodes), tensors[int(self._draw * len(tensors))]
        node = nodes[self.place]
        wrong = FAULTS[self._kind]
        with changed.graph.inserting_after(node):
            other = changed.graph.call_function(wrong, (node,))
        node.replace_all_uses_with(other, delete_user_cb=lambda user: user is not other)
        changed.recompile()
        return changed.forward
