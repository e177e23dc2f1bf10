"""What the updates of a training were made of: some elements of each parameter, step by step, on identical inputs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

# Rules work element by element, so a few tell them apart; together they may take 64 MB.
_ELEMENTS = 64
_NUMBERS = 8_000_000
_MOVED = 1e-12  # relative
_PARTS = 5  # of a step: weight, gradient, two new weights, what the batch leaves


@dataclass
class Update:
    """One step of one parameter, as some of its elements, (n,), float64: two of each are the baseline's first.

    `weight` is what both had before the step, `gradient` what both applied and `norm` that of the whole
    gradient, `options` what the optimisers were set to.
    """

    weight: Tensor
    gradient: Tensor
    norm: float
    after: tuple[Tensor, Tensor]
    options: tuple[Mapping[str, Any], Mapping[str, Any]]


@dataclass
class Course:
    """What a tensor was after each batch, and at the end: some elements, float64, the baseline's first."""

    start: Tensor
    batches: list[Tensor] = field(default_factory=list)


class History:
    """Updates by parameter, and how tensors went, by the candidate's names.

    Args:
        batches: Batches of the training.
        tensors: How many tensors there are.
    """

    def __init__(self, batches: int, tensors: int) -> None:
        self._count = max(4, min(_ELEMENTS, _NUMBERS // (_PARTS * max(1, batches * tensors))))
        self.updates: defaultdict[str, list[Update]] = defaultdict(list)
        self.courses: dict[str, Course] = {}
        self._weights: dict[str, Tensor] = {}
        self._gradients: dict[str, tuple[Tensor, float]] = {}

    def sample(self, tensor: Tensor) -> Tensor:
        """Some elements of a tensor, spread evenly."""
        flat = tensor.detach().reshape(-1)
        if flat.numel() > self._count:
            places = torch.linspace(0, flat.numel() - 1, self._count, device=flat.device).long()
            flat = flat[places]
        return flat.to(device="cpu", dtype=torch.float64, copy=True)

    def begins(self, tensors: Mapping[str, Tensor]) -> None:
        """A batch begins from these parameters and buffers."""
        for name, tensor in tensors.items():
            self._weights[name] = self.sample(tensor)
            self.courses.setdefault(name, Course(self._weights[name]))
        self._gradients.clear()

    def gradient(self, name: str, gradient: Tensor) -> None:
        """What is applied to a parameter, as far as is known."""
        self._gradients[name] = self.sample(gradient), float(gradient.double().norm())

    def updated(
        self,
        name: str,
        baseline: Tensor,
        candidate: Tensor,
        options: tuple[Mapping[str, Any], Mapping[str, Any]],
        *,
        by_hand: bool,
    ) -> None:
        """A step was made, by an optimiser or, if the weight has moved, by hand."""
        before, gradient = self._weights.get(name), self._gradients.get(name)
        after = self.sample(baseline), self.sample(candidate)
        self._weights[name] = after[0]
        if before is None or gradient is None:
            return
        if by_hand and all(torch.equal(before, each) for each in after):
            return
        self.updates[name].append(Update(before, *gradient, after, options))

    def moves(self) -> bool:
        """Whether the training has moved any parameter by more than rounding."""
        return any(
            float((each.after[0] - each.weight).norm()) > _MOVED * float(each.weight.norm())
            for updates in self.updates.values()
            for each in updates
        )

    def ends(self, name: str, baseline: Tensor) -> None:
        """What a tensor is after a batch."""
        if name in self.courses:
            self.courses[name].batches.append(self.sample(baseline))
