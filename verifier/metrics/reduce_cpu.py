"""Reducing two tensors to moments on the CPU, on as many threads as torch uses."""

from __future__ import annotations

import functools
import itertools
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from verifier.metrics import kernel_cpu as kernel
from verifier.metrics.convert import common_dtype, parts
from verifier.metrics.frame import INITIAL, Frame
from verifier.metrics.moments import Moments
from verifier.metrics.pieces_cpu import PIECE, Pieces, open_pieces
from verifier.metrics.walk import Walk, coordinate, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Array: TypeAlias = "np.ndarray[Any, Any]"

# Up to this many pieces, a millisecond or so, one thread does it all. Right after an operation torch's OpenMP
# threads still spin for the next one, and a second thread beside them has to win its core from them: over the 175
# sites of a ResNet-50, batch 8, sharing smaller tensors was measured to make the comparison slower.
ALONE = 64


def reduce(baseline: Tensor, candidate: Tensor, offset: int) -> Moments:
    """The moments of two tensors of equal shape, wherever they lie."""
    if baseline.numel() == 0:
        return Moments.empty()
    with torch.no_grad():
        small = _small(baseline, candidate) if baseline.numel() <= PIECE else None
        if small is not None:
            return _at_once(*small, tuple(baseline.shape), offset)
        pass_over = _Pass(baseline, candidate, offset)
        moments = pass_over.reduce(pass_over.pilot())
        better = moments.refitted_frame()
        return moments if better is None else pass_over.reduce(_as_array(better))


def _small(baseline: Tensor, candidate: Tensor) -> tuple[Array, Array] | None:
    """Two tensors of one piece that can be read as they lie, as arrays of one dtype; None where they cannot.

    Of hundreds of small tensors what Python does around the loop is what takes time.
    """
    dtypes = baseline.dtype, candidate.dtype
    if not (
        _READ.issuperset(dtypes)
        and baseline.is_cpu
        and candidate.is_cpu
        and baseline.is_contiguous()
        and candidate.is_contiguous()
    ) or (baseline.is_neg() or candidate.is_neg()):
        return None
    if dtypes[0] != dtypes[1]:
        baseline, candidate = baseline.double(), candidate.double()
    return baseline.numpy().reshape(-1), candidate.numpy().reshape(-1)


_READ = frozenset({torch.float32, torch.float64})


