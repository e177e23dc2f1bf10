"""Reducing two tensors with torch operations alone: on CUDA, without waiting for the device."""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from verifier.metrics.convert import as_reals, common_dtype, keep_integers_apart, loses_integers, parts
from verifier.metrics.frame import Frame
from verifier.metrics.moments import LEADLESS, Moments
from verifier.metrics.walk import coordinate, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Elements reduced at once: on CUDA large enough for few launches, on the CPU small enough for the caches.
CHUNK = 1 << 21
CHUNK_CPU = 1 << 16
# Columns of a row. Numbers of elements are below 2^53: float64 holds them exactly.
WIDTH = 23


@dataclass(frozen=True, slots=True)
class Rows:
    """One row of `WIDTH` float64 per chunk, on the device, and what turns its numbers into coordinates."""

    values: Tensor
    shape: tuple[int, ...]
    parts: int
    offset: int


def reduce(baseline: Tensor, candidate: Tensor, offset: int) -> Rows:
    """One row per chunk, on the baseline's device; a candidate from elsewhere is brought there in pieces."""
    dtype = common_dtype(baseline.dtype, candidate.dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    apart = loses_integers(baseline.dtype, candidate.dtype)
    device = baseline.device if baseline.is_cuda else torch.device("cpu")
    limit = (CHUNK if baseline.is_cuda else CHUNK_CPU) // parts(dtype)
    walk = plan(baseline, candidate)
    sizes, strides = walk.in_parts(parts(dtype))
    rows: list[Tensor] = []
    for start, where in walk.pieces(limit):
        here, there = walk.baseline[where].to(device), walk.candidate[where].to(device)
        x, y = _as_wide(here, wide), _as_wide(there, wide)
        if apart:
            keep_integers_apart(here, there, x, y)
        numbers = _Numbers(start * parts(dtype), sizes, strides)
        rows.append(_row(x, y, numbers))
    values = torch.stack(rows) if rows else torch.empty((0, WIDTH), dtype=torch.float64, device=device)
    return Rows(values, tuple(baseline.shape), parts(dtype), offset)


def reduce_now(baseline: Tensor, candidate: Tensor, offset: int) -> Moments:
    """The moments of two tensors at once, waiting for the device if there is one."""
    (moments,) = fetch([reduce(baseline, candidate, offset)])
    return moments


def fetch(measured: Sequence[Rows]) -> list[Moments]:
    """The moments of each: all rows of a device come over in one transfer."""
    by_device: dict[torch.device, list[int]] = defaultdict(list)
    for k, rows in enumerate(measured):
        by_device[rows.values.device].append(k)
    moments: dict[int, Moments] = {}
    for numbers in by_device.values():
        lines = iter(torch.cat([measured[k].values for k in numbers]).tolist())
        for k in numbers:
            rows = measured[k]
            parts = [_moments(next(lines), rows) for _ in range(len(rows.values))]
            moments[k] = functools.reduce(Moments.merge, parts, Moments.empty())
    return [moments[k] for k in range(len(measured))]


def _as_wide(piece: Tensor, wide: torch.dtype) -> Tensor:
    """A piece as flat float64; a complex one as its real and imaginary parts in turn."""
    return as_reals(piece.to(wide).resolve_conj().resolve_neg().contiguous())


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The logical row-major numbers of the elements of a walk from `start` on."""

    start: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    def lowest(self, chosen: Tensor) -> Tensor:
        """The lowest number of a chosen element; meaningless where none is chosen."""
        if len(self.sizes) == 1:
            return chosen.to(torch.uint8).argmax() + self.start  # the first of several largest
        position = torch.arange(
            self.start, self.start + chosen.numel(), dtype=torch.int64, device=chosen.device
        )
        number = torch.zeros_like(position)
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            number += position.remainder(size) * stride
            position = position.div(size, rounding_mode="floor")
        return number.masked_fill(~chosen, torch.iinfo(torch.int64).max).amin()


def _row(x: Tensor, y: Tensor, numbers: _Numbers) -> Tensor:
    """What is kept of a chunk of float64 elements x and y."""
    good_x, good_y = x.isfinite(), y.isfinite()
    good = good_x & good_y
    bad = ~good
    mismatched = bad & ~(x.eq(y) | (x.isnan() & y.isnan()))
    n = good.sum()
    x = x.masked_fill(bad, 0.0)
    y = y.masked_fill(bad, 0.0)
    d = y - x
    gap = d.abs()
    top = gap.masked_fill(bad, -1.0).amax()
    ratio = (gap / x.abs()).masked_fill(x.eq(0.0), 0.0).amax()

    origin_a, u = _about_mean(x, bad, n)
    origin_b, v = _about_mean(y, bad, n)
    origin_d, w = _about_mean(d, bad, n)
    sum_uu = (u * u).sum()
    sum_uv = (u * v).sum()
    flat = sum_uu.eq(0.0)
    leadless = ((sum_uv / sum_uu).abs() < LEADLESS) & ~flat
    e = torch.where(leadless, v, w)
    rest = ((u * e).sum() / sum_uu).masked_fill(flat, 0.0).nan_to_num(0.0, 0.0, 0.0)
    e = e - rest * u
    columns = (
        torch.full_like(n, x.numel()),
        n,
        x.numel() - good_x.sum(),
        x.numel() - good_y.sum(),
        mismatched.sum(),
        numbers.lowest(mismatched),
        top,
        numbers.lowest(gap.eq(top) & good),
        ratio,
        (d * d).sum(),
        origin_a,
        origin_b,
        torch.where(leadless, origin_b, origin_d),
        (~leadless).to(torch.float64),
        rest,
        u.sum(),
        v.sum(),
        e.sum(),
        sum_uu,
        (v * v).sum(),
        sum_uv,
        (e * e).sum(),
        (u * e).sum(),
    )
    return torch.stack([column.to(torch.float64) for column in columns])


def _about_mean(values: Tensor, bad: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the elements not `bad`, and all elements about it, 0 where bad.

    The mean is taken about the largest element, so that a constant is its own mean exactly.
    """
    largest = values.masked_fill(bad, -torch.inf).amax().masked_fill(n.eq(0), 0.0)
    mean = largest + (values - largest).masked_fill(bad, 0.0).sum() / n.clamp(min=1)
    origin = torch.where(mean.isfinite(), mean, largest.nan_to_num(0.0, 0.0, 0.0))
    return origin, (values - origin).masked_fill(bad, 0.0)


def _moments(line: list[float], rows: Rows) -> Moments:
    def place(number: float) -> tuple[int, ...]:
        return coordinate(int(number) // rows.parts, rows.shape, rows.offset)

    elements, finite, bad_a, bad_b, mismatched, mismatch_at, top, top_at, ratio, sum_dd, *rest = line
    return Moments(
        elements=int(elements),
        finite=int(finite),
        nonfinite_baseline=int(bad_a),
        nonfinite_candidate=int(bad_b),
        nonfinite_mismatched=int(mismatched),
        mismatch_index=place(mismatch_at) if mismatched else None,
        max_abs=max(top, 0.0),
        max_abs_index=place(top_at) if finite else None,
        max_rel=ratio,
        sum_dd=sum_dd,
        frame=Frame(*rest[:5]),
        sum_u=rest[5],
        sum_v=rest[6],
        sum_e=rest[7],
        sum_uu=rest[8],
        sum_vv=rest[9],
        sum_uv=rest[10],
        sum_ee=rest[11],
        sum_ue=rest[12],
    )
