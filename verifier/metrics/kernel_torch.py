"""Reducing two tensors with torch operations alone: on CUDA, without waiting for the device."""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from verifier.metrics.convert import as_reals, common_dtype, keep_integers_apart, loses_integers
from verifier.metrics.frame import Frame
from verifier.metrics.moments import LEADLESS, Moments
from verifier.metrics.walk import Walk, coordinate, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Elements reduced at once: on CUDA large enough that launches are few, on the CPU small enough for the caches.
CHUNK = 1 << 20
CHUNK_CPU = 1 << 16
# Columns of a row. Numbers of elements are below 2^53: float64 holds them exactly.
WIDTH = 23


@dataclass(frozen=True, slots=True)
class Rows:
    """One row of `WIDTH` float64 per chunk, on the device; the shape and the offset."""

    values: Tensor
    shape: tuple[int, ...]
    offset: int


def reduce(baseline: Tensor, candidate: Tensor, offset: int) -> Rows:
    """One row per chunk, on the baseline's device; a candidate from elsewhere is brought there in pieces."""
    dtype = common_dtype(baseline.dtype, candidate.dtype)
    parts = 2 if dtype.is_complex else 1
    wide = torch.complex128 if dtype.is_complex else torch.float64
    apart = loses_integers(baseline.dtype, candidate.dtype)
    device = baseline.device if baseline.is_cuda else torch.device("cpu")
    walk = plan(baseline, candidate)
    rows: list[Tensor] = []
    for start, a, b in walk.pieces((CHUNK if baseline.is_cuda else CHUNK_CPU) // parts):
        there = b.to(device)
        x = as_reals(a.to(device, wide).resolve_conj().resolve_neg().contiguous())
        y = as_reals(there.to(wide).resolve_conj().resolve_neg().contiguous())
        if apart:
            keep_integers_apart(a, there, x, y)
        numbers = _logical_numbers(walk, start, a.numel(), device)
        if parts == 2:
            numbers = torch.stack((numbers, numbers), dim=1).view(-1)
        rows.append(_row(x, y, numbers))
    values = torch.stack(rows) if rows else torch.empty((0, WIDTH), dtype=torch.float64, device=device)
    return Rows(values, tuple(baseline.shape), offset)


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


def _row(x: Tensor, y: Tensor, numbers: Tensor) -> Tensor:
    """What is kept of a chunk of float64 elements x and y whose logical numbers are `numbers`."""
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
        _lowest(numbers, mismatched),
        top,
        _lowest(numbers, gap.eq(top) & good),
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


def _lowest(numbers: Tensor, chosen: Tensor) -> Tensor:
    """The lowest of the chosen numbers, -1 where none is chosen."""
    beyond = torch.iinfo(torch.int64).max
    lowest = numbers.masked_fill(~chosen, beyond).amin()
    return lowest.masked_fill(lowest.eq(beyond), -1)


def _logical_numbers(walk: Walk, start: int, count: int, device: torch.device) -> Tensor:
    """The row-major numbers of the `count` elements of a walk from `start` on."""
    position = torch.arange(start, start + count, dtype=torch.int64, device=device)
    if len(walk.sizes) == 1:
        return position
    number = torch.zeros_like(position)
    for size, stride in zip(reversed(walk.sizes), reversed(walk.strides), strict=True):
        number += position.remainder(size) * stride
        position = position.div(size, rounding_mode="floor")
    return number


def _moments(line: list[float], rows: Rows) -> Moments:
    def place(number: float) -> tuple[int, ...] | None:
        return None if number < 0 else coordinate(int(number), rows.shape, rows.offset)

    elements, finite, bad_a, bad_b, mismatched, mismatch_at, top, top_at, ratio, sum_dd, *rest = line
    return Moments(
        elements=int(elements),
        finite=int(finite),
        nonfinite_baseline=int(bad_a),
        nonfinite_candidate=int(bad_b),
        nonfinite_mismatched=int(mismatched),
        mismatch_index=place(mismatch_at),
        max_abs=max(top, 0.0),
        max_abs_index=place(top_at),
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
