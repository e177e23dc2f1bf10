"""A tensor's linear sketch, from which differences of tensors that never met are estimated.

Element i, in row-major order, is multiplied by a random sign and added to bucket i mod `BUCKETS` (a count sketch:
Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002). Sketches are linear:
sketch(a) - sketch(b) = sketch(a - b), and the mean of |sketch(d)|^2 over signs is |d|^2.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from verifier.metrics.walk import slices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

Array: TypeAlias = "np.ndarray[Any, Any]"

# A prime, so that neither channels, rows nor samples of any usual size lie in a few buckets only.
BUCKETS = 383
PIECE = 512 * BUCKETS  # elements read at once
_ON_DEVICE = 64  # times as many there, where every piece waits once
# Numbers beyond this stand for an infinity (`finfo.min` in a mask), which is another number in every dtype.
MASK = 1e30

_SIGNS = 0x5EED_51615  # a key of the generator, one for all certificates: sketches of two files must fit
_LEVEL = 0.95
# Signs leave the buckets normal where many elements of like size share them; where a few carry the difference, the
# fourth moment is larger by more than chance allows (its spread is sqrt(24 / BUCKETS)) and tells how many they are.
_CHANCE = 4 * math.sqrt(24 / BUCKETS)


class _Signs:
    """Random signs by index, made as they are needed: bits of a counter-based generator, the same everywhere."""

    def __init__(self) -> None:
        self._made: dict[torch.device, Tensor] = {}

    def __call__(self, count: int, device: torch.device) -> Tensor:
        """The first `count` signs, int8."""
        made = self._made.get(device)
        if made is None or len(made) < count:
            words = np.random.Philox(key=_SIGNS).random_raw(-(-max(count, PIECE) // 64))
            bits = np.unpackbits(np.ascontiguousarray(words, "<u8").view(np.uint8), bitorder="little")
            made = (torch.from_numpy(bits.view(np.int8)) * 2 - 1).to(device)
            self._made[device] = made
        return made[:count]


signs = _Signs()


def pieces(tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    """A strided tensor's elements in row-major order, flat, piece by piece: where each starts, and the elements."""
    size = _ON_DEVICE * PIECE if tensor.is_cuda else PIECE
    if tensor.is_contiguous():
        flat = tensor.view(-1)
        for start in range(0, len(flat), size):
            yield start, flat[start : start + size]
        return
    for start, where in slices(tuple(tensor.shape), size):
        yield start, tensor[where].reshape(-1).contiguous()


def add(total: Tensor, piece: Tensor, start: int) -> None:
    """Add the sketch of float64 elements that follow each other from index `start` on to `total`."""
    count, first = len(piece), start % BUCKETS
    signed = piece * signs(start + count, piece.device)[start:]
    rows = -(-(first + count) // BUCKETS)
    if first or rows * BUCKETS != count:
        signed = torch.nn.functional.pad(signed, (first, rows * BUCKETS - first - count))
    total += signed.view(rows, BUCKETS).sum(0)


@functools.lru_cache(64)
def of_ones(count: int) -> Array:
    """The sketch of `count` ones."""
    total = torch.zeros(BUCKETS, dtype=torch.float64)
    for start in range(0, count, PIECE):
        add(total, torch.ones(min(PIECE, count - start), dtype=torch.float64), start)
    return total.numpy()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A sum of squares told from a sketch: `value`, and the interval of 95 % about it."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """The estimate in another unit."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high)

    @property
    def root(self) -> Estimate:
        """The square root of what is estimated."""
        return Estimate(math.sqrt(self.value), math.sqrt(self.low), math.sqrt(self.high))


def squares(sketch: Array, count: int) -> Estimate:
    """The sum of squares of `count` elements, without bias, from their sketch.

    The interval is that of a chi-square variable. Its degrees of freedom are those of equal elements that share
    buckets; where the buckets show that fewer carry the sum, they are those the fourth moment allows for
    (E s^4 = 3 v^2 for normal buckets of equal variance v), and the interval is wider than it need be. At most one
    element a bucket leaves nothing to chance.
    """
    value = float(np.dot(sketch, sketch))
    if count <= BUCKETS or value == 0 or not math.isfinite(value):
        return Estimate(value, value, value)
    full, rest = divmod(count, BUCKETS)
    sharing = (
        BUCKETS * full**2 + rest * (2 * full + 1) - count
    )  # over buckets: elements times elements, less own
    freedom = count * count / sharing
    scaled = sketch / math.sqrt(value)
    fourth = float(np.dot(scaled * scaled, scaled * scaled))
    if BUCKETS * fourth > 3 + _CHANCE:
        freedom = min(freedom, max(1.0, 3 / fourth - 2))
    low, high = _factors(freedom)
    return Estimate(value, low * value, high * value)


@functools.lru_cache(4096)
def _factors(freedom: float) -> tuple[float, float]:
    from scipy import special  # noqa: PLC0415 - a tenth of a second, and a recording needs no bounds

    tail = (1 - _LEVEL) / 2  # of a chi-square distribution
    low, high = (freedom / float(special.chdtri(freedom, above)) for above in (tail, 1 - tail))
    return low, high
