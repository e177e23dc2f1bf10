"""What a run was given, as far as a program can tell runs apart by it before it computes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


class Conditions(NamedTuple):
    """The shapes of a run's inputs, and the floating-point dtypes of inputs, parameters and buffers."""

    shapes: tuple[tuple[int, ...], ...]
    dtypes: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module, inputs: Sequence[Tensor]) -> Conditions:
        """The conditions of a run of `model` on `inputs`."""
        given = (*inputs, *model.parameters(), *model.buffers())
        return cls(
            tuple(tuple(tensor.shape) for tensor in inputs),
            frozenset(_name(t.dtype) for t in given if t.is_floating_point() or t.is_complex()),
        )

    @property
    def autocast(self) -> bool:
        """Whether autocast is on now, for the CPU or for CUDA devices."""
        return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")

    def why_other(self, recorded: Conditions) -> str:
        """What a program's control flow depends on, if a run here does otherwise than a recorded one."""
        causes = []
        if self.dtypes != recorded.dtypes:
            causes.append(f"the dtype ({_listed(self)} here, {_listed(recorded)} when it was recorded)")
        elif self.autocast:
            causes.append("whether autocast is on (it is here, and was not when it was recorded)")
        if self.shapes != recorded.shapes:
            causes.append("its data or its batch size")
        return " or on ".join(causes) or "its data, or on something that changes between two calls"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _listed(conditions: Conditions) -> str:
    return " and ".join(sorted(conditions.dtypes))
