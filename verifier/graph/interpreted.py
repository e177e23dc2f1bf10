"""Programs that are no Python: a module that runs the nodes of another runtime's graph, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn
from torch.overrides import handle_torch_function, has_torch_function

from verifier.graph.tensors import tensors_in
from verifier.graph.traced import Origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.records import Source


class Node(NamedTuple):
    """The node that runs: which module of the original model it claims to come from, and where it is written."""

    origin: Origin
    source: Source | None = None


NOWHERE = Node(Origin("", leaf=False))


class Interpreter(nn.Module):
    """A program of nodes. `running` is the one whose operator is called, set before each call.

    `output_labels` is what its file calls what it returns in order; empty where it does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running = NOWHERE
        self.output_labels: tuple[str, ...] = ()


class Step:
    """An operator of a program that is no Python: met as one call, under a name and with arguments of torch's.

    Attributes:
        stands_for: What its arguments are named and understood by: a function of torch's, or one with a signature
            like those.
    """

    def __init__(self, name: str, stands_for: Callable[..., Any]) -> None:
        self.__name__ = name
        self.stands_for = stands_for

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute, after every torch-function mode has seen the call; what is called inside none of them sees."""
        tensors = tuple(tensors_in((args, kwargs)))
        if has_torch_function(tensors):
            return handle_torch_function(self, tensors, *args, **kwargs)
        return self.compute(*args, **kwargs)

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """The results of the operator: tensors that share no memory with its arguments' own."""
        return self.stands_for(*args, **kwargs)
