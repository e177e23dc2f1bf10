"""The compiled loop that reads a dtype's bits on the CPU: what `precision` does with some twenty operations."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from verifier.metrics.jit import compiled
from verifier.metrics.kernel_cpu import BLOCK, INFINITE

Bits: TypeAlias = npt.NDArray[np.signedinteger[Any]]  # int16 or int32, one dimension, contiguous
Ints: TypeAlias = npt.NDArray[np.int64]

_MAGNITUDE = 0x7FFFFFFFFFFFFFFF
# Columns of a row, in the order in which `precision` takes them: four counts of the baseline's, four of the
# candidate's, whether any bits differ, and the distances.
UNEQUAL, COUNTED, TOP, HIGH, LOW = range(8, 13)
COLUMNS = 13


@compiled
def count_side(
    bits: Bits, oracle: Ints, normal: int, largest: int, infinity: int, vanishing: int
) -> tuple[np.int64, np.int64, np.int64, np.int64]:
    """One tensor's overflows, NaNs, underflows and subnormal numbers."""
    over = invalid = under = subnormal = np.int64(0)
    mask = np.int64(2 ** (8 * bits.itemsize - 1) - 1)
    for i in range(bits.size):
        magnitude = np.int64(bits[i]) & mask
        exact = oracle[i] & _MAGNITUDE
        finite = np.int64(exact < INFINITE)
        over += np.int64(magnitude == infinity) & finite
        invalid += np.int64(magnitude > largest) & finite
        under += np.int64(magnitude == 0) & np.int64(exact > 0) & np.int64(exact < vanishing)
        subnormal += np.int64(magnitude > 0) & np.int64(magnitude < normal)
    return over, invalid, under, subnormal


@compiled
def read_flat(
    oracle: Ints, a: Bits, b: Bits, normal: int, largest: int, infinity: int, vanishing: int, row: Ints
) -> None:
    """Add what all elements say to `row`.

    Args:
        oracle: Bits of the exact values.
        a: Bits of the baseline's values.
        b: Bits of the candidate's.
        normal: The smallest normal magnitude, read as an integer; see `precision.Format`, also for the next two.
        largest: The largest magnitude that is no NaN.
        infinity: The magnitude of infinity; -1 where the dtype has none.
        vanishing: Bits of the dtype's smallest normal number in float64: exact values below may become 0.
        row: `COLUMNS` numbers.
    """
    mask = a.dtype.type(2 ** (8 * a.itemsize - 1) - 1)
    for start in range(0, a.size, BLOCK):
        stop = min(start + BLOCK, a.size)
        one, two, exact = a[start:stop], b[start:stop], oracle[start:stop]
        top_a = top_b = a.dtype.type(0)
        least_a = least_b = mask
        different = a.dtype.type(0)
        for i in range(one.size):
            x = one[i] & mask
            y = two[i] & mask
            top_a = max(top_a, x)
            least_a = min(least_a, x)
            top_b = max(top_b, y)
            least_b = min(least_b, y)
            different |= one[i] ^ two[i]
        # Most blocks hold nothing but ordinary numbers, and zeros that a rectifier made.
        of_a = of_b = (np.int64(0), np.int64(0), np.int64(0), np.int64(0))
        if top_a >= largest or least_a < normal:
            of_a = count_side(one, exact, normal, largest, infinity, vanishing)
        if different == 0:
            of_b = of_a
        elif top_b >= largest or least_b < normal:
            of_b = count_side(two, exact, normal, largest, infinity, vanishing)
        for k in range(4):
            row[k] += of_a[k]
            row[4 + k] += of_b[k]
        clean = top_a <= largest and top_b <= largest
        if different == 0 and clean:
            row[COUNTED] += one.size
            continue
        row[UNEQUAL] |= np.int64(different != 0)
        counted = top = total = np.int64(0)
        for i in range(one.size):
            # Neighbouring values are neighbouring integers once negative numbers are their negated magnitudes.
            x = np.int64(one[i] & mask)
            y = np.int64(two[i] & mask)
            usual = np.int64(x <= largest) & np.int64(y <= largest)
            far = abs((-x if one[i] < 0 else x) - (-y if two[i] < 0 else y)) * usual
            counted += usual
            top = max(top, far)
            total += far
        row[COUNTED] += counted
        row[TOP] = max(row[TOP], top)
        row[LOW] += total  # below 2^33 each, so that 2^30 elements fit
