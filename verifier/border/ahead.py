"""Who wants to be told, before a long run, how long it will take: measuring that costs a moment."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_tell: ContextVar[Callable[[float], None] | None] = ContextVar("tell", default=None)


@contextlib.contextmanager
def heard_by(tell: Callable[[float], None]) -> Iterator[None]:
    """Have `tell` called with the seconds that are left, where these are many."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


def listener() -> Callable[[float], None] | None:
    """Whoever wants to hear; None where nobody does."""
    return _tell.get()
