"""What a narrow dtype does to a tensor, told against its float64 oracle: overflow, underflow, ulps.

    reading = read(oracle, baseline, candidate)     # on CUDA nothing waits
    (precision,) = collect([reading])               # one transfer for all readings of a device

All is decided on the bits, in integers: flushing of subnormal numbers, on either device, changes nothing.
"""

from __future__ import annotations

import functools
import struct
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from verifier.metrics.bits import as_bits
from verifier.metrics.kernel_torch import CHUNK, CHUNK_CPU
from verifier.metrics.walk import slices
from verifier.records import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Format:
    """Where in a floating-point dtype's magnitudes, read as integers, the kinds of number begin and end.

    Magnitudes below `normal` are subnormal, or 0; above `largest` is only NaN. `infinity` is None where none exists.
    """

    normal: int
    largest: int
    infinity: int | None


# IEEE 754-2019, section 3.4, for its binary formats; bfloat16 is the upper half of float32; float8 after Micikevicius
# and others, "FP8 formats for deep learning", 2022.
FORMATS = {
    torch.float64: Format(1 << 52, 0x7FF << 52, 0x7FF << 52),
    torch.float32: Format(1 << 23, 0xFF << 23, 0xFF << 23),
    torch.bfloat16: Format(1 << 7, 0xFF << 7, 0xFF << 7),
    torch.float16: Format(1 << 10, 0x1F << 10, 0x1F << 10),
    torch.float8_e5m2: Format(1 << 2, 0x1F << 2, 0x1F << 2),
    torch.float8_e4m3fn: Format(1 << 3, 0x7E, None),
}

# Two float64 lie up to 2^64 - 2^53 values apart: from this less, the distance always fits into an int64.
_BIAS = 1 << 63
_LOW = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Reading:
    """Three tensors that were read: counts on the device, a row of int64 a chunk, and what they were counted in."""

    rows: Tensor
    elements: int
    dtypes: tuple[torch.dtype, torch.dtype]

    def merge(self, other: Reading) -> Reading:
        """The reading of both sets of elements together, batches say, of the same dtypes and device."""
        if self.dtypes != other.dtypes:
            raise ValueError(f"cannot merge readings of {self.dtypes} and {other.dtypes}")
        return replace(self, rows=torch.cat([self.rows, other.rows]), elements=self.elements + other.elements)


class _Exact:
    """A chunk of the oracle, and where it is finite and not 0: looked at only if there is anything to ask."""

    def __init__(self, oracle: Tensor) -> None:
        self._oracle = oracle

    @cached_property
    def magnitude(self) -> Tensor:
        return as_bits(self._oracle).bitwise_and(_BIAS - 1)

    @cached_property
    def finite(self) -> Tensor:
        return self.magnitude < FORMATS[torch.float64].largest

    @cached_property
    def nonzero(self) -> Tensor:
        return self.finite & (self.magnitude > 0)


@dataclass(frozen=True, slots=True)
class _Side:
    """One tensor's chunk: its bits, where they are NaN (None: nowhere), and its four counts."""

    bits: Tensor
    nan: Tensor | None
    counts: tuple[Tensor, ...]


def read(oracle: Tensor, baseline: Tensor, candidate: Tensor) -> Reading:
    """Read all three tensors once and keep what `collect` makes a `Precision` of.

    Args:
        oracle: What is right: strided float64 of any shape and strides.
        baseline: Tensor of the same shape and any strides: one of `FORMATS`, or integer or bool, which have neither
            infinities nor units in the last place.
        candidate: Likewise. It and the oracle are brought to the baseline's device piece by piece, which waits for
            the transfer where they lie elsewhere.

    No tensor is changed or copied whole. On CUDA all is queued on the current stream and nothing waits. Other devices
    may lack float64 and are read through the CPU.

    Raises:
        ValueError: The shapes differ, the oracle is not float64, a tensor is not strided, or its dtype is complex
            or a float8 that is not in `FORMATS`.
    """
    _check(oracle, baseline, candidate)
    # Elements in the order of the baseline's memory: the pieces of dense tensors are then dense, too.
    strides = baseline.stride()
    order = sorted(range(baseline.dim()), key=lambda k: -strides[k])
    tensors = [tensor.detach().permute(order) for tensor in (oracle, baseline, candidate)]
    if all(tensor.is_contiguous() for tensor in tensors):
        tensors = [tensor.view(-1) for tensor in tensors]
    if (row := _compiled(tensors)) is not None:
        return Reading(row, baseline.numel(), (baseline.dtype, candidate.dtype))
    limit = CHUNK if baseline.is_cuda else CHUNK_CPU
    device = baseline.device if baseline.is_cuda else torch.device("cpu")
    rows = [
        _row(*(tensor[where].to(device) for tensor in tensors))
        for _, where in slices(tensors[0].shape, limit)
    ]
    return Reading(
        torch.stack(rows) if rows else torch.empty((0, 13), dtype=torch.int64, device=device),
        baseline.numel(),
        (baseline.dtype, candidate.dtype),
    )


