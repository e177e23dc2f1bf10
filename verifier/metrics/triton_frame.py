"""What the kernel does first on the device: it fits a frame to a sample of the pair.

Compiled code passes no records around, so its functions are long.
"""

from __future__ import annotations

import triton
import triton.language as tl

from verifier.metrics.moments import LEADLESS

_LEADLESS = tl.constexpr(LEADLESS)
# The golden ratio's fraction times 2^31: multiples of it modulo 2^31 spread evenly and follow no stride.
_GOLDEN = tl.constexpr(1640531527)
_GOLDEN_UNIT = tl.constexpr(1 << 31)
# Scales are powers of two in this range: origins and numbers times them are then exact in float32, or too wide.
_HIGHEST = tl.constexpr(100)
# Of float32: what its exponent is stored with on top, and the bits below it.
_BIAS = tl.constexpr(127)
_MANTISSA = tl.constexpr(23)


@triton.jit  # type: ignore[untyped-decorator]
def finite(values: tl.tensor) -> tl.tensor:
    """Where a number is neither NaN nor infinite."""
    return tl.abs(values) < float("inf")


@triton.jit  # type: ignore[untyped-decorator]
def joined(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor) -> tl.tensor:
    """Four vectors as one: a reduction of it exchanges numbers between threads once, which is what takes its time."""
    return tl.join(tl.join(a, c), tl.join(b, d))


@triton.jit  # type: ignore[untyped-decorator]
def parted(four: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """What four numbers put beside each other were reduced to."""
    left, right = tl.split(four)
    a, c = tl.split(left)
    b, d = tl.split(right)
    return a, b, c, d


@triton.jit  # type: ignore[untyped-decorator]
def _origin(largest: tl.tensor, about_it: tl.tensor, count: tl.tensor, narrow: tl.constexpr) -> tl.tensor:
    """The mean, from the sum about the largest element, so that a constant is its own mean exactly.

    Where `narrow`, it is rounded to float32: any origin will do, if only it is the same everywhere.
    """
    mean = largest + about_it / count
    origin = tl.where(finite(mean), mean, largest)
    if narrow:
        origin = origin.to(tl.float32).to(tl.float64)
        origin = tl.where(finite(origin), origin, 0.0)
    return origin


@triton.jit  # type: ignore[untyped-decorator]
def scale(squares: tl.tensor, count: tl.tensor) -> tl.tensor:
    """A power of two that brings numbers of this sum of squares to a mean square near 1; 1 where they are all 0."""
    # A float64's exponent stands above its 52 other bits, 1023 more than it is.
    exponent = ((squares / count).to(tl.int64, bitcast=True) >> 52) - 1023
    power = tl.minimum(tl.maximum(exponent >> 1, -_HIGHEST), _HIGHEST).to(tl.int32)
    power = tl.where(squares > 0.0, power, 0)
    return ((-power + _BIAS) << _MANTISSA).to(tl.float32, bitcast=True).to(tl.float64)


@triton.jit  # type: ignore[untyped-decorator]
def frame(
    a: tl.tensor, b: tl.tensor, n: tl.tensor, sample: tl.constexpr, narrow: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """The least-squares line through a sample, what it says of the whole, and how many of it were finite.

    The elements are drawn one from each of `sample` equal stretches, at changing places: a fixed step would meet the
    same few channels over and over. Where none of them is finite on both sides the frame is `frame.INITIAL`.

    Returns:
        The five numbers of the `Frame`, the largest difference and ratio, the sums of squares of a and b about
        their means, of the differences, and of the residuals, and the number of finite pairs.
    """
    k = tl.arange(0, sample).to(tl.int64)
    low = k * n // sample
    size = (k + 1) * n // sample - low
    chosen = size > 0
    place = low + k * _GOLDEN % _GOLDEN_UNIT * size // _GOLDEN_UNIT
    x = tl.load(a + place, mask=chosen, other=0.0).to(tl.float64)
    y = tl.load(b + place, mask=chosen, other=0.0).to(tl.float64)
    good = chosen & finite(x) & finite(y)
    x = tl.where(good, x, 0.0)
    y = tl.where(good, y, 0.0)
    d = y - x
    lowest = tl.full([sample], -float("inf"), tl.float64)
    largest_x, largest_y, largest_d, _ = parted(
        tl.max(
            joined(tl.where(good, x, lowest), tl.where(good, y, lowest), tl.where(good, d, lowest), lowest),
            axis=0,
        )
    )
    largest_x = tl.where(finite(largest_x), largest_x, 0.0)
    largest_y = tl.where(finite(largest_y), largest_y, 0.0)
    largest_d = tl.where(finite(largest_d), largest_d, 0.0)
    sum_x, sum_y, sum_d, count = parted(
        tl.sum(
            joined(
                tl.where(good, x - largest_x, 0.0),
                tl.where(good, y - largest_y, 0.0),
                tl.where(good, d - largest_d, 0.0),
                good.to(tl.float64),
            ),
            axis=0,
        )
    )
    count = tl.maximum(count, 1.0)
    origin_a = _origin(largest_x, sum_x, count, narrow)
    origin_b = _origin(largest_y, sum_y, count, narrow)
    origin_d = _origin(largest_d, sum_d, count, narrow)
    u = tl.where(good, x - origin_a, 0.0)
    v = tl.where(good, y - origin_b, 0.0)
    w = tl.where(good, d - origin_d, 0.0)
    spread_a, spread_b, spread_d, along = parted(tl.sum(joined(u * u, v * v, d * d, u * v), axis=0))
    beyond, spread_w = tl.split(tl.sum(tl.join(u * w, w * w), axis=0))
    slant = spread_a > 0.0
    length = tl.where(slant, spread_a, 1.0)
    lead = tl.where((tl.abs(along / length) < _LEADLESS) & slant, 0.0, 1.0)
    shared = tl.where(lead == 0.0, along, beyond)
    rest = shared / length
    if narrow:
        rest = rest.to(tl.float32).to(tl.float64)
    rest = tl.where(finite(rest) & slant, rest, 0.0)
    spread_e = tl.where(lead == 0.0, spread_b, spread_w) - shared * (shared / length)
    origin_e = tl.where(lead == 0.0, origin_b, origin_d)
    gap = tl.abs(d)
    divisible = good & (x != 0.0)
    share = tl.where(divisible, gap / tl.where(divisible, tl.abs(x), 1.0), 0.0)
    top, ratio = tl.split(tl.max(tl.join(gap, share), axis=0))
    return (
        origin_a,
        origin_b,
        origin_e,
        lead,
        rest,
        top,
        ratio,
        spread_a,
        spread_b,
        spread_d,
        spread_e,
        count,
    )
