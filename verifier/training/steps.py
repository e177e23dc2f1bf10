"""What shows of a training from outside of the loop that makes it: batches, backward passes, optimiser steps.

The loop is any function of a model and of batches. What it does is met where it cannot help passing: when it asks for
the next batch, in `torch.autograd.backward`, and in the optimiser's step. So a recipe's loop and a user's own are
watched alike, and neither has to be written for it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from verifier.training.loss_reading import LossReading, read

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from torch.optim import Optimizer


class Seen(Protocol):
    """What a model in training has at a time, by name."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Its parameters."""

    @property
    def buffers(self) -> Mapping[str, Tensor]:
        """Its buffers."""

    def gradients(self, optimiser: Any = None) -> Mapping[str, Tensor]:
        """The gradients of its parameters; those of one optimiser, if it is given."""

    def states(self, optimiser: Any) -> Mapping[str, Mapping[str, Tensor]]:
        """What the optimiser keeps, by what it is and by parameter."""

    def updated(self, optimiser: Any) -> Mapping[str, Tensor]:
        """The parameters that the optimiser has."""

    def groups(self) -> Mapping[str, dict[str, Any]]:
        """The optimiser's options of each parameter."""


class Ledger(Protocol):
    """Where what happens in one batch is noted: kept for the baseline, compared with it for the candidate."""

    def began(self, watch: Seen) -> None:
        """The batch is handed out; nothing has been done with it."""

    def activation(self, pair: int, tensor: Tensor) -> None:
        """The model made `tensor` at a pair; it may be overwritten."""

    def activation_gradient(self, pair: int, gradient: Tensor) -> Tensor | None:
        """The loss's gradient by the pair's tensor; the answer takes its place."""

    def constant(self, pair: int) -> None:
        """The tensor at a pair has no gradient, as nothing that leads to it is trained."""

    def forward_ended(self, watch: Seen) -> None:
        """The model returned; its buffers are as the pass has left them."""

    def loss(self, watch: Seen, loss: Tensor, reading: LossReading) -> None:
        """A backward pass is about to start from `loss`, which was reduced as `reading` says."""

    def backward_ended(self, watch: Seen) -> None:
        """The parameters have their gradients; they may be overwritten."""

    def before_step(self, watch: Seen, optimiser: Optimizer) -> None:
        """The optimiser is about to apply the gradients as they are now."""

    def after_step(self, watch: Seen, optimiser: Optimizer) -> None:
        """The optimiser has updated its state and the weights; they may be overwritten."""

    def ended(self, watch: Seen) -> None:
        """The loop asks for the next batch."""


class Steps:
    """Follows the optimisers of one model through its training.

    Args:
        model: The copy that is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        self._owner = threading.get_ident()
        self.model = model
        self.ledger: Ledger | None = None
        self.trained = dict(model.named_parameters())
        self.optimisers: dict[int, Optimizer] = {}
        self._steps: Counter[int] = Counter()
        self._owned = {id(parameter) for parameter in self.trained.values()}
        self.eventful = False
        self.backing = False

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """The parameters by name, as they are compared."""
        return {name: self.own(parameter) for name, parameter in self.trained.items()}

    @property
    def buffers(self) -> Mapping[str, Tensor]:
        """Likewise the buffers."""
        return {name: self.own(buffer) for name, buffer in self.model.named_buffers()}

    def own(self, tensor: Tensor) -> Tensor:
        """What is compared of a tensor of the training's."""
        return tensor

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

    def updated(self, optimiser: Optimizer) -> dict[str, Tensor]:
        """The model's parameters that the optimiser has."""
        return {name: self.own(parameter) for name, parameter in self._of(optimiser).items()}

    def _of(self, optimiser: Optimizer) -> dict[str, nn.Parameter]:
        own = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
        return {name: parameter for name, parameter in self.trained.items() if id(parameter) in own}

    def groups(self) -> dict[str, dict[str, Any]]:
        """The optimiser's group of options of each parameter that an optimiser has."""
        names = {id(parameter): name for name, parameter in self.trained.items()}
        return {
            names[id(parameter)]: group
            for optimiser in self.optimisers.values()
            for group in optimiser.param_groups
            for parameter in group["params"]
            if id(parameter) in names
        }

    def makers(self) -> dict[str, type]:
        """The class of the optimiser of each parameter that an optimiser has."""
        return {name: type(each) for each in self.optimisers.values() for name in self._of(each)}

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

    def gradients(self, optimiser: Optimizer | None = None) -> dict[str, Tensor]:
        """The gradients the parameters have now; those of one optimiser, if it is given."""
        parameters = self.trained if optimiser is None else self._of(optimiser)
        return {name: self.own(p.grad) for name, p in parameters.items() if p.grad is not None}

    def states(self, optimiser: Optimizer) -> dict[str, dict[str, Tensor]]:
        """The optimiser's tensors by what they are (`momentum_buffer`, `exp_avg`, ...) and by parameter."""
        found: dict[str, dict[str, Tensor]] = {}
        for name, parameter in self.trained.items():
            for what, value in optimiser.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found.setdefault(what, {})[name] = self.own(value)
        return found

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
def backward_passes_seen(watches: Collection[Steps]) -> Iterator[None]:
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
    """What a backward pass starts from as one number: of several or of vectors the sum, weighted as they are.

    NaN where it starts from edges of the graph alone, which have no numbers.
    """
    several = tuple(tensors) if isinstance(tensors, tuple | list) else (tensors,)
    if isinstance(tensors, GradientEdge):
        several = (tensors,)
    factors = (weights,) if weights is None or isinstance(weights, Tensor) else tuple(weights)
    factors = factors if len(factors) == len(several) else (None,) * len(several)
    parts = [
        tensor.detach() if factor is None else tensor.detach() * factor.detach()
        for tensor, factor in zip(several, factors, strict=True)
        if isinstance(tensor, Tensor)
    ]
    if not parts:
        return torch.tensor(math.nan)
    if len(parts) == 1 and parts[0].dim() == 0:
        only: Tensor = parts[0]
        return only
    return torch.stack([part.double().sum() for part in parts]).sum()


def steps_seen(watches: Iterable[Steps]) -> list[torch.utils.hooks.RemovableHandle]:
    """Show every optimiser's steps to the watch of the model it updates."""
    known = list(watches)

    def before(optimiser: Optimizer, *_: object) -> None:
        for watch in known:
            if watch.owns(optimiser):
                watch.before_step(optimiser)

    def after(optimiser: Optimizer, *_: object) -> None:
        for watch in known:
            if watch.owns(optimiser):
                watch.after_step(optimiser)

    return [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """What is computed inside is no part of the training."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        yield
