"""One pass over a piece of a float tensor on the CPU: what `summary` and `bits` do in several, compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from verifier.metrics.jit import compiled

if TYPE_CHECKING:
    Array: TypeAlias = "np.ndarray[Any, Any]"


ROWS = 4  # of buckets that are read at once


@compiled
def _row(values: Array, signs: Array, sketch: Array) -> None:
    for j in range(len(values)):
        sketch[j] += np.float64(values[j]) * signs[j]


@compiled
def _four_rows(values: Array, signs: Array, sketch: Array) -> None:
    n = len(sketch)
    for j in range(n):
        sketch[j] += (np.float64(values[j]) * signs[j] + np.float64(values[n + j]) * signs[n + j]) + (
            np.float64(values[2 * n + j]) * signs[2 * n + j]
            + np.float64(values[3 * n + j]) * signs[3 * n + j]
        )


@compiled
def _moments(values: Array, sums: Array) -> None:
    total = squares = 0.0
    for j in range(len(values)):
        value = np.float64(values[j])
        total += value
        squares += value * value
    sums[0] += total
    sums[1] += squares


@compiled
def _range(values: Array, sums: Array) -> None:
    low = high = values[0]
    for j in range(len(values)):
        low = min(low, values[j])
        high = max(high, values[j])
    sums[2] = min(sums[2], np.float64(low))
    sums[3] = max(sums[3], np.float64(high))


@compiled
def _weighted(values: Array, ramp: Array, sums: Array) -> None:
    weighted = 0.0
    for j in range(len(values)):
        weighted += np.float64(values[j]) * ramp[j]
    sums[4] += weighted


@compiled
def sketched(values: Array, signs: Array, ramp: Array, start: int, sketch: Array, sums: Array) -> None:
    """Add values, the first of index `start`, to sketch, sum, sum of squares, lowest, highest and weighted sum.

    `ramp` holds the weights of two periods, of which the second is there to be run into. A value that is not finite
    leaves one of the sums not finite, or is the highest or lowest. Sums of one kind have a loop of their own, over
    what lies in the nearest cache: only such loops are vectorised.
    """
    count, buckets, period = len(values), len(sketch), len(ramp) // 2
    at, bucket, column = 0, start % buckets, start % period
    while at < count:
        here = min(buckets - bucket, count - at)
        if bucket == 0 and at + ROWS * buckets <= count:
            here = ROWS * buckets
            _four_rows(values[at : at + here], signs[at : at + here], sketch)
        else:
            _row(values[at : at + here], signs[at : at + here], sketch[bucket:])
        piece = values[at : at + here]
        _moments(piece, sums)
        _range(piece, sums)
        _weighted(piece, ramp[column:], sums)
        at += here
        bucket = 0
        column = (column + here) % period


@compiled
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
