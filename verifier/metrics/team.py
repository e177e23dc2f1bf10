"""Reducing pieces on the team of threads that torch keeps for its own operators.

Right after an operator torch's OpenMP workers are awake and spinning for the next one. Other threads would have to
win their cores from them, which was measured to be slower than one thread alone; as work of the same team it
starts at once and runs at the memory's full speed. On Linux torch's wheels bring GNU's OpenMP runtime, whose
entry point for a parallel region is called here (`GOMP_parallel`, part of its stable interface for compilers).
Where that runtime is not in the process, `team` is None and the caller does without.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from verifier.metrics.kernel_cpu import BLOCK, SUMS, TALLY, reduce_piece

if TYPE_CHECKING:
    from collections.abc import Callable

# What numba and llvmlite say about their types does not cover what is used here.
ir: Any = importlib.import_module("llvmlite.ir")
numba: Any = importlib.import_module("numba")
cgutils: Any = importlib.import_module("numba.core.cgutils")
intrinsic: Any = importlib.import_module("numba.extending").intrinsic
carray: Any = numba.carray
types: Any = numba.types

Array: TypeAlias = npt.NDArray[np.floating[Any]]

# Slots of the task every thread of the team is handed: addresses, then numbers.
A, B, FRAME, SIZES, STRIDES, SUMS_AT, TALLIES, RATIOS, TOPS = range(9)
ELEMENTS, PIECE, COUNT, DIMENSIONS, NEXT = range(9, 14)
SLOTS = 14


@intrinsic  # type: ignore[untyped-decorator]
def _claim(_context: Any, _task: Any) -> Any:
    """The next piece nobody has taken yet: adds one to the slot `NEXT`, atomically."""

    def build(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        slot = builder.gep(arguments[0], [ir.Constant(ir.IntType(64), NEXT)])
        return builder.atomic_rmw("add", slot, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.CPointer(types.int64)), build


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_context: Any, _address: Any) -> Any:
    """An address as a pointer."""

    def build(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), build


def _body(dtype: Any) -> int:
    """The address of what each thread of the team runs, compiled for one dtype."""

    def run(task: Any) -> None:
        slots = carray(task, (SLOTS,), np.int64)
        n, size, count, dimensions = slots[ELEMENTS], slots[PIECE], slots[COUNT], slots[DIMENSIONS]
        a = carray(_pointer(slots[A]), (n,), dtype)
        b = carray(_pointer(slots[B]), (n,), dtype)
        frame = carray(_pointer(slots[FRAME]), (5,), np.float64)
        sizes = carray(_pointer(slots[SIZES]), (dimensions,), np.int64)
        strides = carray(_pointer(slots[STRIDES]), (dimensions,), np.int64)
        sums = carray(_pointer(slots[SUMS_AT]), (count, SUMS), np.float64)
        tallies = carray(_pointer(slots[TALLIES]), (count, TALLY), np.int64)
        ratios = carray(_pointer(slots[RATIOS]), (count, 1), np.float64)
        tops = carray(_pointer(slots[TOPS]), (count, size // BLOCK), np.int64)
        while True:
            k = _claim(task)
            if k >= count:
                break
            start = k * size
            end = min(start + size, n)
            reduce_piece(
                a[start:end],
                b[start:end],
                frame,
                start,
                sizes,
                strides,
                sums[k],
                tallies[k],
                ratios[k],
                tops[k],
            )

    compiled = numba.cfunc(types.void(types.CPointer(types.int64)), cache=True)(run)
    _kept.append(compiled)
    return int(compiled.address)


_kept: list[Any] = []  # compiled code lives as long as its object


@functools.cache
def _bodies(dtype: str) -> int:
    return _body(np.dtype(dtype))


@functools.cache
def team() -> Callable[[int, int, int], None] | None:
    """Starts a parallel region on torch's team (body, task, threads); None where there is no such team."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    try:
        runtime = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)
        enter = runtime.GOMP_parallel
    except (OSError, AttributeError):
        return None
    enter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    enter.restype = None
    return lambda body, task, threads: enter(body, task, threads, 0)


def reduce_pieces(
    a: Array,
    b: Array,
    piece: int,
    frame: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.int64],
    strides: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
    threads: int,
) -> tuple[list[list[int]], list[float]] | None:
    """`kernel_cpu.reduce_piece` over all pieces of two flat arrays: a row of `sums`, a tally and a ratio each.

    Returns None, with nothing done, where torch's team cannot be joined.
    """
    enter = team()
    if enter is None:
        return None
    count = len(sums)
    tallies = np.zeros((count, TALLY), dtype=np.int64)
    tallies[:, 4:] = -1  # no mismatch, no top, no place of one yet
    ratios = np.zeros((count, 1))
    tops = np.empty((count, piece // BLOCK), dtype=np.int64)
    arrays = (a, b, frame, sizes, strides, sums, tallies, ratios, tops)
    task = np.array(
        [*(array.ctypes.data for array in arrays), a.size, piece, count, sizes.size, 0], dtype=np.int64
    )
    enter(_bodies(a.dtype.name), task.ctypes.data, threads)
    return tallies.tolist(), ratios[:, 0].tolist()
