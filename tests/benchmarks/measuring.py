"""Timing in alternation, and peak resident memory of one call."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from typing import TYPE_CHECKING

from verifier.estimate.memory import reset_peak, resident

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def alternate(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each function, called in turn so that the machine's mood is the same for all."""
    for function in functions.values():
        function()  # warm: compiled kernels, thread pools, allocator
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median of the ratios of neighbouring calls."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def peak_memory(function: Callable[[], object]) -> tuple[int, int]:
    """Resident bytes before `function` and at its peak, as the kernel counts them (Linux only).

    Freed memory is given back first; otherwise an earlier call's peak would hide this one's.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    before = resident("VmRSS")
    function()
    return before, resident("VmHWM")