def collect(readings: Sequence[Reading]) -> list[Precision]:
    """What all `readings` say, in order: one transfer from each device."""
    by_device: dict[torch.device, list[int]] = defaultdict(list)
    for k, reading in enumerate(readings):
        by_device[reading.rows.device].append(k)
    found: dict[int, Precision] = {}
    for numbers in by_device.values():
        lines = iter(torch.cat([readings[k].rows for k in numbers]).tolist())
        for k in numbers:
            found[k] = _precision([next(lines) for _ in range(len(readings[k].rows))], readings[k])
    return [found[k] for k in range(len(readings))]


def _check(oracle: Tensor, *tensors: Tensor) -> None:
    if oracle.dtype != torch.float64:
        raise ValueError(f"the oracle must be float64, not {oracle.dtype}")
    for tensor in tensors:
        if tensor.shape != oracle.shape:
            raise ValueError(
                f"cannot read a tensor of shape {tuple(tensor.shape)} "
                f"against an oracle of shape {tuple(oracle.shape)}"
            )
        if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype not in FORMATS):
            raise ValueError(f"cannot read the precision of {tensor.dtype}")
    if any(tensor.layout != torch.strided for tensor in (oracle, *tensors)):
        raise ValueError("cannot read the precision of tensors that are not strided")


# So many distances, each at most 2^32, have a sum that fits into an int64.
_MANY = 1 << 30


def _compiled(tensors: Sequence[Tensor]) -> Tensor | None:
    """The row that a compiled loop makes of flat tensors of one float dtype of at most 32 bits on the CPU.

    None where they are others, or where numba is missing: the torch operations below say the same.
    """
    oracle, baseline, candidate = tensors
    dtype = baseline.dtype
    width = dtype.itemsize
    if (
        dtype not in FORMATS
        or candidate.dtype != dtype
        or width not in (2, 4)
        or oracle.dim() != 1
        or not all(tensor.is_cpu for tensor in tensors)
        or not 0 < oracle.numel() <= _MANY
    ):
        return None
    loop = _loop()
    if loop is None:
        return None
    numbers = FORMATS[dtype]
    row = torch.zeros(1, 13, dtype=torch.int64)
    loop(
        *(as_bits(tensor).numpy() for tensor in tensors),
        numbers.normal,
        numbers.largest,
        -1 if numbers.infinity is None else numbers.infinity,
        _double_bits(torch.finfo(dtype).smallest_normal),
        row[0].numpy(),
    )
    return row


@functools.cache
def _loop() -> Callable[..., None] | None:
    """Imported late: numba takes half a second."""
    try:
        from verifier.metrics.precision_cpu import read_flat  # noqa: PLC0415
    except ImportError:
        return None
    return read_flat


# The CPU can be asked at once whether a chunk holds anything unusual, which is cheap and mostly spares the counting.
# On CUDA asking would wait, so there everything is counted.


def _row(oracle: Tensor, baseline: Tensor, candidate: Tensor) -> Tensor:
    """What is kept of a chunk: a vector of 13 int64 in the order in which `_precision` takes them."""
    exact = _Exact(oracle)
    a = _side(baseline, exact)
    none = torch.zeros((), dtype=torch.int64, device=baseline.device)
    if baseline.dtype != candidate.dtype:
        return torch.stack([*a.counts, *_side(candidate, exact).counts, *[none] * 5])
    is_equal = baseline.is_cpu and torch.equal(a.bits, as_bits(candidate))
    b = a if is_equal else _side(candidate, exact)
    unequal = none if is_equal else a.bits.ne(b.bits).any().to(torch.int64)
    ulps = _ulps(a, b) if baseline.dtype in FORMATS else [none] * 4
    return torch.stack([*a.counts, *b.counts, unequal, *ulps])


