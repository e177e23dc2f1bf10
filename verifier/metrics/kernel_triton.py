"""Reducing two dense tensors on CUDA with one fused kernel that reads each once.

Two launches queue a pair: `fix_frame`, one program, fits a frame to a sample; `reduce_blocks`, a few programs
for each multiprocessor, adds up everything about that frame in float64. Only `measure` decides whether this
module is imported: Triton comes with torch on Linux and nowhere else.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from verifier.metrics import partials
from verifier.metrics.moments import LEADLESS
from verifier.metrics.partials import Partials
from verifier.metrics.walk import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

REALS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
# Elements the frame is fitted to, a power of two. Sums lose a factor of at most about n / SAMPLE of accuracy
# where the sample looks like nothing else in the tensor (see `Frame`), and next to nothing where it does.
SAMPLE = 4096
# Elements a program reads at once, and its warps: two elements for each thread. Nine float64 sums for each of
# them then take about 130 registers a thread, which lets three or four programs run beside each other.
BLOCK = 256
WARPS = 4
# Blocks loaded ahead of the one at work, which hides the memory's latency.
_STAGES = tl.constexpr(4)
# About as many as run at once: more would only leave more rows to add up.
PROGRAMS_PER_MULTIPROCESSOR = 4
# Products may be added without being rounded first: y - x has none in it, and in y - lead * x it is exact.
# Said at every launch, since Triton 3.9 warns that its default will change.
FUSION = True
# Dimensions a walk may have once those that follow each other in both orders are one.
DIMENSIONS = 4

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
_SAMPLE_TOP = tl.constexpr(partials.SAMPLE_TOP)
_SAMPLE_RATIO = tl.constexpr(partials.SAMPLE_RATIO)
_ELEMENTS = tl.constexpr(partials.ELEMENTS)
_NOWHERE = tl.constexpr(partials.NOWHERE)
_LEADLESS = tl.constexpr(LEADLESS)
# The golden ratio's fraction times 2^31: multiples of it modulo 2^31 spread evenly and follow no stride.
_GOLDEN = tl.constexpr(1640531527)
_GOLDEN_UNIT = tl.constexpr(1 << 31)


def on(device: torch.device) -> Callable[[Tensor, Tensor, int], Partials | None]:
    """`reduce` for tensors of this CUDA device; whatever Triton lacks to run there is raised now."""
    interpreted = not isinstance(reduce_blocks, triton.JITFunction)
    if interpreted:
        raise RuntimeError("kernels are interpreted (TRITON_INTERPRET): far slower than torch operations")
    programs = PROGRAMS_PER_MULTIPROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
    few = torch.zeros(16, device=device)
    reduce(few, few, 0, programs)
    return functools.partial(reduce, programs=programs)


def reduce(baseline: Tensor, candidate: Tensor, offset: int, programs: int) -> Partials | None:
    """Queue the reduction of two tensors of equal shape, or return None where that takes other code.

    Taken are tensors on one device, of any two of the dtypes in `REALS`, not empty, whose elements are dense
    and in the same order in memory: contiguous, channels-last, or permuted so that up to `DIMENSIONS` groups
    of dimensions remain.
    """
    if baseline.dtype not in REALS or candidate.dtype not in REALS or baseline.device != candidate.device:
        return None
    if baseline.is_neg() or candidate.is_neg():  # their memory holds the opposite of what they stand for
        return None
    n = baseline.numel()
    walk = plan(baseline, candidate)
    if n == 0 or not walk.dense:
        return None
    sizes, strides = merged(walk.sizes, walk.strides)
    missing = (DIMENSIONS - len(sizes)) * (1,)
    if len(sizes) > DIMENSIONS:
        return None
    values = torch.empty((1 + programs, partials.WIDTH), dtype=torch.float64, device=baseline.device)
    a, b = walk.baseline, walk.candidate
    # Triton launches on the current device, whatever the tensors' is.
    with torch.cuda.device_of(values):  # type: ignore[no-untyped-call]
        fix_frame[(1,)](a, b, values, n, SAMPLE, num_warps=8, enable_fp_fusion=FUSION)
        reduce_blocks[(programs,)](
            a,
            b,
            values,
            n,
            *(*missing, *sizes)[1:],
            *missing,
            *strides,
            len(sizes) == 1,
            BLOCK,
            num_warps=WARPS,
            enable_fp_fusion=FUSION,
        )
    return Partials(values, tuple(baseline.shape), offset)


def merged(sizes: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A walk's `sizes` and `strides` with dimensions that are one longer dimension in both orders made one."""
    found = [(sizes[0], strides[0])]
    for size, stride in zip(sizes[1:], strides[1:], strict=True):
        outer, outer_stride = found[-1]
        if outer_stride == size * stride:
            found[-1] = (outer * size, stride)
        else:
            found.append((size, stride))
    return tuple(size for size, _ in found), tuple(stride for _, stride in found)


