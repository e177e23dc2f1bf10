"""Feeding the compiled loops: the pieces of a walk as pairs of flat arrays of one dtype."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch

from verifier.metrics import kernel_cpu as kernel
from verifier.metrics.convert import as_reals, common_dtype, keep_integers_apart, loses_integers, parts

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor

    from verifier.metrics.walk import Walk

Array: TypeAlias = "np.ndarray[Any, Any]"

# Elements a thread takes at a time where the tensors can be read as they lie.
PIECE = 32 * kernel.BLOCK
# Elements converted at a time: both buffers stay in a second-level cache of 1 MiB.
BUFFER = 32 * kernel.BLOCK


class Pieces(Protocol):
    """Pieces by number; each is where it starts in the walk, in real numbers, and both sides' values."""

    count: int

    def load(self, number: int) -> tuple[int, Array, Array]:
        """Piece `number`; its arrays are valid until the same thread loads another."""


def open_pieces(walk: Walk) -> Pieces:
    """The fastest way to read a walk."""
    if walk.dense and walk.baseline.is_cpu and walk.candidate.is_cpu:
        dtype = common_dtype(walk.baseline.dtype, walk.candidate.dtype)
        a, b = _readable(walk.baseline, dtype), _readable(walk.candidate, dtype)
        if a is not None and b is not None:
            return _Dense(a, b, dtype)
    return _Sliced(walk)


# Compiled conversions, by source dtype, and the dtype whose arrays they read: numpy has no bfloat16, numba no
# float16. They are several times faster than a copy between torch tensors of this size.
_WIDENED: dict[torch.dtype, tuple[Callable[[Any, Any], None], torch.dtype]] = {
    torch.bfloat16: (kernel.widen_bfloat16, torch.int16),
    torch.float16: (kernel.widen_float16, torch.int16),
    torch.float32: (kernel.widen_float32, torch.float32),
}

Readable: TypeAlias = "tuple[Array, Callable[[Any, Any], None] | None]"


def _readable(flat: Tensor, dtype: torch.dtype) -> Readable | None:
    """The memory of a flat tensor as an array of reals, and how to convert it (None: it need not be)."""
    if flat.is_neg() or flat.is_conj():
        return None
    if flat.dtype == dtype:
        return as_reals(flat).numpy(), None
    if flat.dtype not in _WIDENED or dtype.is_complex:
        return None
    widen, bits = _WIDENED[flat.dtype]
    return flat.view(bits).numpy(), widen


class _Dense:
    """Pieces cut out of two flat arrays, converted into this thread's buffers where they must be."""

    def __init__(self, a: Readable, b: Readable, dtype: torch.dtype) -> None:
        (self._a, self._widen_a), (self._b, self._widen_b) = a, b
        self._dtype = dtype
        self._limit = PIECE if self._widen_a is None and self._widen_b is None else BUFFER
        self.count = -(-self._a.size // self._limit)

    def load(self, number: int) -> tuple[int, Array, Array]:
        start = number * self._limit
        a, b = self._a[start : start + self._limit], self._b[start : start + self._limit]
        if self._widen_a is not None:
            wide = _buffers(self._dtype)[0].numpy()[: a.size]
            self._widen_a(a, wide)
            a = wide
        if self._widen_b is not None:
            wide = _buffers(self._dtype)[1].numpy()[: b.size]
            self._widen_b(b, wide)
            b = wide
        return start, a, b


class _Sliced:
    """Pieces of tensors of any strides, dtypes and devices, copied by torch into this thread's buffers."""

    def __init__(self, walk: Walk) -> None:
        self._a, self._b = walk.baseline, walk.candidate
        self._dtype = common_dtype(self._a.dtype, self._b.dtype)
        self._parts = parts(self._dtype)
        self._apart = loses_integers(self._a.dtype, self._b.dtype)
        self._pieces = list(walk.pieces(BUFFER // self._parts))
        self.count = len(self._pieces)

    def load(self, number: int) -> tuple[int, Array, Array]:
        start, where = self._pieces[number]
        baseline, candidate = self._a[where], self._b[where]
        one, two = _buffers(self._dtype)
        a, b = _copied(baseline, one), _copied(candidate, two)
        if self._apart:
            keep_integers_apart(baseline.to("cpu"), candidate.to("cpu"), a, b)
        return start * self._parts, a.numpy(), b.numpy()


def _copied(piece: Tensor, buffer: Tensor) -> Tensor:
    room = buffer[: piece.numel()]
    room.view(piece.shape).copy_(piece)
    return as_reals(room)


_local = threading.local()


def _buffers(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """This thread's two buffers of `BUFFER` real numbers, kept between calls."""
    kept: dict[torch.dtype, tuple[Tensor, Tensor]] = _local.__dict__.setdefault("buffers", {})
    if dtype not in kept:
        elements = BUFFER // parts(dtype)
        # Tensors born in inference mode could not be written to outside it.
        with torch.inference_mode(mode=False):
            kept[dtype] = (
                torch.empty(elements, dtype=dtype, device="cpu"),
                torch.empty(elements, dtype=dtype, device="cpu"),
            )
    return kept[dtype]
