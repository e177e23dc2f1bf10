"""How much memory a step takes, as Linux counts resident pages; elsewhere that is not known."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class Grown:
    """Bytes by which a step's resident memory grew at its peak; 0 where that is not known."""

    grown = 0


@contextlib.contextmanager
def resident_peak() -> Iterator[Grown]:
    """Measure a step, from memory that is given back first: what an earlier one left would hide it."""
    found = Grown()
    if not known():
        yield found
        return
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    before = resident("VmRSS")
    yield found
    found.grown = max(0, resident("VmHWM") - before)


def reset_peak() -> None:
    """Begin anew to note the most that is resident."""
    _REFS.write_text("5", encoding="ascii")


@functools.cache
def known() -> bool:
    """Whether peaks can be measured here."""
    try:
        reset_peak()
    except OSError:
        return False
    return True


def resident(field: str) -> int:
    """Resident bytes: `VmRSS` now, `VmHWM` at the most so far."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0
