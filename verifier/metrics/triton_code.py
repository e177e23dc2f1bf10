"""What runs on the device: one kernel that reads two dense tensors once, each program its share of them.

Compiled code passes no records around, so its functions are long. `kernel_triton` launches it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from verifier.metrics import partials
from verifier.metrics.triton_frame import finite, frame, joined, parted, scale

# The same numbers where kernels may read them.
_COLUMNS = tl.constexpr(partials.WIDTH)
_RATIO = tl.constexpr(partials.RATIO)
_TOP = tl.constexpr(partials.TOP)
_TOP_AT = tl.constexpr(partials.TOP_AT)
_BAD_A = tl.constexpr(partials.BAD_A)
_BAD_B = tl.constexpr(partials.BAD_B)
_BAD = tl.constexpr(partials.BAD)
_MISMATCHED = tl.constexpr(partials.MISMATCHED)
_MISMATCH_AT = tl.constexpr(partials.MISMATCH_AT)
_FIRST = tl.constexpr(partials.FIRST)
_ELEMENTS = tl.constexpr(partials.ELEMENTS)
_NOWHERE = tl.constexpr(partials.NOWHERE)
# Scaled numbers of at most this size have squares that float32 holds, and sums of some of them.
_WIDEST = tl.constexpr(2.0**60)
# The share of a difference's square that its residual must have: 2^20 times that of a rounding error of 2^-24.
_RESIDUAL = tl.constexpr(2.0**-28)
# More than what float32's roundings add to a product, so that a ratio that was found is not found again and again.
_CLEARLY = tl.constexpr(1 + 2.0**-21)
_LARGE = tl.constexpr(1e30)


@triton.jit  # type: ignore[untyped-decorator]
def _near(ratio: tl.tensor) -> tl.tensor:
    """In float32, what a ratio must exceed to be looked at: 0, for all of them, where float32 cannot hold that."""
    return tl.where(ratio < _LARGE, ratio * _CLEARLY, 0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _number(
    position: tl.tensor,
    size_1: tl.tensor,
    size_2: tl.tensor,
    size_3: tl.tensor,
    stride_0: tl.tensor,
    stride_1: tl.tensor,
    stride_2: tl.tensor,
    stride_3: tl.tensor,
    row_major: tl.constexpr,
) -> tl.tensor:
    """The logical row-major number of the elements at `position` in a walk, outermost dimension first."""
    if row_major:
        number = position
    else:
        number = (position % size_3) * stride_3
        position = position // size_3
        number += (position % size_2) * stride_2
        position = position // size_2
        number += (position % size_1) * stride_1
        number += (position // size_1) * stride_0
    return number


# Sizes would otherwise be compiled into the kernel by their divisibility: a variant for almost every layer.
@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=[
        "size_1",
        "size_2",
        "size_3",
        "stride_0",
        "stride_1",
        "stride_2",
        "stride_3",
    ]
)
def reduce_share(  # noqa: PLR0915 - compiled code passes no records around
    a: tl.tensor,
    b: tl.tensor,
    rows: tl.tensor,
    n: tl.tensor,
    size_1: tl.tensor,
    size_2: tl.tensor,
    size_3: tl.tensor,
    stride_0: tl.tensor,
    stride_1: tl.tensor,
    stride_2: tl.tensor,
    stride_3: tl.tensor,
    row_major: tl.constexpr,
    narrow: tl.constexpr,
    sample: tl.constexpr,
    lines: tl.constexpr,
    together: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Write a row about this program's share of two tensors, and, as the first program, the frame's row.

    `a` and `b` are n elements each in the same order; `size_*` and `stride_*` say which (see `walk.Walk`), the
    outermost dimension having the size that the others leave. The programs take pieces of `lines` times `together`
    elements in turn; the last piece may be shorter.

    Every program fits the same frame to the same `sample` elements.

    Where `narrow`, whole pieces are computed in float32: the numbers of `together` neighbours, which one thread
    holds, are added before the sum goes to float64, so each product's rounding error, 2^-24 of it and of either
    sign, is all that is lost. For that everything is scaled by powers of two. What does not fit then makes the
    program go through its share once more in float64: a number that is not finite or far from all of the
    sample, any difference where the sample has none, a candidate that is but for roundings a line of the baseline.
    The largest difference is always that of float64: what float32 cannot rule out to be it is computed again. So is
    the largest ratio, but for 2^-21 of it.
    """
    program = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0).to(tl.int64)
    nowhere = tl.full((), _NOWHERE, tl.int64)

    origin_a, origin_b, origin_e, lead, rest, top, ratio, spread_a, spread_b, spread_d, spread_e, count = (
        frame(a, b, n, sample, narrow)
    )
    if program == 0:
        tl.store(rows + 0, origin_a)
        tl.store(rows + 1, origin_b)
        tl.store(rows + 2, origin_e)
        tl.store(rows + 3, lead)
        tl.store(rows + 4, rest)
        tl.store(rows + _ELEMENTS, n)

    # Where the very first element is finite, no other is the first that is.
    begun = finite(tl.load(a).to(tl.float64)) & finite(tl.load(b).to(tl.float64))
    first = tl.where(begun, 0, nowhere)
    top_at = nowhere
    mismatch_at = nowhere
    bad_a = tl.full((), 0, tl.int64)
    bad_b = tl.full((), 0, tl.int64)
    bad = tl.full((), 0, tl.int64)
    mismatched = tl.full((), 0, tl.int64)

    piece: tl.constexpr = lines * together
    whole = n // piece
    own = (whole - program + programs - 1) // programs  # whole pieces of this program's
    again = tl.full((), 1, tl.int32)
    total_u = tl.full((), 0.0, tl.float64)
    total_v = tl.full((), 0.0, tl.float64)
    total_e = tl.full((), 0.0, tl.float64)
    total_uu = tl.full((), 0.0, tl.float64)
    total_vv = tl.full((), 0.0, tl.float64)
    total_uv = tl.full((), 0.0, tl.float64)
    total_ee = tl.full((), 0.0, tl.float64)
    total_ue = tl.full((), 0.0, tl.float64)
    total_dd = tl.full((), 0.0, tl.float64)

    if narrow:
        # What float32's roundings of a difference leave must be nothing beside the residual.
        again = tl.where(begun & (spread_e >= _RESIDUAL * spread_d), 0, 1)
        scale_u = scale(spread_a, count)
        scale_v = scale(spread_b, count)
        # Differences of rounding are as small against the tensor as float32's last digits: in range all the same.
        scale_e = tl.where(spread_d > 0.0, scale(spread_d, count), scale_u)
        by_u = scale_u.to(tl.float32)
        by_v = scale_v.to(tl.float32)
        by_e = scale_e.to(tl.float32)
        from_a = (origin_a * scale_u).to(tl.float32)
        from_b = (origin_b * scale_v).to(tl.float32)
        from_e = (origin_e * scale_e).to(tl.float32)
        minus_lead = -lead.to(tl.float32)
        along_u = (rest * (scale_e / scale_u)).to(tl.float32)
        wide_u = tl.where(spread_a > 0.0, _WIDEST, 0.0).to(tl.float32)
        wide_v = tl.where(spread_b > 0.0, _WIDEST, 0.0).to(tl.float32)
        wide_e = tl.where(spread_d > 0.0, _WIDEST, 0.0).to(tl.float32)
        near_top = top.to(tl.float32)
        near_ratio = _near(ratio)
        sum_u = tl.zeros([lines], tl.float64)
        sum_v = tl.zeros([lines], tl.float64)
        sum_e = tl.zeros([lines], tl.float64)
        sum_uu = tl.zeros([lines], tl.float64)
        sum_vv = tl.zeros([lines], tl.float64)
        sum_uv = tl.zeros([lines], tl.float64)
        sum_ee = tl.zeros([lines], tl.float64)
        sum_ue = tl.zeros([lines], tl.float64)
        sum_dd = tl.zeros([lines], tl.float64)
        inside = tl.arange(0, lines)[:, None] * together + tl.arange(0, together)[None, :]
        # The next piece is on its way while one is computed: few programs run at once, for all they have to hold.
        coming_x = tl.load(a + program * piece + inside, mask=inside < own * piece, other=0.0)
        coming_y = tl.load(b + program * piece + inside, mask=inside < own * piece, other=0.0)
        for turn in range(own):
            piece_at = (program + turn * programs) * piece
            near_x = coming_x.to(tl.float32)
            near_y = coming_y.to(tl.float32)
            further = piece_at + programs * piece
            coming_x = tl.load(a + further + inside, mask=inside < (own - 1 - turn) * piece, other=0.0)
            coming_y = tl.load(b + further + inside, mask=inside < (own - 1 - turn) * piece, other=0.0)
            # Times a power of two and then less a number is rounded once.
            # p, q and r are the scaled u, v and e.
            p = near_x * by_u - from_a
            q = near_y * by_v - from_b
            apart = near_y - near_x
            # What is exact for close sides comes first.
            r = ((near_y + minus_lead * near_x) * by_e - from_e) - along_u * p
            scaled = apart * by_e
            sum_u += tl.sum(p, axis=1).to(tl.float64)
            sum_v += tl.sum(q, axis=1).to(tl.float64)
            sum_e += tl.sum(r, axis=1).to(tl.float64)
            sum_uu += tl.sum(p * p, axis=1).to(tl.float64)
            sum_vv += tl.sum(q * q, axis=1).to(tl.float64)
            sum_uv += tl.sum(p * q, axis=1).to(tl.float64)
            sum_ee += tl.sum(r * r, axis=1).to(tl.float64)
            sum_ue += tl.sum(p * r, axis=1).to(tl.float64)
            sum_dd += tl.sum(scaled * scaled, axis=1).to(tl.float64)
            off = tl.abs(apart)
            size_x = tl.abs(near_x)
            fits = (tl.abs(p) <= wide_u) & (tl.abs(q) <= wide_v) & (tl.abs(scaled) <= wide_e)
            notice = (off > 0.0) & ((off >= near_top) | ((size_x > 0.0) & (off > near_ratio * size_x)))
            notice = notice | (fits == 0)
            if tl.max(tl.max(notice.to(tl.int32), axis=1), axis=0) > 0:
                again = tl.maximum(again, 1 - tl.min(tl.min(fits.to(tl.int32), axis=1), axis=0))
                wide_x = near_x.to(tl.float64)
                wide_y = near_y.to(tl.float64)
                both = finite(wide_x) & finite(wide_y)
                gaps = tl.where(both, tl.abs(wide_y - wide_x), -1.0)
                largest = tl.max(tl.max(gaps, axis=1), axis=0)
                numbers = _number(
                    piece_at + inside,
                    size_1,
                    size_2,
                    size_3,
                    stride_0,
                    stride_1,
                    stride_2,
                    stride_3,
                    row_major,
                )
                largest_at = tl.min(tl.min(tl.where(gaps == largest, numbers, nowhere), axis=1), axis=0)
                largest_at = tl.minimum(largest_at, tl.where(largest == top, top_at, nowhere))
                top_at = tl.where(largest < top, top_at, largest_at)
                top = tl.maximum(top, largest)
                over = both & (wide_x != 0.0)
                shares = tl.where(over, gaps / tl.where(over, tl.abs(wide_x), 1.0), 0.0)
                ratio = tl.maximum(ratio, tl.max(tl.max(shares, axis=1), axis=0))
                near_top = top.to(tl.float32)
                near_ratio = _near(ratio)
        if again == 0:
            total_u, total_v, total_e, total_uu = parted(tl.sum(joined(sum_u, sum_v, sum_e, sum_uu), axis=0))
            total_vv, total_uv, total_ee, total_ue = parted(
                tl.sum(joined(sum_vv, sum_uv, sum_ee, sum_ue), axis=0)
            )
            total_u = total_u / scale_u
            total_v = total_v / scale_v
            total_e = total_e / scale_e
            total_uu = total_uu / scale_u / scale_u
            total_vv = total_vv / scale_v / scale_v
            total_uv = total_uv / scale_u / scale_v
            total_ee = total_ee / scale_e / scale_e
            total_ue = total_ue / scale_u / scale_e
            total_dd = tl.sum(sum_dd, axis=0) / scale_e / scale_e

    # In float64: what is left of the share, all of it or only the piece that is no whole one.
    steps: tl.constexpr = (piece + block - 1) // block
    begin = tl.where(again > 0, 0, own * steps)
    end = own * steps + tl.where(whole % programs == program, (n - whole * piece + block - 1) // block, 0)
    if end > begin:
        wide_sum_u = tl.zeros([block], tl.float64)
        wide_sum_v = tl.zeros([block], tl.float64)
        wide_sum_e = tl.zeros([block], tl.float64)
        wide_sum_uu = tl.zeros([block], tl.float64)
        wide_sum_vv = tl.zeros([block], tl.float64)
        wide_sum_uv = tl.zeros([block], tl.float64)
        wide_sum_ee = tl.zeros([block], tl.float64)
        wide_sum_ue = tl.zeros([block], tl.float64)
        wide_sum_dd = tl.zeros([block], tl.float64)
        for step in range(begin, end):
            start = (program + step // steps * programs) * piece + step % steps * block
            position = start + tl.arange(0, block).to(tl.int64)
            there = position < n
            raw_x = tl.load(a + position, mask=there, other=0.0).to(tl.float64)
            raw_y = tl.load(b + position, mask=there, other=0.0).to(tl.float64)
            good_x = finite(raw_x)
            good_y = finite(raw_y)
            good = there & good_x & good_y
            # Others stand at the origins: u and v are 0 there.
            x = tl.where(good, raw_x, origin_a)
            y = tl.where(good, raw_y, origin_b)
            d = tl.where(good, y - x, 0.0)
            u = x - origin_a
            v = y - origin_b
            e = tl.where(good, ((y - lead * x) - origin_e) - rest * u, 0.0)
            wide_sum_u += u
            wide_sum_v += v
            wide_sum_e += e
            wide_sum_uu += u * u
            wide_sum_vv += v * v
            wide_sum_uv += u * v
            wide_sum_ee += e * e
            wide_sum_ue += u * e
            wide_sum_dd += d * d
            gap = tl.abs(d)
            divisible = good & (x != 0.0)
            notable = (gap > 0.0) & ((gap >= top) | (divisible & (gap > ratio * tl.abs(x))))
            notable = notable | (there & (good == 0))
            if (first > 0) | (tl.max(notable.to(tl.int32), axis=0) > 0):
                number = _number(
                    position, size_1, size_2, size_3, stride_0, stride_1, stride_2, stride_3, row_major
                )
                found = tl.max(gap, axis=0)
                found_at = tl.min(tl.where(good & (gap == found), number, nowhere), axis=0)
                known_at = tl.where(found == top, top_at, nowhere)
                top_at = tl.where(found < top, top_at, tl.minimum(found_at, known_at))
                top = tl.maximum(top, found)
                ratios = tl.where(divisible, gap / tl.where(divisible, tl.abs(x), 1.0), 0.0)
                ratio = tl.maximum(ratio, tl.max(ratios, axis=0))
                agree = (raw_x == raw_y) | ((raw_x != raw_x) & (raw_y != raw_y))  # noqa: PLR0124 - NaN alone
                unlike = there & (good == 0) & (agree == 0)
                bad_a += tl.sum((there & (good_x == 0)).to(tl.int32), axis=0)
                bad_b += tl.sum((there & (good_y == 0)).to(tl.int32), axis=0)
                bad += tl.sum((there & (good == 0)).to(tl.int32), axis=0)
                mismatched += tl.sum(unlike.to(tl.int32), axis=0)
                mismatch_at = tl.minimum(mismatch_at, tl.min(tl.where(unlike, number, nowhere), axis=0))
                first = tl.minimum(first, tl.min(tl.where(good, number, nowhere), axis=0))
        more_u, more_v, more_e, more_uu = parted(
            tl.sum(joined(wide_sum_u, wide_sum_v, wide_sum_e, wide_sum_uu), axis=0)
        )
        more_vv, more_uv, more_ee, more_ue = parted(
            tl.sum(joined(wide_sum_vv, wide_sum_uv, wide_sum_ee, wide_sum_ue), axis=0)
        )
        total_u += more_u
        total_v += more_v
        total_e += more_e
        total_uu += more_uu
        total_vv += more_vv
        total_uv += more_uv
        total_ee += more_ee
        total_ue += more_ue
        total_dd += tl.sum(wide_sum_dd, axis=0)

    row = rows + (program + 1) * _COLUMNS
    tl.store(row + 0, total_u)
    tl.store(row + 1, total_v)
    tl.store(row + 2, total_e)
    tl.store(row + 3, total_uu)
    tl.store(row + 4, total_vv)
    tl.store(row + 5, total_uv)
    tl.store(row + 6, total_ee)
    tl.store(row + 7, total_ue)
    tl.store(row + 8, total_dd)
    tl.store(row + _RATIO, ratio)
    tl.store(row + _TOP, top)
    tl.store(row + _TOP_AT, top_at)
    tl.store(row + _BAD_A, bad_a)
    tl.store(row + _BAD_B, bad_b)
    tl.store(row + _BAD, bad)
    tl.store(row + _MISMATCHED, mismatched)
    tl.store(row + _MISMATCH_AT, mismatch_at)
    tl.store(row + _FIRST, first)
