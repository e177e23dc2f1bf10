"""Cells: one device, dtype and memory format each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import torch

from verifier.errors import DeviceError, UsageError

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One device x dtype setting, written `cpu/float32` or `cuda:1/bfloat16`."""

    device: str
    dtype: str

    @property
    def name(self) -> str:
        """The cell as it is written."""
        return f"{self.device}/{self.dtype}"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The cell's dtype."""
        return DTYPES[self.dtype]

    @property
    def unit_roundoff(self) -> float:
        """Half the distance from 1 to the next number: the relative error of one correct rounding."""
        return torch.finfo(self.torch_dtype).eps / 2

    @classmethod
    def parse(cls, text: str) -> Cell:
        """A cell from its name.

        Raises:
            UsageError: It is no `device/dtype`, or the dtype is unknown.
        """
        device, slash, dtype = text.strip().partition("/")
        if not slash or not device:
            raise UsageError(f"unknown cell '{text}': write DEVICE/DTYPE, such as cpu/float32.")
        if dtype not in DTYPES:
            close = difflib.get_close_matches(dtype, DTYPES, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(DTYPES)}."
            raise UsageError(f"unknown dtype '{dtype}'; {hint}")
        return cls(device, dtype)

    def check_device(self) -> None:
        """See that the device is there.

        Raises:
            UsageError: torch knows no such kind of device.
            DeviceError: This machine has no such device.
        """
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise UsageError(f"unknown device '{self.device}'; known are cpu, cuda and cuda:N.") from error
        if device.type == "cpu":
            if device.index:
                raise UsageError(f"there is no device '{self.device}': the processor is one, called cpu.")
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
