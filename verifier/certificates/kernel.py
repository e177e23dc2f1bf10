"""One pass over a piece of a float tensor on the CPU: what `summary` and `bits` do in several, compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numba
import numpy as np

from verifier.metrics.jit import compiled

if TYPE_CHECKING:
    Array: TypeAlias = "np.ndarray[Any, Any]"


@compiled
def sketched(values: Array, signs: Array, ramp: Array, start: int, sketch: Array, sums: Array) -> None:
    """Add values, the first of index `start`, to sketch, sum, sum of squares, lowest, highest and weighted sum.

    `ramp` holds the weights of two periods, of which the second is there to be run into. A value that is not finite
    leaves one of the sums not finite, or is the highest or lowest.
    """
    count, buckets, period = len(values), len(sketch), len(ramp) // 2
    total = squares = weighted = 0.0
    low, high = sums[2], sums[3]
    at, bucket, column = 0, start % buckets, start % period
    while at < count:
        here = min(buckets - bucket, count - at)
        for j in range(here):
            value = np.float64(values[at + j])
            sketch[bucket + j] += value * signs[at + j]
            total += value
            squares += value * value
            weighted += value * ramp[column + j]
            low = min(low, value)
            high = max(high, value)
        at += here
        bucket = 0
        column = (column + here) % period
    sums[0] += total
    sums[1] += squares
    sums[2] = low
    sums[3] = high
    sums[4] += weighted


@numba.njit(nogil=True, cache=True)  # type: ignore[misc, unused-ignore] # whole numbers: no order to keep
def hashed(words: Array, first: int, inner: Array, outer: Array, found: Array) -> None:
    """Add words of 32 bits, of which the first has the index `first`, to both hashes modulo 2^64."""
    count, size = len(words), inner.shape[1]
    at, row, column = 0, first // size % (outer.shape[1] // 2), first % size
    while at < count:
        here = min(size - column, count - at)
        one = two = np.uint64(0)
        for j in range(here):
            word = np.uint64(words[at + j])
            one += word * inner[0, column + j]
            two += word * inner[1, column + j]
        found[0] += one * outer[0, row]
        found[1] += two * outer[1, row]
        at += here
        row += 1
        column = 0
