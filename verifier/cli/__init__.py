"""The command line: one module a command, options declared once, no logic.

Nothing heavy is imported before a command needs it: `--help` must not wait for torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

INTERRUPTED = 130
COULD_NOT_RUN = 3

_exit = os._exit  # as it is before a program could put another in its place


def app() -> NoReturn:
    """Run the command this process was started for, and end the process with its exit code.

    Ctrl-C is answered here, because importing takes long enough to press it before a command has begun.
    """
    try:
        from verifier.cli import interruption

        interruption.listen(lambda: _leave(INTERRUPTED))
        _leave(_code())
    except KeyboardInterrupt:  # while this is answered, another does not interrupt
        _leave(INTERRUPTED)


def _leave(code: int) -> NoReturn:
    """Say what is left to say, write what is still unwritten, and end at once.

    What was loaded gets no say in it: no exit handlers run and no threads are waited for, since either could change
    the exit code, or never end. And had Ctrl-C met an exec() of source text, as in making a dataclass, CPython would
    put death of SIGINT in the place of an ordinary exit. All is unwound by now: nothing is lost.
    """
    from verifier.border import heartbeat
    from verifier.cli import interruption, streams

    earlier = sys.modules.get("verifier.storage.earlier")
    if code == INTERRUPTED and earlier is not None:
        earlier.settle()
    if code == INTERRUPTED and not interruption.told():
        streams.complain(f"interrupted; {interruption.left()}")
        interruption.tell_nothing()
    with contextlib.suppress(Exception):
        streams.flush()
        streams.out().flush()
        streams.err().flush()
    heartbeat.ended(code)
    _exit(code)


def _code() -> int:
    from verifier.border import heartbeat
    from verifier.cli import commands, exits, interruption, streams

    heartbeat.begin()
    streams.claim()
    try:
        commands.app()
    except SystemExit as end:
        # Typer's own: for help, for what it does not understand, and for the codes that `exits` was given. It ends
        # with 1 as well, where it cannot write; that must not look like a verdict.
        code = end.code if isinstance(end.code, int) else COULD_NOT_RUN
        return COULD_NOT_RUN if code == 1 and not exits.given() else code
    except Exception as error:  # Python would end with 1, as if something had diverged
        if interruption.answered():
            return INTERRUPTED
        streams.complain(exits.told(error)[0])
        return COULD_NOT_RUN
    return 0
