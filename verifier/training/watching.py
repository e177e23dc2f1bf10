"""Watching a model that somebody trains: every phase of every step, sites and their gradients among them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from verifier.errors import GraphDepartureError
from verifier.graph.instrument import Instrument
from verifier.graph.tensors import tensors_in
from verifier.training.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from torch import Tensor, nn

    from verifier.graph import Graph
    from verifier.graph.sites import Call


class Watch(Instrument, Steps):
    """Follows one model through its training.

    Args:
        role: What the model is called in messages.
        model: The copy that is trained.
        graph: What it does in one forward pass, as recorded.
        pairs: The pair, by position, of each paired site.
        graded: The pairs whose gradients both models should agree on.
    """

    def __init__(
        self, role: str, model: nn.Module, graph: Graph, pairs: Mapping[int, int], graded: Collection[int]
    ) -> None:
        Instrument.__init__(self, model, ())
        Steps.__init__(self, model)
        self._owner = -1  # until a thread enters
        self.role = role
        self._graph = graph
        self._pairs = pairs
        self._graded = graded
        self._next = 0
        self._following = False

    def on_call(
        self,
        op: str,
        function: Callable[..., Any] | None,  # noqa: ARG002
        args: Sequence[Any],  # noqa: ARG002
        kwargs: Mapping[str, Any],  # noqa: ARG002
        outputs: Sequence[Tensor],
    ) -> None:
        """A call of the model: follow it along the recorded graph, and note the tensors of its pairs."""
        if not self._following or self.ledger is None:
            return
        call = self._graph.call_at(self._next, op, self.scope, len(outputs)) or self._past_evaluation(
            op, outputs
        )
        if call is None:
            if not self._module(self.scope).training:  # what a module makes in evaluation mode alone
                return
            ahead = self._graph.calls[self._next : self._next + 1]
            expected = self._graph.sites[ahead[0].first].name if ahead else "its end"
            where = f" in {self.scope}" if self.scope else ""
            raise GraphDepartureError(
                f"the {self.role} departs from its recorded pass: it called `{op}`{where} where {expected} was "
                "expected. Its control flow depends on its data, so it cannot be followed through a training."
            )
        self._next += 1
        for site, tensor in enumerate(outputs, call.first):
            pair = self._pairs.get(site)
            if pair is None:
                continue
            self.ledger.activation(pair, tensor)
            if pair in self._graded:
                if tensor.requires_grad:
                    tensor.register_hook(  # type: ignore[no-untyped-call]
                        functools.partial(self.ledger.activation_gradient, pair)
                    )
                else:
                    self.ledger.constant(pair)

    def _past_evaluation(self, op: str, outputs: Sequence[Tensor]) -> Call | None:
        """The call behind those recorded of modules that the loop has put into evaluation mode, where they differ."""
        for position in range(self._next, len(self._graph.calls)):
            call = self._graph.call_at(position, op, self.scope, len(outputs))
            if call is not None:
                self._next = position
                return call
            if self._module(self._graph.calls[position].scope).training:
                return None
        return None

    def _module(self, scope: str) -> nn.Module:
        return self.model.get_submodule(scope)

    def evaluates(self, site: int) -> str | None:
        """The module a site is made in, if the loop has put it into evaluation mode; else None."""
        scope = self._graph.sites[site].scope
        return None if self._module(scope).training else scope

    def on_leave(self, name: str, outputs: Sequence[Tensor]) -> None:  # noqa: ARG002
        """A module returned; if it is the model itself, a forward pass has ended."""
        if not self._following or len(self._scopes) > 2:
            return
        self._following = False
        if self.ledger is not None:
            self.ledger.forward_ended(self)

    def _enter(self, module: nn.Module, args: Any) -> None:
        if module is self.model and len(self._scopes) == 1:
            # What a loop computes aside, to validate or without gradients, is no part of its training.
            self._following = torch.is_grad_enabled() and module.training
            self.eventful = True
            self._next = 0
            for tensor in tensors_in(args):
                self._known.add(tensor)
        super()._enter(module, args)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Inside the model, meet the call as ever; outside, leave it alone."""
        if len(self._scopes) > 1:
            return super().__torch_function__(func, types, args, kwargs)
        return func(*args, **(kwargs or {}))
