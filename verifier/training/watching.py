"""Watching a model that somebody trains: every phase of every step, from outside of the loop that trains it.

The loop is any function of a model and of batches. What it does is met where it cannot help passing: the model's own
sites and their gradients, `Tensor.backward`, and the optimiser's step. So a recipe's loop and a user's own are
watched alike, and neither has to be written for it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from verifier.errors import GraphDepartureError
from verifier.graph.instrument import Instrument
from verifier.graph.tensors import tensors_in
from verifier.training.loss_reading import LossReading, read

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from torch.optim import Optimizer

    from verifier.graph import Graph
    from verifier.graph.sites import Call


class Ledger(Protocol):
    """Where what happens in one batch is noted: kept for the baseline, compared with it for the candidate."""

    def began(self, watch: Watch) -> None:
        """The batch is handed out; nothing has been done with it."""

    def activation(self, pair: int, tensor: Tensor) -> None:
        """The model made `tensor` at a pair; it may be overwritten."""

    def activation_gradient(self, pair: int, gradient: Tensor) -> Tensor | None:
        """The loss's gradient by the pair's tensor; the answer takes its place."""

    def constant(self, pair: int) -> None:
        """The tensor at a pair has no gradient, as nothing that leads to it is trained."""

    def forward_ended(self, watch: Watch) -> None:
        """The model returned; its buffers are as the pass has left them."""

    def loss(self, watch: Watch, loss: Tensor, reading: LossReading) -> None:
        """A backward pass is about to start from `loss`, which was reduced as `reading` says."""

    def backward_ended(self, watch: Watch) -> None:
        """The parameters have their gradients; they may be overwritten."""

    def before_step(self, watch: Watch, optimiser: Optimizer) -> None:
        """The optimiser is about to apply the gradients as they are now."""

    def after_step(self, watch: Watch, optimiser: Optimizer) -> None:
        """The optimiser has updated its state and the weights; they may be overwritten."""

    def ended(self, watch: Watch) -> None:
        """The loop asks for the next batch."""


class Watch(Instrument):
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
        super().__init__(model, ())
        self._owner = -1  # until a thread enters
        self.role = role
        self.model = model
        self.ledger: Ledger | None = None
        self.parameters = dict(model.named_parameters())
        self.buffers = dict(model.named_buffers())
        self.optimisers: dict[int, Optimizer] = {}
        self._steps: Counter[int] = Counter()
        self._graph = graph
        self._pairs = pairs
        self._graded = graded
        self._owned = {id(parameter) for parameter in self.parameters.values()}
        self._next = 0
        self._following = False
        self.eventful = False
        self.backing = False

    @property
    def steps(self) -> int:
        """Steps made so far: of several optimisers, those of the busiest."""
        return max(self._steps.values(), default=0)

    def begin(self, ledger: Ledger) -> None:
        """A new batch is handed out, to be noted in `ledger`."""
        self.ledger, self.eventful = ledger, False
        with _aside():
            ledger.began(self)

    def owns(self, optimiser: Optimizer) -> bool:
        """Whether the optimiser updates this model."""
        return any(
            id(parameter) in self._owned for group in optimiser.param_groups for parameter in group["params"]
        )

    def updated(self, optimiser: Optimizer) -> dict[str, nn.Parameter]:
        """The model's parameters that the optimiser has."""
        own = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
        return {name: parameter for name, parameter in self.parameters.items() if id(parameter) in own}

    def groups(self) -> dict[str, dict[str, Any]]:
        """The optimiser's group of options of each parameter that an optimiser has."""
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        return {
            names[id(parameter)]: group
            for optimiser in self.optimisers.values()
            for group in optimiser.param_groups
            for parameter in group["params"]
            if id(parameter) in names
        }

    def makers(self) -> dict[str, type]:
        """The class of the optimiser of each parameter that an optimiser has."""
        return {name: type(each) for each in self.optimisers.values() for name in self.updated(each)}

    def before_step(self, optimiser: Optimizer) -> None:
        """Called when one of this model's optimisers is about to step."""
        self.optimisers[id(optimiser)] = optimiser
        self.eventful = True
        if self.ledger is not None:
            with _aside():
                self.ledger.before_step(self, optimiser)

    def after_step(self, optimiser: Optimizer) -> None:
        """Called when it has."""
        self._steps[id(optimiser)] += 1
        if self.ledger is not None:
            with _aside():
                self.ledger.after_step(self, optimiser)

    def ended(self) -> None:
        """Called when the loop wants the next batch."""
        if self.ledger is not None:
            with _aside():
                self.ledger.ended(self)

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

    def backward_begins(self, loss: Tensor, reading: LossReading) -> None:
        """Called when a backward pass is about to start from `loss` in this model's thread."""
        self.eventful = True
        if self.ledger is not None:
            with _aside():
                self.ledger.loss(self, loss, reading)

    def backward_ended(self) -> None:
        """Called when it has come to its end."""
        if self.ledger is not None:
            with _aside():
                self.ledger.backward_ended(self)

    def is_here(self) -> bool:
        """Whether the calling thread is the one that trains this model."""
        return threading.get_ident() == self._owner


@contextlib.contextmanager
def backward_passes_seen(watches: Collection[Watch]) -> Iterator[None]:
    """Show every backward pass to the watch whose thread makes it.

    `torch.autograd.backward` is where all of them pass, `Tensor.backward` included; torch has no hook for it, so it
    is replaced as long as this lasts.
    """
    original = torch.autograd.backward

    @functools.wraps(original)
    def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
        here = next((watch for watch in watches if watch.is_here()), None)
        if here is None or here.backing:  # the call comes by again when function modes have been set aside
            original(tensors, grad_tensors, *args, **kwargs)
            return
        with _aside():
            loss, reading = _scalar(tensors, grad_tensors), read(tensors)
        here.backward_begins(loss, reading)
        here.backing = True
        try:
            original(tensors, grad_tensors, *args, **kwargs)
        finally:
            here.backing = False
        here.backward_ended()

    torch.autograd.backward = backward
    try:
        yield
    finally:
        torch.autograd.backward = original


def _scalar(tensors: Any, weights: Any) -> Tensor:
    """What a backward pass starts from as one number: of several or of vectors the sum, weighted as they are."""
    several = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
    factors = (weights,) if weights is None or isinstance(weights, Tensor) else tuple(weights)
    factors = factors if len(factors) == len(several) else (None,) * len(several)
    parts = [
        tensor.detach() if factor is None else tensor.detach() * factor.detach()
        for tensor, factor in zip(several, factors, strict=True)
    ]
    if len(parts) == 1 and parts[0].dim() == 0:
        only: Tensor = parts[0]
        return only
    return torch.stack([part.double().sum() for part in parts]).sum()


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """What is computed inside is no part of the training."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        yield
