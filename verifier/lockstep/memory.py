"""What Python and the C library do with memory between operators, held back while models run in lockstep."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import mmap
import os
import platform
from pathlib import Path
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
_PAGES = 128 * 2**10  # where glibc begins
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


class Gaps:
    """Gives back what is free between small objects, where these were kept in the places of tensors.

    glibc lays a tensor of the same size there no more, so a deep model would take more memory with every layer. It is
    looked for now and then: memory that is given back costs time when it is taken again.
    """

    def __init__(self) -> None:
        self._count = 0
        self._limit = _grown(_resident())

    def look(self) -> None:
        """Give it back where much more is resident than at first, or than after the last time."""
        self._count += 1
        if self._count % _LOOK or _resident() <= self._limit or not _holding:
            return
        ctypes.CDLL(None).malloc_trim(0)
        self._limit = max(self._limit, _grown(_resident()))


def _resident() -> int:
    """Resident bytes, 0 where the system does not tell."""
    try:
        pages = _STATM.read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * mmap.PAGESIZE


def _grown(resident: int) -> int:
    return resident + resident // 8 + 4 * _HEAP_BLOCK


_STATM = Path("/proc/self/statm")
_LOOK = 16  # pairs


@contextlib.contextmanager
def pages_returned() -> Iterator[None]:
    """Give what is allocated here back to the system as soon as it is freed.

    For calls that leave something small behind, which would lie where tensors were and keep the next ones out.
    """
    tune = _tuner()
    if tune is None:
        yield
        return
    tune(_MMAP_THRESHOLD, _PAGES)
    try:
        yield
    finally:
        tune(_MMAP_THRESHOLD, _HEAP_BLOCK)


def give_back() -> None:
    """Give what is free to the system, between small objects too; what runs next takes other sizes."""
    if _tuner() is not None:
        ctypes.CDLL(None).malloc_trim(0)


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
