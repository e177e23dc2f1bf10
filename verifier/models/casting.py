"""Tensors as they are in a cell: its dtype, device and memory format."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.graph.tensors import mapped, same_memory
from verifier.graph.widening import Widening, default_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verifier.cells import Cell
    from verifier.inputs import Inputs


@dataclass
class Caster:
    """Master tensors in other dtypes and on other devices, each converted once and shared."""

    _done: dict[tuple[int, Cell], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def state(self, masters: Mapping[str, Tensor], cell: Cell) -> dict[str, Tensor]:
        """All of `masters` as they are in `cell`."""
        return {name: self._one(tensor, cell) for name, tensor in masters.items()}

    def _one(self, tensor: Tensor, cell: Cell) -> Tensor:
        key = (id(tensor), cell)
        if key not in self._done:
            self._done[key] = (tensor, cast(tensor, cell))  # the master is kept so that its id stays taken
        return self._done[key][1]


def cast(tensor: Tensor, cell: Cell) -> Tensor:
    """`tensor` on the cell's device and as it lies there, in the cell's dtype if it is floating point.

    A complex tensor gets the dtype's complex counterpart.
    """
    if tensor.is_complex():
        wide = cell.torch_dtype is torch.float64
        return tensor.to(cell.device, torch.complex128 if wide else torch.complex64)
    there = tensor.to(cell.device, cell.torch_dtype if tensor.is_floating_point() else tensor.dtype)
    # As `Module.to(memory_format=...)` has it: tensors of four dimensions. Otherwise each lies as it was given.
    last = cell.memory_format == "channels_last" and there.dim() == 4
    return there.contiguous(memory_format=torch.channels_last) if last else there


def arguments(
    inputs: Inputs, cell: Cell, *, overwritten: bool = True
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs as they are in `cell`; copies, if the model that gets them overwrites its inputs.

    Objects among them, such as caches, are copied in any case: models write into those what is not a number.
    """

    def moved(tensor: Tensor) -> Tensor:
        there = cast(tensor.detach(), cell)
        return there.clone() if overwritten and same_memory(there) == same_memory(tensor) else there

    fresh = mapped((inputs.args, inputs.kwargs), moved)
    return fresh[0], fresh[1]


def casting(cell: Cell) -> contextlib.AbstractContextManager[object]:
    """What belongs to a thread while a model runs in `cell`: autocast, or in float64 casts to float32 that widen."""
    return Widening() if cell.torch_dtype is torch.float64 else cell.casting()


def made_in(cell: Cell) -> torch.dtype | None:
    """What factories make in `cell` where they are not told; None for as the process has it."""
    return torch.float64 if cell.torch_dtype is torch.float64 else None


@contextlib.contextmanager
def running(cell: Cell) -> Iterator[None]:
    """All that a model runs in, in `cell`."""
    with casting(cell), default_dtype(made_in(cell)):
        yield
