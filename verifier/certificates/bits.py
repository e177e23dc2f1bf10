"""A hash of a tensor's bits that any device computes exactly, in any order.

Words of at most 32 bits, in row-major order, are multiplied by random odd numbers of 64 bits and added modulo 2^64,
a row of `ROW` words at a time; the rows' sums likewise (multilinear hashing: Lemire and Kaser, "Strongly universal
string hashing is fast", 2014). Sums of integers do not depend on their order. Words of 64 bits are cut in two: the
sign of a float64 alone would meet every odd multiplier alike. Two of such hashes leave 128 bits, of which words that
differ in their highest bit alone still use 64.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from types import ModuleType

ROW = 1 << 12
HASHES = 2
_KEY = 0x5EED_B175
_ROWS = 1 << 17
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}


@functools.cache
def compiled_kernel() -> ModuleType | None:
    """The kernel for pieces of float32 and float64 on the CPU; None where it cannot be had, and torch does it."""
    try:
        from verifier.certificates import kernel  # noqa: PLC0415 - numba takes half a second to import
    except ImportError:
        return None
    return kernel


class BitHash:
    """The hash of what is added piece by piece."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums = torch.zeros(HASHES, dtype=torch.int64, device=device)

    def add(self, piece: Tensor, start: int) -> None:
        """Add flat, contiguous elements that follow each other from index `start` on."""
        kernel = compiled_kernel()
        piece = in_a_row(piece)
        if kernel is not None and not piece.is_cuda and piece.dtype in (torch.float32, torch.float64):
            raw = piece.view(torch.int32).numpy().view(np.uint32)
            tables = [table.numpy().view(np.uint64) for table in multipliers(self._device)]
            kernel.hashed(raw, start * (len(raw) // len(piece)), *tables, self._sums.numpy().view(np.uint64))
            return
        words = as_words(piece)
        each = len(words) // max(1, len(piece))
        first = start * each
        lead = first % ROW
        rows = -(-(lead + len(words)) // ROW)
        if lead or rows * ROW != len(words):
            words = torch.nn.functional.pad(words, (lead, rows * ROW - lead - len(words)))
        words = words.view(rows, ROW)
        inner, outer = multipliers(self._device)
        at = first // ROW % _ROWS
        for k in range(HASHES):
            self._sums[k] += ((words * inner[k]).sum(1) * outer[k, at : at + rows]).sum()

    def digits(self) -> tuple[int, ...]:
        """The hash, signed numbers of 64 bits."""
        return tuple(self._sums.tolist())


def in_a_row(piece: Tensor) -> Tensor:
    """Flat, contiguous elements whose stride says so: torch calls one element contiguous whatever its stride is."""
    return piece.as_strided(piece.shape, (1,)) if piece.stride() != (1,) else piece


def as_words(piece: Tensor) -> Tensor:
    """The elements' bits as int64 numbers from 0 to 2^32 - 1, two for an element of 64 bits."""
    if piece.is_complex():
        piece = torch.view_as_real(piece.resolve_conj()).reshape(-1)
    if piece.dtype is torch.bool:
        piece = piece.to(torch.uint8)
    size = piece.element_size()
    return piece.view(_WORDS[size]).to(torch.int64) & 0xFFFF_FFFF


@functools.lru_cache(8)
def multipliers(device: torch.device) -> tuple[Tensor, Tensor]:
    """The random odd numbers: of the words in a row, and, twice over, of the rows; for both hashes."""
    words = np.random.Philox(key=_KEY).random_raw(HASHES * (ROW + 2 * _ROWS)) | np.uint64(1)
    made = torch.from_numpy(words.view(np.int64)).to(device)
    return made[: HASHES * ROW].view(HASHES, ROW), made[HASHES * ROW :].view(HASHES, 2 * _ROWS)
