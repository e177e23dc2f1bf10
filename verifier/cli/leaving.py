"""The end of the process, with the exit code that was meant."""

from __future__ import annotations

import contextlib
import os
from typing import NoReturn

from verifier.border import whereabouts
from verifier.cli import streams

_exit = os._exit  # as it was before a program could put another in its place


def leave(code: int) -> NoReturn:
    """Write what is still unwritten, and end at once.

    What was loaded gets no say in it: no exit handlers run and no threads are waited for, since either could change
    the exit code, or never end. And had Ctrl-C met an exec() of source text, as in making a dataclass, CPython would
    put death of SIGINT in the place of an ordinary exit. All is unwound by now: nothing is lost.
    """
    with contextlib.suppress(Exception):
        streams.flush()
        streams.out().flush()
        streams.err().flush()
    whereabouts.ended(code)
    _exit(code)
