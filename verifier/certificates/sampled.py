"""What is kept of a tensor while the process that made it goes on: a summary of a part of it, in little time."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from verifier.certificates.bits import HASHES, BitHash, compiled_kernel, in_a_row, multipliers
from verifier.certificates.sketch import BUCKETS, MASK, PIECE, signs
from verifier.certificates.summary import BINS, Moments, Summary, ramp, summarise
from verifier.graph.tensors import dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.certificates.sketch import Array

SAMPLE = 1 << 12  # elements that are read of a larger tensor
_RUN = 16  # elements that are read in a row: of float32, what a processor fetches at once
_KEY = 0x5EED_5A3B1E
_NONE = (0,) * HASHES
_EMPTY = np.zeros(BINS, dtype=np.int64)
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Part:
    """Some of a tensor's elements, by its size alone.

    Of a tensor of more than `most` elements runs of 16 are read, one of each of as many stretches of equal length;
    `most` None stands for all. What lies on a device is brought here when the summary
    is asked for, so that nothing waits for it.
    """

    __slots__ = ("_found", "_part")

    def __init__(self, tensor: Tensor, most: int | None) -> None:
        plain = dense(tensor.detach()).resolve_conj().resolve_neg()
        few = not sampled(plain.shape, most)
        if plain.is_complex():
            plain = torch.view_as_real(plain)
        part = plain.reshape(-1) if few else _picked(plain, most or 0)
        self._part = part.clone() if part.is_cuda and few else part
        self._found = None if part.is_cuda else self._summary()

    def summary(self) -> Summary:
        """The summary, without a histogram: hashes, moments and sketch are those of what was read."""
        if self._found is None:
            self._found = self._summary()
        return self._found

    def _summary(self) -> Summary:
        found = _lean(in_a_row(self._part.cpu().contiguous()))
        self._part = self._part[:0]
        return found


def sampled(shape: Sequence[int], most: int | None) -> bool:
    """Whether a part of a tensor of this shape is kept."""
    return most is not None and math.prod(shape) > most


def _picked(plain: Tensor, most: int) -> Tensor:
    where = _places(plain.numel(), most, plain.device)
    if plain.is_contiguous():
        return plain.view(-1)[where]
    return plain[_unravelled(tuple(plain.shape), most, plain.device)]


@functools.lru_cache(256)
def _places(numbers: int, most: int, device: torch.device) -> Tensor:
    """Of each of as many stretches as there are runs, one run: where in it is drawn, the same everywhere."""
    count = max(1, most // _RUN)
    apart = numbers / count
    run = min(_RUN, int(apart))
    spare = np.random.Philox(key=_KEY).random_raw(count).astype(np.float64) / 2.0**64 * (apart - run)
    starts = (np.arange(count) * apart + spare).astype(np.int64)
    return torch.from_numpy((starts[:, None] + np.arange(run)).reshape(-1)).to(device)


@functools.lru_cache(256)
def _unravelled(shape: tuple[int, ...], most: int, device: torch.device) -> tuple[Tensor, ...]:
    return torch.unravel_index(_places(math.prod(shape), most, device), shape)


def checksum(plain: Tensor) -> Tensor:
    """The sum of all words, modulo the size of one: no order to keep, so that threads and layouts do not count."""
    plain = dense(plain.detach()).resolve_conj().resolve_neg()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    if plain.dtype is torch.bool:
        plain = plain.to(torch.uint8)
    size = plain.element_size()
    if size >= 4:
        words = plain.view(_WORDS[size])
        return words.sum(dtype=words.dtype)
    flat = plain.reshape(-1)
    whole = len(flat) * size // 4 * 4 // size
    words = flat[:whole].view(torch.int32)
    return words.sum(dtype=torch.int32) + flat[whole:].view(_WORDS[size]).sum(dtype=torch.int32)


def _lean(part: Tensor) -> Summary:
    """`summarise` without a histogram, in one call of each kernel where the numbers are plain floats."""
    kernel = compiled_kernel()
    floats = part.float() if part.dtype in (torch.float16, torch.bfloat16) else part
    count = len(floats)
    if kernel is None or not 0 < count <= PIECE or floats.dtype not in (torch.float32, torch.float64):
        return _bare(summarise(part))
    own, weights, inner, outer = _tables()
    sketch = np.zeros(BUCKETS)
    sums = np.array([0.0, 0.0, math.inf, -math.inf, 0.0])
    numbers = floats.numpy()
    kernel.sketched(numbers, own[:count], weights, 0, sketch, sums)
    total, squares, low, high, weighted = sums.tolist()
    if not (math.isfinite(squares) and low > -MASK and high < MASK):
        return _bare(summarise(part))
    if floats is part:
        found = np.zeros(HASHES, np.uint64)
        kernel.hashed(numbers.view(np.uint32), 0, inner, outer, found)
        bits = tuple(found.view(np.int64).tolist())
    else:
        hashed = BitHash(part.device)
        hashed.add(part, 0)
        bits = hashed.digits()
    return Summary(bits, _NONE, Moments(count, 0, total, squares, low, high, weighted), _EMPTY, sketch)


@functools.cache
def _tables() -> tuple[Array, Array, Array, Array]:
    """What the kernels multiply by: signs, weights, and random numbers for both hashes."""
    here = torch.device("cpu")
    inner, outer = (table.numpy().view(np.uint64) for table in multipliers(here))
    return signs(PIECE, here).numpy(), ramp(here).numpy(), inner, outer


def _bare(found: Summary) -> Summary:
    return Summary(found.bits, found.mask, found.moments, _EMPTY, found.sketch)
