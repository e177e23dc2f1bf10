"""A small network in which anything can be done, at any place, behind anybody's back."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = 5


class Net(nn.Module):
    """Two linear layers with a ReLU between; `change` is applied to a tensor at `where`, `wrap` to what is returned.

    `where` is `input`, `middle` (between the first layer and the ReLU) or `end`.
    """

    def __init__(
        self,
        change: Callable[[Tensor], Tensor] | None = None,
        where: str = "end",
        wrap: Callable[[Tensor], Any] = lambda y: y,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.relu, self.last = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.change, self.where, self.wrap = change, where, wrap

    def at(self, where: str, tensor: Tensor) -> Tensor:
        """`tensor`, changed if this is the place."""
        return self.change(tensor) if self.change is not None and where == self.where else tensor

    def forward(self, x: Tensor) -> Any:
        """(N, 4) to what `wrap` makes of (N, CLASSES)."""
        hidden = self.at("middle", self.first(self.at("input", x)))
        return self.wrap(self.at("end", self.last(self.relu(hidden))))


def inputs() -> Tensor:
    """Four samples."""
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(1))


# Ways to make a tensor 1.5 times as large where no operator is seen to write it.


def through_numpy(tensor: Tensor) -> Tensor:
    """A NumPy view writes."""
    view = tensor.detach().numpy()
    view *= 1.5
    return tensor


def through_dlpack(tensor: Tensor) -> Tensor:
    """Another library writes what dlpack shares with it."""
    shared = np.from_dlpack(tensor.detach())
    ctypes_view = np.ctypeslib.as_array(
        ctypes.cast(shared.ctypes.data, ctypes.POINTER(_c_type(tensor))), shape=(tensor.numel(),)
    )
    ctypes_view *= 1.5
    return tensor


def through_memory(tensor: Tensor) -> Tensor:
    """A pointer writes."""
    pointer = ctypes.cast(tensor.data_ptr(), ctypes.POINTER(_c_type(tensor)))
    for k in range(tensor.numel()):
        pointer[k] *= 1.5
    return tensor


def _c_type(tensor: Tensor) -> Any:
    return ctypes.c_double if tensor.dtype is torch.float64 else ctypes.c_float


def through_storage(tensor: Tensor) -> Tensor:
    """Bytes of the storage are copied."""
    wanted = torch.from_numpy(tensor.detach().numpy() * np.asarray(1.5, tensor.detach().numpy().dtype))
    tensor.untyped_storage().copy_(wanted.untyped_storage())
    return tensor


def without_torch_function(tensor: Tensor) -> Tensor:
    """An operator writes while torch functions are disabled."""
    with torch._C.DisableTorchFunction():
        tensor.mul_(1.5)
    return tensor


def by_custom_operator(tensor: Tensor) -> Tensor:
    """A custom operator writes its argument, and returns nothing."""
    torch.ops.attempts.grow(tensor)
    return tensor


torch.library.define("attempts::grow", "(Tensor(a!) x) -> ()")


@torch.library.impl("attempts::grow", "CPU")
def _grow(x: Tensor) -> None:
    x.mul_(1.5)


def by_thread(tensor: Tensor) -> Tensor:
    """Another thread writes."""
    worker = threading.Thread(target=lambda: tensor.mul_(1.5))
    worker.start()
    worker.join()
    return tensor


def through_data_of_view(tensor: Tensor) -> Tensor:
    """A NumPy view of a view writes."""
    view = tensor.detach().view(-1)[1:].numpy()
    view *= 1.5
    return tensor


def through_memoryview(tensor: Tensor) -> Tensor:
    """Python's own view of a buffer writes."""
    array: Any = tensor.detach().numpy()
    flat = memoryview(array).cast("B").cast("d" if array.dtype == np.float64 else "f")
    for k in range(len(flat)):
        flat[k] *= 1.5
    return tensor


BEHIND = {
    each.__name__: each
    for each in (
        through_numpy,
        through_dlpack,
        through_memory,
        through_storage,
        without_torch_function,
        by_custom_operator,
        by_thread,
        through_data_of_view,
        through_memoryview,
    )
}
