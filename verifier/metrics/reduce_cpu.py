"""Reducing a walk to moments on the CPU: pieces through compiled loops, on as many threads as torch uses."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from verifier.metrics import kernel_cpu as kernel
from verifier.metrics.convert import (
    as_reals,
    common_dtype,
    keep_integers_apart,
    loses_integers,
    usable_in_place,
)
from verifier.metrics.frame import Frame
from verifier.metrics.moments import Moments
from verifier.metrics.walk import Walk, coordinate, plan

if TYPE_CHECKING:
    from torch import Tensor

# Elements a thread takes at a time. Sums are kept for each piece and added in order, so the figures do not
# depend on the number of threads.
PIECE = 1 << 18
# Elements converted at a time: few enough for the buffers to stay in a second-level cache, and for torch not
# to start threads of its own (its grain is 32,768).
BUFFER = 12 * kernel.BLOCK
# Below this many elements a second thread costs more than it brings.
INLINE = 1 << 17


def reduce(baseline: Tensor, candidate: Tensor, offset: int) -> Moments:
    """The moments of two tensors of equal shape; the candidate may lie on another device than the CPU."""
    reader = _Reader(baseline, candidate)
    n = baseline.numel()
    if n == 0:
        return Moments.empty()
    frame = _pilot(reader)
    moments = _reduce(reader, frame, offset)
    better = moments.refitted_frame()
    return moments if better is None else _reduce(reader, _as_array(better), offset)


class _Reader:
    """Delivers the pieces of a walk as pairs of flat arrays of one dtype."""

    def __init__(self, baseline: Tensor, candidate: Tensor) -> None:
        self.shape = tuple(baseline.shape)
        self.dtype = common_dtype(baseline.dtype, candidate.dtype)
        self.walk: Walk = plan(baseline, candidate)
        self.parts = 2 if self.dtype.is_complex else 1
        self.apart = loses_integers(baseline.dtype, candidate.dtype)
        self.direct = usable_in_place(self.walk.baseline, self.dtype) and usable_in_place(
            self.walk.candidate, self.dtype
        )
        self.limit = (PIECE if self.direct else BUFFER) // self.parts
        sizes, strides = self.walk.sizes, self.walk.strides
        if self.parts == 2:
            # The two parts of an element follow each other: one more, innermost dimension.
            row_major = len(sizes) == 1
            sizes = (2 * sizes[0],) if row_major else (*sizes, 2)
            strides = (1,) if row_major else (*(2 * stride for stride in strides), 1)
        self.sizes = np.array(sizes, dtype=np.int64)
        self.strides = np.array(strides, dtype=np.int64)

    def pieces(self) -> list[tuple[int, Tensor, Tensor]]:
        return list(self.walk.pieces(self.limit))

    def arrays(self, baseline: Tensor, candidate: Tensor) -> tuple[Any, Any]:
        if self.direct:
            if self.parts == 1:
                return baseline.numpy(), candidate.numpy()
            return as_reals(baseline).numpy(), as_reals(candidate).numpy()
        one, two = _buffers(self.dtype)
        a, b = self._converted(baseline, one), self._converted(candidate, two)
        if self.apart:
            keep_integers_apart(baseline, candidate.to("cpu"), a, b)
        return a.numpy(), b.numpy()

    def _converted(self, piece: Tensor, buffer: Tensor) -> Tensor:
        if usable_in_place(piece, self.dtype):
            return as_reals(piece)
        room = buffer[: piece.numel()]
        room.view(piece.shape).copy_(piece)
        return as_reals(room)


def _pilot(reader: _Reader) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The frame about the means of the first block that has elements finite on both sides."""
    frame = _as_array(Frame())
    for _, baseline, candidate in reader.walk.pieces(reader.limit):
        a, b = reader.arrays(baseline, candidate)
        for start in range(0, len(a), kernel.BLOCK):
            if kernel.pilot(a[start : start + kernel.BLOCK], b[start : start + kernel.BLOCK], frame):
                return frame
    return frame


