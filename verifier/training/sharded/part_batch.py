"""One batch of a training as one process has it: kept, and overwritten with what it should have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verifier.sharded.watching import local, plain
from verifier.training.baseline_batch import BaselineBatch, copies
from verifier.training.correspondence import Forcing
from verifier.training.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from verifier.training.baseline_batch import Named
    from verifier.training.loss_reading import LossReading
    from verifier.training.steps import Seen


class PartSteps(Steps):
    """Follows what one process trains: of sharded tensors its own part, under names that no wrapper changes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.trained = {plain(name): parameter for name, parameter in self.trained.items()}

    @property
    def buffers(self) -> Mapping[str, Tensor]:
        """The buffers by name."""
        return {plain(name): local(buffer) for name, buffer in self.model.named_buffers()}

    def own(self, tensor: Tensor) -> Tensor:
        """This process's part."""
        return local(tensor.detach())

    def gradients(self, optimiser: Optimizer | None = None) -> dict[str, Tensor]:
        """The gradients as they lie like their parameters: terms that DTensor still has to add up are added up."""
        parameters = self.trained if optimiser is None else self._of(optimiser)
        for parameter in parameters.values():
            held: Any = parameter.grad
            wanted = getattr(parameter, "placements", None)
            if wanted is not None and held is not None and held.placements != wanted:
                parameter.grad = held.redistribute(held.device_mesh, wanted)
        return super().gradients(optimiser)


@dataclass
class Expected:
    """What a process should have in a batch, by its own names: the baseline's tensors, cut as its own lie.

    `raw` are gradients that are put right as soon as the backward pass has ended, `arriving` the loss's gradients by
    what modules return, call by call.
    """

    applied: dict[str, list[Tensor]] = field(default_factory=dict)
    weights: dict[str, list[Tensor]] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    raw: dict[str, Tensor] = field(default_factory=dict)
    arriving: dict[str, list[Tensor]] = field(default_factory=dict)


@dataclass
class PartBatch(BaselineBatch):
    """What a process did in one batch, each tensor before it was overwritten.

    `held` are gradients before the first backward pass, `makers` the classes of the optimisers that have a parameter;
    `arrived` are the loss's gradients by what modules return that are listened to, call by call;
    `frozen` are parameters that take no gradient; `undropped` says that dropouts were on, and were passed over;
    `over` has parameters and buffers as the loop leaves them, of the last batch.
    """

    expected: Expected | None = None
    forcing: Forcing = Forcing.NOTHING
    held: dict[str, Tensor] = field(default_factory=dict)
    makers: dict[str, type] = field(default_factory=dict)
    arrived: dict[str, list[Tensor]] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    undropped: bool = False
    over: tuple[dict[str, Tensor], dict[str, Tensor]] = field(default_factory=lambda: ({}, {}))

    def loss(self, watch: Seen, loss: Tensor, reading: LossReading) -> None:
        """Keep the loss, and the gradients that the pass finds."""
        super().loss(watch, loss, reading)
        if len(self.losses) == 1:
            self.held = copies(watch.gradients())

    def backward_ended(self, watch: Seen) -> None:
        """Keep the gradients; some are the baseline's then."""
        super().backward_ended(watch)
        if self.expected is not None and self.forcing is Forcing.PHASES:
            for name, tensor in watch.gradients().items():
                if name in self.expected.raw:
                    tensor.data.copy_(self.expected.raw[name])

    def before_step(self, watch: Seen, optimiser: Optimizer) -> None:
        """Keep the gradients as they are applied; they are the baseline's then."""
        super().before_step(watch, optimiser)
        self.groups = {
            name: {key: value for key, value in group.items() if key != "params"}
            for name, group in self.groups.items()
        }
        if self.expected is not None and self.forcing is Forcing.PHASES:
            _write(watch.gradients(optimiser), self.expected.applied, self.applied)

    def after_step(self, watch: Seen, optimiser: Optimizer) -> None:
        """Keep the optimiser's state, which follows from the gradients, and the weights; likewise."""
        super().after_step(watch, optimiser)
        if self.expected is not None and self.forcing is Forcing.PHASES:
            _write(watch.updated(optimiser), self.expected.weights, self.weights)

    def ended(self, watch: Seen) -> None:
        """Keep the rates and what the batch has left; weights and buffers are the baseline's then."""
        super().ended(watch)
        self.parameters = copies(watch.parameters)
        self.buffers = {name: [tensor] for name, tensor in copies(watch.buffers).items()}
        if isinstance(watch, Steps):
            self.makers = watch.makers()
            self.frozen = frozenset(name for name, p in watch.trained.items() if not p.requires_grad)
        if self.expected is None:
            return
        for tensors, wanted in (
            (watch.parameters, self.expected.parameters),
            (watch.buffers, self.expected.buffers),
        ):
            for name, tensor in tensors.items():
                if name in wanted:
                    tensor.data.copy_(wanted[name])
        if self.forcing is Forcing.PHASES:
            for name, group in watch.groups().items():
                if name in self.expected.rates:
                    group["lr"] = self.expected.rates[name]

    def untrained(self, name: str) -> str:
        """Why a parameter is not trained; empty if it is."""
        if name in self.frozen:
            return "requires_grad is off"
        return "no optimiser has it" if self.makers and name not in self.makers else ""

    def told(self) -> PartBatch:
        """The same as it goes to another process."""
        self.expected, self.readings = None, []
        return self


def _write(tensors: Mapping[str, Tensor], wanted: Named, kept: Named) -> None:
    """Overwrite tensors with what they should be for the time that they have come by now."""
    for name, tensor in tensors.items():
        row, number = wanted.get(name, []), len(kept[name]) - 1
        if number < len(row) and row[number].shape == tensor.shape:
            tensor.data.copy_(row[number])
