"""What one batch on identical inputs leaves for causes to be found in. Let go of once they have been looked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.training.baseline_batch import Place
    from verifier.training.loss_reading import LossReading


class Answer(NamedTuple):
    """A pass's outputs, the same on both sides, and the gradients of the two losses by them."""

    outputs: Tensor
    baseline: Tensor
    candidate: Tensor


class Loss(NamedTuple):
    """What a backward pass started from, and how it had been reduced."""

    value: float
    reading: LossReading


@dataclass
class Evidence:
    """Tensors of both sides, by place or by the candidate's name.

    Attributes:
        exceeding: Baseline's and candidate's where they differ by more than is allowed, the first time in the batch.
        gradients: Of parameters after each backward pass, those of both sides, whether they differ or not.
        applied: The same of gradients as applied.
        weights: What the batch began with.
        buffers: Likewise.
        held: Gradients before the batch's last backward pass.
        answers: Outputs and the loss's gradients by them, pass by pass.
        losses: Of the baseline and of the candidate.
    """

    exceeding: dict[Place, tuple[Tensor, Tensor]] = field(default_factory=dict)
    gradients: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    applied: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    held: dict[str, Tensor] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    losses: tuple[list[Loss], list[Loss]] = field(default_factory=lambda: ([], []))
