"""Compiled loops that reduce one piece of two flat arrays. Numba compiles them at their first call."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from verifier.metrics.jit import compiled, ordered

Array: TypeAlias = npt.NDArray[np.floating[Any]]  # float32 or float64, one dimension, contiguous
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Halves: TypeAlias = npt.NDArray[np.int16]

# Elements reduced at once: both operands of a float64 block fit a first-level cache of 48 KiB twice over, and
# what has to be looked at again is still there.
BLOCK = 2048
# Bit pattern of float64 infinity. As integers, patterns of non-negative floats are ordered like the floats,
# NaN above infinity, and unlike floats their maximum vectorises.
INFINITE = 0x7FF0000000000000

# Times a ratio, what |b - a| must exceed, relative to |a|, to be divided: the product is rounded, and which elements
# it rules out must not depend on what was seen before, so on how many threads share the pieces.
NEARLY = 1 - 2.0**-52

# Columns of a row of sums.
SUMS = 9
# Columns of a tally.
FINITE, NONFINITE_A, NONFINITE_B, MISMATCHED, MISMATCH_AT, TOP, TOP_AT = range(7)
TALLY = 7


@ordered
def less(x: float, y: float) -> float:
    """x - y, whatever is done with it afterwards."""
    return x - y


@ordered
def residual(x: float, y: float, u: float, origin_e: float, lead: float, rest: float) -> float:
    """y - lead * x - origin_e - rest * u in this order: what is exact for close sides comes first."""
    return ((y - lead * x) - origin_e) - rest * u


@compiled
def pilot(a: Array, b: Array, frame: Floats) -> bool:
    """Put the means of the first elements finite on both sides into `frame`; False where there are none.

    The means are taken about an element, so that a constant is its own mean exactly.
    """
    first = -1
    for i in range(a.size):
        if abs(a[i]) < np.inf and abs(b[i]) < np.inf:
            first = i
            break
    if first < 0:
        return False
    a0 = np.float64(a[first])
    b0 = np.float64(b[first])
    d0 = b0 - a0
    n = np.int64(0)
    sum_a = sum_b = sum_d = 0.0
    for i in range(a.size):
        x = np.float64(a[i])
        y = np.float64(b[i])
        good = (abs(x) < np.inf) & (abs(y) < np.inf)
        n += np.int64(good)
        sum_a += less(x, a0) if good else 0.0
        sum_b += less(y, b0) if good else 0.0
        sum_d += less(less(y, x), d0) if good else 0.0
    frame[0] = a0 + sum_a / n if abs(a0 + sum_a) < np.inf else a0
    frame[1] = b0 + sum_b / n if abs(b0 + sum_b) < np.inf else b0
    frame[2] = d0 + sum_d / n if abs(d0 + sum_d) < np.inf else 0.0
    return True


@compiled
def clean_block(a: Array, b: Array, frame: Floats, ratio: float) -> tuple[Any, ...]:
    """Sums over a block presumed finite, bits of its largest |b - a|, whether some |b - a| > ratio * |a|.

    The bits are those of infinity or above where the presumption was wrong; the sums then mean nothing.
    """
    origin_a, origin_b, origin_e, lead, rest = frame[0], frame[1], frame[2], frame[3], frame[4]
    su = sv = se = suu = svv = suv = see = sue = sdd = 0.0
    top = np.int64(0)
    larger = np.int64(0)
    for i in range(a.size):
        x = np.float64(a[i])
        y = np.float64(b[i])
        d = less(y, x)
        u = less(x, origin_a)
        v = less(y, origin_b)
        e = residual(x, y, u, origin_e, lead, rest)
        su += u
        sv += v
        se += e
        suu += u * u
        svv += v * v
        suv += u * v
        see += e * e
        sue += u * e
        sdd += d * d
        gap = np.float64(abs(d))
        top = max(top, gap.view(np.int64))
        larger |= np.int64((gap > ratio * abs(x)) & (x != 0.0))
    return su, sv, se, suu, svv, suv, see, sue, sdd, top, larger


@compiled
def equal_block(a: Array, b: Array, origin: float) -> tuple[Any, ...]:
    """Whether two blocks are the same bits, and the sums of u and u * u, u = a - origin, if they are.

    A third of `clean_block`'s work, for what most comparisons of two right implementations find. Where a block
    holds NaN, infinity or numbers too large to square, the second sum is not finite.
    """
    different = np.int32(0)
    bits_a = a.view(np.int32)
    bits_b = b.view(np.int32)
    for i in range(bits_a.size):
        different |= bits_a[i] ^ bits_b[i]
    su = suu = 0.0
    if different == 0:
        for i in range(a.size):
            u = less(np.float64(a[i]), origin)
            su += u
            suu += u * u
    return different == 0, su, suu


@compiled
def careful_block(a: Array, b: Array, frame: Floats, ratio: float) -> tuple[Any, ...]:
    """`clean_block` over the elements finite on both sides, and counts of the others."""
    origin_a, origin_b, origin_e, lead, rest = frame[0], frame[1], frame[2], frame[3], frame[4]
    su = sv = se = suu = svv = suv = see = sue = sdd = 0.0
    top = np.int64(-1)
    larger = np.int64(0)
    bad_a = np.int64(0)
    bad_b = np.int64(0)
    bad_both = np.int64(0)
    mismatched = np.int64(0)
    for i in range(a.size):
        x = np.float64(a[i])
        y = np.float64(b[i])
        good_x = abs(x) < np.inf
        good_y = abs(y) < np.inf
        good = good_x & good_y
        bad_a += np.int64(not good_x)
        bad_b += np.int64(not good_y)
        bad_both += np.int64((not good_x) & (not good_y))
        agree = (x == y) | ((x != x) & (y != y))  # noqa: PLR0124 - only NaN differs from itself
        mismatched += np.int64((not good) & (not agree))
        x = x if good else origin_a
        y = y if good else origin_a
        d = less(y, x)
        u = less(x, origin_a)
        v = less(y, origin_b) if good else 0.0
        e = residual(x, y, u, origin_e, lead, rest) if good else 0.0
        su += u
        sv += v
        se += e
        suu += u * u
        svv += v * v
        suv += u * v
        see += e * e
        sue += u * e
        sdd += d * d
        gap = np.float64(abs(d))
        top = max(top, gap.view(np.int64) if good else np.int64(-1))
        larger |= np.int64((gap > ratio * abs(x)) & (x != 0.0) & good)
    return su, sv, se, suu, svv, suv, see, sue, sdd, top, larger, bad_a, bad_b, bad_both, mismatched


@compiled
def largest_ratio(a: Array, b: Array) -> float:
    """The largest |b - a| / |a| over elements finite on both sides where a is not 0."""
    best = np.int64(0)
    for i in range(a.size):
        x = np.float64(a[i])
        y = np.float64(b[i])
        good = (abs(x) < np.inf) & (abs(y) < np.inf) & (x != 0.0)
        ratio = np.float64(abs(less(y, x)) / (abs(x) if good else 1.0))
        best = max(best, ratio.view(np.int64) if good else np.int64(0))
    bits = np.int64(best)  # numba views variables that are assigned once
    return float(bits.view(np.float64))


@compiled
def row_major(position: int, sizes: Ints, strides: Ints) -> int:
    """The logical row-major number of the element at `position` in a walk over dimensions of `sizes`."""
    number = 0
    for k in range(sizes.size - 1, -1, -1):
        number += (position % int(sizes[k])) * int(strides[k])
        position //= int(sizes[k])
    return number


@compiled
def first_mismatch(a: Array, b: Array, start: int, sizes: Ints, strides: Ints, known: int) -> int:
    """The lowest logical number of an element about whose NaN or inf both disagree; at most `known`."""
    for i in range(a.size):
        x = np.float64(a[i])
        y = np.float64(b[i])
        good = (abs(x) < np.inf) & (abs(y) < np.inf)
        agree = (x == y) | ((x != x) & (y != y))  # noqa: PLR0124
        if not good and not agree:
            number = row_major(start + i, sizes, strides)
            known = number if known < 0 else min(known, number)
    return known


@compiled
def first_top(a: Array, b: Array, top: int, start: int, sizes: Ints, strides: Ints, known: int) -> int:
    """The lowest logical number of an element whose |b - a| has the bits `top`; at most `known`."""
    for i in range(a.size):
        x = np.float64(a[i])
        y = np.float64(b[i])
        gap = np.float64(abs(less(y, x)))
        if gap.view(np.int64) == top and abs(x) < np.inf and abs(y) < np.inf:
            number = row_major(start + i, sizes, strides)
            known = number if known < 0 else min(known, number)
            if sizes.size == 1 or known == 0:
                break
    return known


@compiled
def reduce_piece(  # noqa: PLR0915 - compiled code passes no records around
    a: Array,
    b: Array,
    frame: Floats,
    start: int,
    sizes: Ints,
    strides: Ints,
    sums: Floats,
    tally: Ints,
    ratio: Floats,
    tops: Ints,
) -> None:
    """Reduce a walk's elements from `start` on: overwrite `sums`, update `tally`, `ratio`; `tops` is scratch.

    `sizes` and `strides` (both of one length) describe the walk: sizes in walking order, and the row-major
    stride of each dimension in the logical shape. A largest difference of 0 is left without its place.
    """
    sums[:] = 0.0
    top = np.int64(-1)
    blocks = (a.size + BLOCK - 1) // BLOCK
    # About such a frame the sums of two equal blocks are one block's, and its residual's are 0.
    hopeful = frame[0] == frame[1] and frame[2] == 0.0 and frame[3] == 1.0 and frame[4] == 0.0
    for k in range(blocks):
        lo = k * BLOCK
        hi = min(lo + BLOCK, a.size)
        x = a[lo:hi]
        y = b[lo:hi]
        if hopeful:
            hopeful, su, suu = equal_block(x, y, frame[0])
            if hopeful and suu < np.inf:
                tally[FINITE] += hi - lo
                tops[k] = 0
                top = max(top, np.int64(0))
                sums[0] += su
                sums[1] += su
                sums[3] += suu
                sums[4] += suu
                sums[5] += suu
                continue
        su, sv, se, suu, svv, suv, see, sue, sdd, block_top, larger = clean_block(
            x, y, frame, NEARLY * ratio[0]
        )
        finite = hi - lo
        if block_top >= INFINITE:
            (
                su,
                sv,
                se,
                suu,
                svv,
                suv,
                see,
                sue,
                sdd,
                block_top,
                larger,
                bad_a,
                bad_b,
                bad_both,
                mismatched,
            ) = careful_block(x, y, frame, NEARLY * ratio[0])
            finite -= bad_a + bad_b - bad_both
            tally[NONFINITE_A] += bad_a
            tally[NONFINITE_B] += bad_b
            tally[MISMATCHED] += mismatched
            if mismatched and not (sizes.size == 1 and tally[MISMATCH_AT] >= 0):
                tally[MISMATCH_AT] = first_mismatch(x, y, start + lo, sizes, strides, int(tally[MISMATCH_AT]))
        tally[FINITE] += finite
        if larger:
            ratio[0] = max(ratio[0], largest_ratio(x, y))
        tops[k] = block_top
        top = max(top, block_top)
        sums[0] += su
        sums[1] += sv
        sums[2] += se
        sums[3] += suu
        sums[4] += svv
        sums[5] += suv
        sums[6] += see
        sums[7] += sue
        sums[8] += sdd
    if top < tally[TOP] or (top == tally[TOP] and (sizes.size == 1 or tally[TOP_AT] == 0)):
        return
    if top <= 0:  # every finite element is the largest: which comes first is not worth a scan of all
        tally[TOP] = top
        return
    known = -1
    if top == tally[TOP]:
        known = int(tally[TOP_AT])
    for k in range(blocks):
        if tops[k] == top:
            lo = k * BLOCK
            hi = min(lo + BLOCK, a.size)
            known = first_top(a[lo:hi], b[lo:hi], int(top), start + lo, sizes, strides, known)
            if sizes.size == 1 or known == 0:
                break
    tally[TOP] = top
    tally[TOP_AT] = known


@compiled
def reduce_whole(
    a: Array,
    b: Array,
    frame: Floats,
    sizes: Ints,
    strides: Ints,
    sums: Floats,
    tally: Ints,
    ratio: Floats,
    tops: Ints,
) -> None:
    """`pilot`, then `reduce_piece`, of a walk that is one piece; `frame` holds the initial one and becomes theirs."""
    for lo in range(0, a.size, BLOCK):
        if pilot(a[lo : lo + BLOCK], b[lo : lo + BLOCK], frame):
            break
    tally[:] = 0
    tally[MISMATCH_AT] = tally[TOP] = tally[TOP_AT] = -1
    ratio[0] = 0.0
    reduce_piece(a, b, frame, 0, sizes, strides, sums, tally, ratio, tops)


@compiled
def widen_bfloat16(source: Halves, target: Array) -> None:
    """Copy bfloat16, given by its bits, into float32 or float64: it is the upper half of a float32."""
    for i in range(source.size):
        target[i] = np.int32(np.int32(source[i]) << 16).view(np.float32)


@compiled
def widen_float16(source: Halves, target: Array) -> None:
    """Copy float16, given by its bits, into float32 or float64.

    Moved into a float32's exponent and mantissa the bits stand for the value times 2^-112 (the difference of
    the exponents' biases), subnormals included; infinity and NaN need the largest exponent instead.
    """
    for i in range(source.size):
        half = np.int32(source[i])
        bits = np.int32((half & 0x7FFF) << 13)
        special = np.int32(bits | 0x7F800000).view(np.float32)
        size = special if bits >= 0x0F800000 else bits.view(np.float32) * np.float32(2.0**112)
        target[i] = -size if half < 0 else size


@compiled
def widen_float32(source: Array, target: Array) -> None:
    """Copy float32 into float64."""
    for i in range(source.size):
        target[i] = source[i]
