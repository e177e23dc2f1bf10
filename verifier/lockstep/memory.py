"""What Python and the C library do with memory between operators, held back while models run in lockstep."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# mallopt's parameters, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Where glibc's own adjustment ends once a block of 32 MiB was freed: blocks up to there come from the heap, and
# the heap's end goes back to the system when twice as much is free.
_HEAP_BLOCK = 32 * 2**20
_HEAP_SPARE = 2 * _HEAP_BLOCK
_NEVER = 2**31 - 1
_holding: list[bool] = []  # an entry while pages are held


@contextlib.contextmanager
def memory_held() -> Iterator[None]:
    """Keep freed memory for the next tensor, and old objects out of Python's search for cycles.

    torch keeps some 300,000 objects alive; going through them was a twentieth of a ResNet-50's pass. Cycles that the
    models make while they run are still found.
    """
    frozen = gc.get_freeze_count() == 0  # else the program froze objects itself
    with pages_held():
        if frozen:
            gc.freeze()
        try:
            yield
        finally:
            if frozen:
                gc.unfreeze()


@contextlib.contextmanager
def pages_held() -> Iterator[None]:
    """Keep freed memory for the next tensor.

    Models free and allocate activations by the hundred megabytes, and copies of their tensors; giving each to the
    system and taking it back, page by page, was a tenth of a ResNet-50's pass. Afterwards glibc has the thresholds it
    ends at by itself. Within another one this does nothing.
    """
    tune = None if _holding else _tuner()
    if tune is None:
        yield
        return
    tune(_MMAP_THRESHOLD, _HEAP_BLOCK)
    tune(_TRIM_THRESHOLD, _NEVER)
    _holding.append(True)
    try:
        yield
    finally:
        _holding.clear()
        tune(_TRIM_THRESHOLD, _HEAP_SPARE)


@functools.cache
def _tuner() -> Callable[[int, int], int] | None:
    """glibc's `mallopt`; None where the C library is another one, or the user tuned it already."""
    if platform.libc_ver()[0] != "glibc":
        return None
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return None
    try:
        tune = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return None
    tune.argtypes = [ctypes.c_int, ctypes.c_int]
    tune.restype = ctypes.c_int
    return tune
