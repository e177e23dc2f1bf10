"""Ctrl-C before anything has begun: the process ends at once, since there is nothing to unwind.

Imports nothing: it is there before the first import that takes its time, be it only `signal`'s own.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing takes its time
if TYPE_CHECKING:
    from typing import NoReturn

_INTERRUPTED = 130
_SIGINT = 2


def listen() -> None:
    """Answer SIGINT with the end of the process, unless it is ignored or answered otherwise."""
    signals = sys.modules.get(
        "_signal"
    )  # of which `signal` is a dressed-up copy; CPython has it from the start
    if signals is not None and signals.getsignal(_SIGINT) is signals.default_int_handler:
        signals.signal(_SIGINT, end)


def end(*_: object) -> None:
    """Say that nothing was written, and end."""
    os.write(2, b"verifier: interrupted; nothing was written.\n")
    leave()


def leave() -> NoReturn:
    """End, where the user has been told."""
    os._exit(_INTERRUPTED)