def _side(tensor: Tensor, exact: _Exact) -> _Side:
    bits = as_bits(tensor)
    over = invalid = under = subnormal = torch.zeros((), dtype=torch.int64, device=tensor.device)
    numbers = FORMATS.get(tensor.dtype)
    if numbers is None:
        return _Side(bits, None, (over, invalid, (bits.eq(0) & exact.nonzero).sum(), subnormal))
    magnitude = bits.bitwise_and(torch.iinfo(bits.dtype).max)
    smallest, largest = 0, numbers.largest
    if tensor.is_cpu:
        smallest, largest = (int(extreme) for extreme in magnitude.aminmax())
    nan = None
    if largest >= numbers.largest:
        nan = magnitude > numbers.largest
        invalid = (nan & exact.finite).sum()
        if numbers.infinity is not None:
            over = (magnitude.eq(numbers.infinity) & exact.finite).sum()
    if smallest < numbers.normal:
        subnormal = _below(magnitude, numbers.normal) - _below(magnitude, 1)
    if smallest == 0:
        # A zero beside a larger number is no underflow: a rectifier makes it where rounding took a number's sign.
        lost = exact.nonzero & (exact.magnitude < _double_bits(torch.finfo(tensor.dtype).smallest_normal))
        under = (magnitude.eq(0) & lost).sum()
    return _Side(bits, nan, (over, invalid, under, subnormal))


def _double_bits(value: float) -> int:
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return int(bits)


def _below(magnitude: Tensor, limit: int) -> Tensor:
    """How many are below a limit: by the sign of the difference, which costs the CPU a third of a comparison."""
    return -((magnitude - limit) >> (8 * magnitude.element_size() - 1)).sum()


def _ulps(a: _Side, b: _Side) -> tuple[Tensor, ...]:
    """Pairs without NaN, the largest distance, and the sum of distances in a high and a low part.

    Neighbouring values are neighbouring integers once those of negative numbers are their negated magnitudes. Such
    places, of twice the width, can be subtracted: no distance is above 2^33. (An int64 holds the sum over a chunk.)
    """
    nans = [side.nan for side in (a, b) if side.nan is not None]
    nan = nans[0] | nans[-1] if nans else None
    wide = a.bits.dtype == torch.int64
    distance = _far(a.bits, b.bits) if wide else (_places(a.bits) - _places(b.bits)).abs_()
    if nan is not None:
        distance = distance.masked_fill_(nan, -_BIAS if wide else 0)
    low = (distance.bitwise_and(_LOW) if wide else distance).sum()
    high = (distance >> 32).sum() if wide else torch.zeros_like(low)
    counted = torch.full_like(low, distance.numel()) if nan is None else nan.numel() - nan.sum()
    return counted, distance.amax().to(torch.int64), high, low


def _places(bits: Tensor) -> Tensor:
    """The number of each value in the order of all values, both zeros being number 0; in twice the width."""
    sign = bits >> (8 * bits.element_size() - 1)  # 0, or -1 for negative numbers: (x ^ -1) - -1 is -x
    place = bits.bitwise_and(torch.iinfo(bits.dtype).max).bitwise_xor_(sign).sub_(sign)
    return place.to(torch.int64 if bits.dtype == torch.int32 else torch.int32)


def _far(a: Tensor, b: Tensor) -> Tensor:
    """The distances of float64 by their bits, less `_BIAS`: from -2^63 on, within int64, also on the way there.

    Numbers of one sign are as far apart as their magnitudes are, which lie in 0 to 2^63 - 1, and so does their
    distance; all of the bias is taken from it. Others are as far apart as both magnitudes together: half of the bias
    is taken from each before they are added, so that both lie in -2^62 to 2^62.
    """
    x, y = (bits.bitwise_and(_BIAS - 1) for bits in (a, b))
    together = (x - _BIAS // 2) + (y - _BIAS // 2)
    return torch.where(a.bitwise_xor(b) < 0, together, (x - y).abs() + -_BIAS)  # -2^63 is an int64, 2^63 none


def _precision(rows: Sequence[Sequence[int]], reading: Reading) -> Precision:
    columns = list(zip(*rows, strict=True)) or [()] * 13
    over_a, invalid_a, under_a, subnormal_a, over_b, invalid_b, under_b, subnormal_b, unequal, counted = (
        sum(column) for column in columns[:10]
    )
    top, high, low = columns[10:]
    one, other = reading.dtypes
    ulp_max = ulp_mean = None
    if one == other and one in FORMATS and counted:
        bias = _BIAS if one == torch.float64 else 0
        ulp_max = max(top) + bias
        total = (sum(high) << 32) + sum(low) + reading.elements * bias
        ulp_mean = total / counted
    return Precision(
        overflowed=(over_a, over_b),
        invalid=(invalid_a, invalid_b),
        underflowed=(under_a, under_b),
        subnormal=(subnormal_a, subnormal_b),
        ulp_max=ulp_max,
        ulp_mean=ulp_mean,
        bit_exact=one == other and unequal == 0,
        elements=reading.elements,
    )
