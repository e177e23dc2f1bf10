"""Measuring a pair of tensors where they lie, and fetching what was measured."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from verifier.border.error_texts import first_line
from verifier.metrics import kernel_torch, partials
from verifier.metrics.precision import read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from verifier.metrics.kernel_torch import Rows
    from verifier.metrics.moments import Moments
    from verifier.metrics.partials import Partials


@dataclass(frozen=True, slots=True)
class Measurement:
    """A pair that was read: its moments, or what `collect` fetches from the device to make them."""

    moments: Moments | None
    rows: Rows | Partials | None = None


def measure(baseline: Tensor, candidate: Tensor, offset: int = 0) -> Measurement:
    """Read both tensors once and keep their moments.

    Args:
        baseline: Strided tensor of any shape and strides: floating (float8 to float64), integer, bool or
            complex. A complex tensor counts as its real and imaginary parts; coordinates stay those of its
            own shape.
        candidate: Tensor of the same shape; its dtype, strides and device may differ. It is brought to the
            baseline's device piece by piece, which waits for the transfer.
        offset: Added to the first coordinate of an index, for batches that are merged later; tensors without
            dimensions ignore it.

    Neither tensor is changed or copied whole: temporary memory is a few MiB whatever their size (on CUDA a
    dozen arrays of `kernel_torch.CHUNK` float64 elements, and next to none where one kernel reads both: see
    `kernel_triton.reduce`). Grad mode and inference mode do not matter. On the CPU the result is ready; on
    CUDA all is queued on the current stream and nothing waits. Other devices may lack float64 and are read
    through the CPU. Unequal 64-bit integers that float64 cannot tell apart are kept one unit in the last place
    apart.

    Raises:
        ValueError: The shapes differ, or a tensor is not strided (sparse, say).
    """
    if baseline.shape != candidate.shape:
        raise ValueError(
            f"cannot compare a baseline of shape {tuple(baseline.shape)} "
            f"with a candidate of shape {tuple(candidate.shape)}"
        )
    if baseline.layout != torch.strided or candidate.layout != torch.strided:
        raise ValueError(
            f"cannot compare layouts {baseline.layout} and {candidate.layout}: both must be strided"
        )
    with torch.no_grad():
        a, b = baseline.detach(), candidate.detach()
        if a.is_cuda:
            fused, _ = _fused_reduction(a.device)
            queued = None if fused is None else fused(a, b, offset)
            return Measurement(None, kernel_torch.reduce(a, b, offset) if queued is None else queued)
        reduce, _ = _cpu_reduction()
        return Measurement(reduce(a, b, offset))


def collect(measurements: Sequence[Measurement]) -> list[Moments]:
    """The moments of all `measurements`, in order: one transfer from each device that still holds some."""
    waiting = [m.rows for m in measurements if m.rows is not None]
    fetched = iter(kernel_torch.fetch(partials.as_rows(waiting)))
    return [m.moments if m.moments is not None else next(fetched) for m in measurements]


def keep(measurements: Sequence[Measurement], offset: int) -> list[Measurement]:
    """Copies that hold nothing a device will write again, with coordinates that start at `offset`; nothing waits.

    Of moments, which are numbers already, nothing is changed.
    """
    waiting = [m.rows for m in measurements if m.rows is not None]
    rows = iter(
        replace(new, values=new.values.clone() if new is old else new.values, offset=offset)
        for old, new in zip(waiting, partials.as_rows(waiting), strict=True)
    )
    return [m if m.rows is None else Measurement(None, next(rows)) for m in measurements]


def warm_up() -> None:
    """Load the compiled kernels, which takes a second: worth doing beside something that waits or computes.

    What fails here will fail, and be told, where it is needed.
    """
    with contextlib.suppress(Exception):
        for dtype in (torch.float32, torch.float64):
            few = torch.zeros(2 * 65536, dtype=dtype)
            measure(few, few)
            measure(few, few + 1)
        few = torch.zeros(1)
        read(few.double(), few, few)


def slower_because(device: torch.device) -> str:
    """Why pairs on a device are read by torch operations, which say the same but take longer; empty if not."""
    return (_fused_reduction(device) if device.type == "cuda" else _cpu_reduction())[1]


@functools.cache
def _fused_reduction(
    device: torch.device,
) -> tuple[Callable[[Tensor, Tensor, int], Partials | None] | None, str]:
    """The fused kernel for a CUDA device, or None and why it cannot be had."""
    try:
        from verifier.metrics import kernel_triton  # noqa: PLC0415

        return kernel_triton.on(device), ""
    except Exception as error:  # no Triton, no C compiler for its launchers, a device it knows not
        return None, first_line(error)


@functools.cache
def _cpu_reduction() -> tuple[Callable[[Tensor, Tensor, int], Moments], str]:
    """The compiled reduction, or torch's and why; imported late: numba takes half a second."""
    try:
        from verifier.metrics import reduce_cpu  # noqa: PLC0415
    except ImportError as error:
        return kernel_torch.reduce_now, first_line(error)
    return reduce_cpu.reduce, ""
