"""How often Python looks for unreachable cycles among objects."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# New containers before the youngest are looked through, and rounds of that before older ones are. Each copy of a
# deep network makes some hundred thousand containers that live on; with Python's own 700, 10 and 10 a seventh of a
# comparison of ResNet-1202 with its twin went into looking through them. What is looked for here, cycles that hold
# memory, is rare: lanes take apart what they hold when they are closed.
_THRESHOLDS = (50_000, 20, 100)


@contextlib.contextmanager
def collecting_seldom() -> Iterator[None]:
    """Let the collector of cycles run less often; it is as before on the way out, also after an exception."""
    before = gc.get_threshold()
    if before[0]:  # 0 is off, and stays so
        gc.set_threshold(*map(max, _THRESHOLDS, before))
    try:
        yield
    finally:
        gc.set_threshold(*before)