class _Scratch(threading.local):
    """What a loop works in, once for each thread."""

    def __init__(self) -> None:
        self.frame, self.sums, self.ratio = np.empty(5), np.empty(kernel.SUMS), np.empty(1)
        self.tally = np.empty(kernel.TALLY, dtype=np.int64)
        self.tops = np.empty(PIECE // kernel.BLOCK, dtype=np.int64)
        self.sizes, self.strides = np.empty(1, dtype=np.int64), np.ones(1, dtype=np.int64)


_scratch = _Scratch()


def _at_once(a: Array, b: Array, shape: tuple[int, ...], offset: int) -> Moments:
    """The moments of one piece, with one call of compiled code."""
    own = _scratch
    own.frame[:] = _INITIAL
    own.sizes[0] = a.size
    kernel.reduce_whole(a, b, own.frame, own.sizes, own.strides, own.sums, own.tally, own.ratio, own.tops)
    moments = _moments_of_piece(a, b, shape, offset)
    better = moments.refitted_frame() if moments.max_abs else None
    if better is None:
        return moments
    own.frame[:] = _as_array(better)
    own.tally[:] = 0
    own.tally[kernel.MISMATCH_AT] = own.tally[kernel.TOP] = own.tally[kernel.TOP_AT] = -1
    own.ratio[0] = 0.0
    kernel.reduce_piece(a, b, own.frame, 0, own.sizes, own.strides, own.sums, own.tally, own.ratio, own.tops)
    return _moments_of_piece(a, b, shape, offset)


def _moments_of_piece(a: Array, b: Array, shape: tuple[int, ...], offset: int) -> Moments:
    own = _scratch
    finite, nonfinite_a, nonfinite_b, mismatched, mismatch_at, top, top_at = own.tally.tolist()
    if top == 0:
        every = finite == a.size
        top_at = 0 if every else kernel.first_top(a, b, 0, 0, own.sizes, own.strides, -1)
    return _moments(
        (finite, nonfinite_a, nonfinite_b, mismatched),
        None if mismatch_at < 0 else coordinate(mismatch_at, shape, offset),
        top,
        None if top_at < 0 else coordinate(top_at, shape, offset),
        float(own.ratio[0]),
        own.sums.tolist(),
        own.frame,
        a.size,
    )


def _moments(
    counts: tuple[int, int, int, int],
    mismatch_index: tuple[int, ...] | None,
    top: int,
    top_index: tuple[int, ...] | None,
    ratio: float,
    sums: Sequence[float],
    frame: Array,
    elements: int,
) -> Moments:
    su, sv, se, suu, svv, suv, see, sue, sdd = sums
    finite, nonfinite_a, nonfinite_b, mismatched = counts
    return Moments(
        elements=elements,
        finite=finite,
        nonfinite_baseline=nonfinite_a,
        nonfinite_candidate=nonfinite_b,
        nonfinite_mismatched=mismatched,
        mismatch_index=mismatch_index,
        max_abs=struct.unpack("<d", struct.pack("<q", max(top, 0)))[0],
        max_abs_index=top_index,
        max_rel=ratio,
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


@dataclass(frozen=True, slots=True)
class _Share:
    """What one thread found, beside its rows of sums."""

    tally: list[int]
    ratio: float


class _Pass:
    """Two tensors and how to go over them, as often as needed."""

    def __init__(self, baseline: Tensor, candidate: Tensor, offset: int) -> None:
        self._shape = tuple(baseline.shape)
        self._offset = offset
        self._walk: Walk = plan(baseline, candidate)
        self._parts = parts(common_dtype(baseline.dtype, candidate.dtype))
        self._numbers = baseline.numel() * self._parts
        self._pieces: Pieces = open_pieces(self._walk)
        sizes, strides = self._walk.in_parts(self._parts)
        self._sizes = np.array(sizes, dtype=np.int64)
        self._strides = np.array(strides, dtype=np.int64)

    def pilot(self) -> Array:
        """The frame about the means of the first block that has elements finite on both sides."""
        frame = _as_array(INITIAL)
        for number in range(self._pieces.count):
            _, a, b = self._pieces.load(number)
            for start in range(0, len(a), kernel.BLOCK):
                if kernel.pilot(a[start : start + kernel.BLOCK], b[start : start + kernel.BLOCK], frame):
                    return frame
        return frame

    def reduce(self, frame: Array) -> Moments:
        """The moments about `frame`.

        Sums are kept for each piece, of a size of its own, and added in order: however many threads share the
        pieces, and however busy they are, every bit is the same.
        """
        count = self._pieces.count
        sums = np.empty((count, kernel.SUMS))
        threads = 1 if count <= ALONE else min(torch.get_num_threads(), count)
        if threads == 1:
            return self._moments(frame, sums, [self._share(frame, sums, range(count))])
        bounds = [count * k // threads for k in range(threads + 1)]
        mine, *others = (range(lo, hi) for lo, hi in itertools.pairwise(bounds))
        tasks = [_pool(threads - 1).submit(self._share, frame, sums, numbers) for numbers in others]
        shares = [self._share(frame, sums, mine), *(task.result() for task in tasks)]
        return self._moments(frame, sums, shares)

    def _share(self, frame: Array, sums: Array, numbers: range) -> _Share:
        tally = np.zeros(kernel.TALLY, dtype=np.int64)
        tally[kernel.MISMATCH_AT] = tally[kernel.TOP] = tally[kernel.TOP_AT] = -1
        ratio = np.zeros(1)
        tops = np.empty(PIECE // kernel.BLOCK, dtype=np.int64)
        with torch.no_grad():  # grad mode belongs to a thread
            for number in numbers:
                start, a, b = self._pieces.load(number)
                kernel.reduce_piece(
                    a, b, frame, start, self._sizes, self._strides, sums[number], tally, ratio, tops
                )
        return _Share(tally.tolist(), float(ratio[0]))

    def _moments(self, frame: Array, sums: Array, shares: list[_Share]) -> Moments:
        tallies = [share.tally for share in shares]
        finite = sum(tally[kernel.FINITE] for tally in tallies)
        top = max(tally[kernel.TOP] for tally in tallies)
        top_at = min((tally[kernel.TOP_AT] for tally in tallies if tally[kernel.TOP] == top), default=-1)
        if top == 0:
            top_at = 0 if finite == self._numbers else self._first_finite()
        mismatch_at = min((at for tally in tallies if (at := tally[kernel.MISMATCH_AT]) >= 0), default=-1)
        counts = (kernel.NONFINITE_A, kernel.NONFINITE_B, kernel.MISMATCHED)
        bad_a, bad_b, mismatched = (sum(tally[column] for tally in tallies) for column in counts)
        return _moments(
            (finite, bad_a, bad_b, mismatched),
            self._place(mismatch_at),
            top,
            self._place(top_at),
            max(share.ratio for share in shares),
            sums.sum(axis=0).tolist(),
            frame,
            self._numbers,
        )

    def _first_finite(self) -> int:
        """The lowest logical number of an element finite on both sides, where all of those agree."""
        known = -1
        for number in range(self._pieces.count):
            start, a, b = self._pieces.load(number)
            known = kernel.first_top(a, b, 0, start, self._sizes, self._strides, known)
            if known == 0 or (known > 0 and self._walk.row_major):
                break
        return known

    def _place(self, number: int) -> tuple[int, ...] | None:
        return None if number < 0 else coordinate(number // self._parts, self._shape, self._offset)


def _as_array(frame: Frame) -> Array:
    return np.array([frame.origin_a, frame.origin_b, frame.origin_e, frame.lead, frame.rest])


_INITIAL = _as_array(INITIAL)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="verifier-metrics")


# Threads do not survive a fork: a child makes its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
