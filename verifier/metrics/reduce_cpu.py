"""Reducing two tensors to moments on the CPU, on as many threads as torch uses."""

from __future__ import annotations

import functools
import itertools
import os
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
        pass_over = _Pass(baseline, candidate, offset)
        moments = pass_over.reduce(pass_over.pilot())
        better = moments.refitted_frame()
        return moments if better is None else pass_over.reduce(_as_array(better))


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
        su, sv, se, suu, svv, suv, see, sue, sdd = sums.sum(axis=0).tolist()
        return Moments(
            elements=self._numbers,
            finite=finite,
            nonfinite_baseline=sum(tally[kernel.NONFINITE_A] for tally in tallies),
            nonfinite_candidate=sum(tally[kernel.NONFINITE_B] for tally in tallies),
            nonfinite_mismatched=sum(tally[kernel.MISMATCHED] for tally in tallies),
            mismatch_index=self._place(mismatch_at),
            max_abs=float(np.int64(max(top, 0)).view(np.float64)),
            max_abs_index=self._place(top_at),
            max_rel=max(share.ratio for share in shares),
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


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="verifier-metrics")


# Threads do not survive a fork: a child makes its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