def _reduce(reader: _Reader, frame: np.ndarray[Any, np.dtype[np.float64]], offset: int) -> Moments:
    n = reader.walk.baseline.numel() * reader.parts
    pieces = reader.pieces()
    threads = 1 if n <= INLINE else min(torch.get_num_threads(), len(pieces))
    sums = np.empty((len(pieces), kernel.SUMS))
    if threads == 1:
        shares = [_share(reader, frame, pieces, range(len(pieces)), sums)]
    else:
        bounds = [len(pieces) * k // threads for k in range(threads + 1)]
        ranges = [range(lo, hi) for lo, hi in itertools.pairwise(bounds)]
        tasks = [
            _pool(threads).submit(_share, reader, frame, pieces, numbers, sums) for numbers in ranges[1:]
        ]
        shares = [_share(reader, frame, pieces, ranges[0], sums), *(task.result() for task in tasks)]
    return _moments(reader, frame, offset, sums, shares)


def _share(
    reader: _Reader,
    frame: np.ndarray[Any, np.dtype[np.float64]],
    pieces: list[tuple[int, Tensor, Tensor]],
    numbers: range,
    sums: np.ndarray[Any, np.dtype[np.float64]],
) -> tuple[list[int], float]:
    """One thread's part: fills its rows of `sums`, returns its tally and largest relative difference."""
    tally = np.zeros(kernel.TALLY, dtype=np.int64)
    tally[kernel.MISMATCH_AT] = tally[kernel.TOP] = tally[kernel.TOP_AT] = -1
    ratio = np.zeros(1)
    tops = np.empty(PIECE // kernel.BLOCK, dtype=np.int64)
    with torch.no_grad():
        for number in numbers:
            start, baseline, candidate = pieces[number]
            a, b = reader.arrays(baseline, candidate)
            kernel.reduce_piece(
                a,
                b,
                frame,
                start * reader.parts,
                reader.sizes,
                reader.strides,
                sums[number],
                tally,
                ratio,
                tops,
            )
    return tally.tolist(), float(ratio[0])


def _moments(
    reader: _Reader,
    frame: np.ndarray[Any, np.dtype[np.float64]],
    offset: int,
    sums: np.ndarray[Any, np.dtype[np.float64]],
    shares: list[tuple[list[int], float]],
) -> Moments:
    tallies = [tally for tally, _ in shares]
    top = max(tally[kernel.TOP] for tally in tallies)
    top_at = min((tally[kernel.TOP_AT] for tally in tallies if tally[kernel.TOP] == top), default=-1)
    mismatch_at = min((at for tally in tallies if (at := tally[kernel.MISMATCH_AT]) >= 0), default=-1)
    su, sv, se, suu, svv, suv, see, sue, sdd = sums.sum(axis=0).tolist()

    def place(number: int) -> tuple[int, ...] | None:
        return None if number < 0 else coordinate(number // reader.parts, reader.shape, offset)

    return Moments(
        elements=reader.walk.baseline.numel() * reader.parts,
        finite=sum(tally[kernel.FINITE] for tally in tallies),
        nonfinite_baseline=sum(tally[kernel.NONFINITE_A] for tally in tallies),
        nonfinite_candidate=sum(tally[kernel.NONFINITE_B] for tally in tallies),
        nonfinite_mismatched=sum(tally[kernel.MISMATCHED] for tally in tallies),
        mismatch_index=place(mismatch_at),
        max_abs=float(np.int64(max(top, 0)).view(np.float64)),
        max_abs_index=place(top_at),
        max_rel=max(ratio for _, ratio in shares),
        sum_dd=sdd,
        frame=Frame(*frame.tolist()),
        sum_u=su,
        sum_v=sv,
        sum_e=se,
        sum_uu=suu,
        sum_vv=svv,
        sum_uv=suv,
        sum_ee=see,
        sum_ue=sue,
    )


def _as_array(frame: Frame) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([frame.origin_a, frame.origin_b, frame.origin_e, frame.lead, frame.rest])


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="verifier-metrics")


# Threads do not survive a fork: a child makes its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)

_local = threading.local()


def _buffers(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """This thread's two buffers of `BUFFER` real elements, kept between calls."""
    kept: dict[torch.dtype, tuple[Tensor, Tensor]] = _local.__dict__.setdefault("buffers", {})
    if dtype not in kept:
        elements = BUFFER // (2 if dtype.is_complex else 1)
        # Tensors born in inference mode could not be written to outside it.
        with torch.inference_mode(mode=False):
            kept[dtype] = (
                torch.empty(elements, dtype=dtype, device="cpu"),
                torch.empty(elements, dtype=dtype, device="cpu"),
            )
    return kept[dtype]
