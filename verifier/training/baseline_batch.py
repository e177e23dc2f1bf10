"""One batch of the baseline's training, kept phase by phase for the candidate's to be compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torch.optim import Optimizer

    from verifier.training.loss_reading import LossReading
    from verifier.training.records import Phase
    from verifier.training.steps import Seen

    Named: TypeAlias = Mapping[str, list[Tensor]]
    """Tensors by name; in a list, as a batch may have several passes and steps."""

ACTIVATION, BUFFER, LOSS = "activation", "buffer", "loss"
GRADIENT_OF_ACTIVATION, GRADIENT, NORM = "gradient of activation", "gradient", "gradient norm"
WEIGHT, RATE = "weight", "learning rate"


class Place(NamedTuple):
    """What is compared: `subject` is a pair's position, the candidate's name of a tensor, or empty."""

    phase: Phase
    what: str
    subject: int | str


@dataclass
class BaselineBatch:
    """What the baseline did in one batch, in lists: a batch may have several passes, backward passes and steps.

    Tensors are copies, for the loop goes on changing them, but for `parameters`: those stand still while the
    candidate is given the batch.
    """

    activations: dict[int, list[Tensor]] = field(default_factory=dict)
    activation_gradients: dict[int, list[Tensor]] = field(default_factory=dict)
    buffers: dict[str, list[Tensor]] = field(default_factory=dict)
    losses: list[Tensor] = field(default_factory=list)
    readings: list[LossReading] = field(default_factory=list)
    gradients: dict[str, list[Tensor]] = field(default_factory=dict)
    applied: dict[str, list[Tensor]] = field(default_factory=dict)
    states: dict[str, dict[str, list[Tensor]]] = field(default_factory=dict)
    weights: dict[str, list[Tensor]] = field(default_factory=dict)
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)

    def began(self, watch: Seen) -> None:
        """Nothing to keep yet."""

    def activation(self, pair: int, tensor: Tensor) -> None:
        """Keep it."""
        self.activations.setdefault(pair, []).append(tensor.detach().clone())

    def activation_gradient(self, pair: int, gradient: Tensor) -> Tensor | None:
        """Keep it, and change nothing."""
        self.activation_gradients.setdefault(pair, []).append(gradient.detach().clone())
        return None

    def constant(self, pair: int) -> None:
        """Nothing to keep."""

    def forward_ended(self, watch: Seen) -> None:
        """Keep the buffers."""
        _append(self.buffers, watch.buffers)

    def loss(self, watch: Seen, loss: Tensor, reading: LossReading) -> None:  # noqa: ARG002
        """Keep the loss, and how it was reduced."""
        self.losses.append(loss.clone())
        self.readings.append(reading)

    def backward_ended(self, watch: Seen) -> None:
        """Keep the gradients."""
        _append(self.gradients, watch.gradients())

    def before_step(self, watch: Seen, optimiser: Optimizer) -> None:
        """Keep the gradients as they are applied, and the options they are applied with."""
        _append(self.applied, watch.gradients(optimiser))
        self.groups = {name: dict(group) for name, group in watch.groups().items()}

    def after_step(self, watch: Seen, optimiser: Optimizer) -> None:
        """Keep the optimiser's state and the weights."""
        for what, tensors in watch.states(optimiser).items():
            _append(self.states.setdefault(what, {}), tensors)
        _append(self.weights, watch.updated(optimiser))

    def ended(self, watch: Seen) -> None:
        """Keep the rates, and the weights as the batch has left them."""
        self.parameters = watch.parameters
        self.rates = {name: float(group["lr"]) for name, group in watch.groups().items()}


def _append(table: dict[str, list[Tensor]], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in copies(tensors).items():
        table.setdefault(name, []).append(tensor)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that stay as they are."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def plain(groups: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of two optimisers as they are now, rates as numbers."""
    b, c = (
        {key: float(value) if key == "lr" else value for key, value in group.items() if key != "params"}
        for group in groups
    )
    return b, c
