"""Cells: one device, dtype and memory format each."""

from __future__ import annotations

import contextlib
import difflib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
HALVES = ("bfloat16", "float16")
FORMATS = ("contiguous", "channels_last")
ALL = "all"

# TF32 keeps 10 of float32's 23 mantissa bits (NVIDIA A100 Tensor Core GPU Architecture, whitepaper, 2020).
_TF32_ROUNDOFF = 2.0**-11


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting to compare in: `cpu/float32`, `cuda:1/bfloat16/channels_last`, `cuda/float16/autocast`.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: One of `DTYPES`; `tf32` is float32 whose products may be rounded to TF32, which no other cell allows.
        memory_format: One of `FORMATS`.
        autocast: Whether the models stay in float32, batch-norm statistics included, and `torch.autocast` lowers
            what it lowers to the dtype, a half precision.
    """

    device: str
    dtype: str
    memory_format: str = FORMATS[0]
    autocast: bool = False

    @property
    def name(self) -> str:
        """The cell as it is written."""
        layout = [] if self.memory_format == FORMATS[0] else [self.memory_format]
        return "/".join([self.device, self.dtype, *layout, *(["autocast"] if self.autocast else [])])

    @property
    def torch_dtype(self) -> torch.dtype:
        """What weights and inputs are cast to."""
        return torch.float32 if self.autocast else DTYPES[self.dtype]

    @property
    def unit_roundoff(self) -> float:
        """Half the distance from 1 to the next number: the relative error of one correct rounding."""
        return _TF32_ROUNDOFF if self.dtype == "tf32" else float(torch.finfo(DTYPES[self.dtype]).eps / 2)

    @property
    def is_cuda(self) -> bool:
        """Whether it runs on a CUDA device."""
        return self.device.split(":")[0] == "cuda"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """A cell from its name.

        Raises:
            UsageError: It is no `device/dtype`, with or without a memory format and `autocast`, or the dtype is
                unknown.
        """
        device, slash, rest = text.strip().partition("/")
        dtype, *settings = rest.split("/")
        if not slash or not device:
            raise UsageError(f"unknown cell '{text}': write DEVICE/DTYPE, such as cpu/float32.")
        if dtype not in DTYPES:
            close = difflib.get_close_matches(dtype, DTYPES, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(DTYPES)}."
            raise UsageError(f"unknown dtype '{dtype}'; {hint}")
        formats = [each for each in settings if each in FORMATS]
        if len(formats) > 1 or len(set(settings)) < len(settings):
            raise UsageError(f"cell '{text}' names a setting twice.")
        unknown = next((each for each in settings if each not in (*FORMATS, "autocast")), None)
        if unknown is not None:
            raise UsageError(
                f"unknown setting '{unknown}' in cell '{text}'; known are {', '.join(FORMATS)} and autocast."
            )
        cell = cls(device, dtype, formats[0] if formats else FORMATS[0], "autocast" in settings)
        if cell.autocast and dtype not in HALVES:
            raise UsageError(f"cell '{text}': autocast lowers to {' or '.join(HALVES)}, not to {dtype}.")
        return cell

    def check_device(self) -> None:
        """See that the device is there and knows the dtype.

        Raises:
            UsageError: torch knows no such kind of device.
            DeviceError: This machine has no such device, or the device has no such arithmetic.
        """
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise UsageError(f"unknown device '{self.device}'; known are cpu, cuda and cuda:N.") from error
        if device.type == "cpu":
            if device.index:
                raise UsageError(f"there is no device '{self.device}': the processor is one, called cpu.")
            if self.dtype == "tf32":
                raise DeviceError(f"cell {self.name}: TF32 is arithmetic of CUDA devices; the CPU has none.")
            return
        if device.type != "cuda":
            raise UsageError(f"device '{self.device}' is not supported; use cpu, cuda or cuda:N.")
        if not torch.cuda.is_available():
            raise DeviceError(
                f"--device {self.device}: torch {torch.__version__} finds no CUDA device here. "
                "Use --device cpu, or check the driver with nvidia-smi."
            )
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            names = ", ".join(f"cuda:{k}" for k in range(count))
            raise DeviceError(f"--device {self.device}: there is no such device here, only {names}.")
        if self.dtype == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
            name = torch.cuda.get_device_name(device)
            raise DeviceError(
                f"cell {self.name}: {name} has no TF32, which came with compute capability 8.0."
            )

    def casting(self) -> contextlib.AbstractContextManager[object]:
        """What a model of the cell runs in: autocast where the cell says so. Casts are not cached between calls."""
        if not self.autocast:
            return contextlib.nullcontext()
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=DTYPES[self.dtype], cache_enabled=False)


ORACLE = Cell("cpu", "float64")
"""Where rounding is near 1e-16, so that any difference is one of two programs."""


def typical_of(cells: Sequence[Cell]) -> Cell:
    """Of some cells the one whose rounding noise tells how much a network amplifies rounding."""
    return next((cell for cell in cells if cell != ORACLE), Cell("cpu", "float32"))


class Request(NamedTuple):
    """A cell and whether it was asked for by name: one that was and cannot run leaves the verdict open."""

    cell: Cell
    named: bool = True


def product(
    devices: Sequence[str],
    dtypes: Sequence[str],
    formats: Sequence[str] = FORMATS[:1],
    autocast: Sequence[bool] = (False,),
) -> list[Request]:
    """The cells of every combination, in the order of the devices, then of the dtypes.

    `all` stands for every device of this machine and every dtype; such cells are not named. Nor is TF32 on the CPU,
    where another device was named as well; autocast goes with half precisions only.

    Raises:
        UsageError: Something in it is unknown, or nothing is left.
    """
    there = ["cpu", *(f"cuda:{k}" if k else "cuda" for k in range(torch.cuda.device_count()))]
    requests = []
    for device, dtype, layout, cast in itertools.product(
        [(d, True) for d in devices if d != ALL] + [(d, False) for d in there if ALL in devices],
        [(t, True) for t in dtypes if t != ALL] + [(t, False) for t in DTYPES if ALL in dtypes],
        formats,
        autocast,
    ):
        if cast and dtype[0] not in HALVES:
            continue
        cell = Cell.parse("/".join([device[0], dtype[0], layout, *(["autocast"] if cast else [])]))
        elsewhere = dtype[0] == "tf32" and device[0] == "cpu" and len(devices) > 1
        requests.append(Request(cell, device[1] and dtype[1] and not elsewhere))
    if not requests:
        raise UsageError(
            f"no cell is left to compare in: autocast lowers to {' or '.join(HALVES)}; name one with --dtype."
        )
    named = {request.cell for request in requests if request.named}
    return [Request(cell, cell in named) for cell in dict.fromkeys(request.cell for request in requests)]


def missing_here(requests: Sequence[Request]) -> dict[Cell, str]:
    """The cells that this machine does not have, and why.

    Raises:
        DeviceError: It has none of them.
    """
    missing = {}
    for cell, _ in requests:
        try:
            cell.check_device()
        except DeviceError as error:
            missing[cell] = error
    if len(missing) == len(requests):
        raise next(iter(missing.values()))
    return {cell: str(error) for cell, error in missing.items()}