@triton.jit  # type: ignore[untyped-decorator]
def _finite(values: tl.tensor) -> tl.tensor:
    return tl.abs(values) < float("inf")


@triton.jit  # type: ignore[untyped-decorator]
def _about_mean(values: tl.tensor, good: tl.tensor, count: tl.tensor) -> tl.tensor:
    """The mean of the good elements, and all elements about it, 0 where not good.

    The mean is taken about the largest element, so that a constant is its own mean exactly.
    """
    largest = tl.max(tl.where(good, values, -float("inf")), axis=0)
    largest = tl.where(_finite(largest), largest, 0.0)
    mean = largest + tl.sum(tl.where(good, values - largest, 0.0), axis=0) / count
    origin = tl.where(_finite(mean), mean, largest)
    return origin, tl.where(good, values - origin, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def fix_frame(a: tl.tensor, b: tl.tensor, rows: tl.tensor, n: tl.tensor, sample: tl.constexpr) -> None:
    """Write the frame's row: the least-squares line through `sample` elements, all if there are no more.

    `a` and `b` are n elements each in the same order. The elements are drawn one from each of `sample` equal
    stretches, at changing places: a fixed step would meet the same few channels over and over. Where none of
    them is finite on both sides the frame is `frame.INITIAL`.
    """
    k = tl.arange(0, sample).to(tl.int64)
    low = k * n // sample
    size = (k + 1) * n // sample - low
    chosen = size > 0
    position = low + k * _GOLDEN % _GOLDEN_UNIT * size // _GOLDEN_UNIT
    x = tl.load(a + position, mask=chosen, other=0.0).to(tl.float64)
    y = tl.load(b + position, mask=chosen, other=0.0).to(tl.float64)
    good = chosen & _finite(x) & _finite(y)
    x = tl.where(good, x, 0.0)
    y = tl.where(good, y, 0.0)
    d = y - x
    count = tl.maximum(tl.sum(good.to(tl.int32), axis=0), 1).to(tl.float64)
    origin_a, u = _about_mean(x, good, count)
    origin_b, v = _about_mean(y, good, count)
    origin_d, w = _about_mean(d, good, count)
    sum_uu = tl.sum(u * u, axis=0)
    flat = sum_uu == 0.0
    scale = tl.where(flat, 1.0, sum_uu)
    slope = tl.sum(u * v, axis=0) / scale
    lead = tl.where((tl.abs(slope) < _LEADLESS) & (sum_uu > 0.0), 0.0, 1.0)
    rest = tl.sum(u * tl.where(lead == 0.0, v, w), axis=0) / scale
    rest = tl.where(_finite(rest) & (sum_uu > 0.0), rest, 0.0)
    gap = tl.abs(d)
    divisible = good & (x != 0.0)
    ratio = tl.where(divisible, gap / tl.where(divisible, tl.abs(x), 1.0), 0.0)
    tl.store(rows + 0, origin_a)
    tl.store(rows + 1, origin_b)
    tl.store(rows + 2, tl.where(lead == 0.0, origin_b, origin_d))
    tl.store(rows + 3, lead)
    tl.store(rows + 4, rest)
    tl.store(rows + _SAMPLE_TOP, tl.max(gap, axis=0))
    tl.store(rows + _SAMPLE_RATIO, tl.max(ratio, axis=0))
    tl.store(rows + _ELEMENTS, n)


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
) -> tl.tensor:
    """The logical row-major number of the elements at `position` in a walk, outermost dimension first."""
    number = (position % size_3) * stride_3
    position = position // size_3
    number += (position % size_2) * stride_2
    position = position // size_2
    number += (position % size_1) * stride_1
    return number + (position // size_1) * stride_0


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
def reduce_blocks(  # noqa: PLR0915 - compiled code passes no records around
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
    block: tl.constexpr,
) -> None:
    """Write each program's row about the frame in the first: the programs take the blocks in turn.

    `a` and `b` are n elements each in the same order; `size_*` and `stride_*` say which (see `walk.Walk`), the
    outermost dimension having the size that the others leave.
    What most blocks lack is left to a branch: an element that is not finite, a difference that may be the
    largest, a ratio larger than those before. Both maxima start from the sample's, so few blocks have one.
    """
    program = tl.program_id(0).to(tl.int64)
    origin_a = tl.load(rows + 0)
    origin_b = tl.load(rows + 1)
    origin_e = tl.load(rows + 2)
    lead = tl.load(rows + 3)
    rest = tl.load(rows + 4)
    top = tl.load(rows + _SAMPLE_TOP)
    ratio = tl.load(rows + _SAMPLE_RATIO)
    # Where the very first element is finite, no other is the first that is.
    begun = _finite(tl.load(a).to(tl.float64)) & _finite(tl.load(b).to(tl.float64))
    nowhere = tl.full((), _NOWHERE, tl.int64)
    first = tl.where(begun, 0, nowhere)
    top_at = nowhere
    mismatch_at = nowhere
    bad_a = tl.full((), 0, tl.int64)
    bad_b = tl.full((), 0, tl.int64)
    bad = tl.full((), 0, tl.int64)
    mismatched = tl.full((), 0, tl.int64)
    sum_u = tl.zeros([block], tl.float64)
    sum_v = tl.zeros([block], tl.float64)
    sum_e = tl.zeros([block], tl.float64)
    sum_uu = tl.zeros([block], tl.float64)
    sum_vv = tl.zeros([block], tl.float64)
    sum_uv = tl.zeros([block], tl.float64)
    sum_ee = tl.zeros([block], tl.float64)
    sum_ue = tl.zeros([block], tl.float64)
    sum_dd = tl.zeros([block], tl.float64)
    for start in tl.range(program * block, n, tl.num_programs(0) * block, num_stages=_STAGES):
        position = start + tl.arange(0, block).to(tl.int64)
        there = position < n
        raw_x = tl.load(a + position, mask=there, other=0.0).to(tl.float64)
        raw_y = tl.load(b + position, mask=there, other=0.0).to(tl.float64)
        good_x = _finite(raw_x)
        good_y = _finite(raw_y)
        good = there & good_x & good_y
        # Others stand at the origins: u and v are 0 there.
        x = tl.where(good, raw_x, origin_a)
        y = tl.where(good, raw_y, origin_b)
        d = tl.where(good, y - x, 0.0)
        u = x - origin_a
        v = y - origin_b
        # What is exact for close sides comes first.
        e = tl.where(good, ((y - lead * x) - origin_e) - rest * u, 0.0)
        sum_u += u
        sum_v += v
        sum_e += e
        sum_uu += u * u
        sum_vv += v * v
        sum_uv += u * v
        sum_ee += e * e
        sum_ue += u * e
        sum_dd += d * d
        gap = tl.abs(d)
        divisible = good & (x != 0.0)
        notable = (gap > 0.0) & ((gap >= top) | (divisible & (gap > ratio * tl.abs(x))))
        notable = notable | (there & (good == 0))
        if (first > 0) | (tl.max(notable.to(tl.int32), axis=0) > 0):
            if row_major:
                number = position
            else:
                number = _number(position, size_1, size_2, size_3, stride_0, stride_1, stride_2, stride_3)
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
    row = rows + (program + 1) * _COLUMNS
    tl.store(row + 0, tl.sum(sum_u, axis=0))
    tl.store(row + 1, tl.sum(sum_v, axis=0))
    tl.store(row + 2, tl.sum(sum_e, axis=0))
    tl.store(row + 3, tl.sum(sum_uu, axis=0))
    tl.store(row + 4, tl.sum(sum_vv, axis=0))
    tl.store(row + 5, tl.sum(sum_uv, axis=0))
    tl.store(row + 6, tl.sum(sum_ee, axis=0))
    tl.store(row + 7, tl.sum(sum_ue, axis=0))
    tl.store(row + 8, tl.sum(sum_dd, axis=0))
    tl.store(row + _RATIO, ratio)
    tl.store(row + _TOP, top)
    tl.store(row + _TOP_AT, top_at)
    tl.store(row + _BAD_A, bad_a)
    tl.store(row + _BAD_B, bad_b)
    tl.store(row + _BAD, bad)
    tl.store(row + _MISMATCHED, mismatched)
    tl.store(row + _MISMATCH_AT, mismatch_at)
    tl.store(row + _FIRST, first)
