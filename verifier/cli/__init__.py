"""The command line: one module a command, options declared once, no logic.

Nothing heavy is imported before a command needs it: `--help` must not wait for torch.
"""

from __future__ import annotations

import sys
from typing import NoReturn

INTERRUPTED = 130
COULD_NOT_RUN = 3


def app() -> NoReturn:
    """Run the command this process was started for, and end the process with its exit code.

    Ctrl-C is answered here, because importing takes long enough to press it before a command has begun.
    """
    try:
        from verifier.cli import interruption

        interruption.listen()
        _leave(_code())
    except KeyboardInterrupt:  # while this is answered, another does not interrupt
        _leave(INTERRUPTED)


def _leave(code: int) -> NoReturn:
    from verifier.cli import interruption, streams
    from verifier.cli.leaving import leave

    earlier = sys.modules.get("verifier.storage.earlier")
    if code == INTERRUPTED and earlier is not None:
        earlier.settle()
    if code == INTERRUPTED and not interruption.told():
        streams.complain(f"interrupted; {interruption.left()}")
        interruption.tell_nothing()
    leave(code)


def _code() -> int:
    from verifier.border import whereabouts
    from verifier.cli import commands, exits, streams

    whereabouts.begin()
    streams.claim()
    try:
        commands.app()
    except SystemExit as end:
        # Typer's own: for help, for what it does not understand, and for the codes that `exits` was given. It ends
        # with 1 as well, where it cannot write; that must not look like a verdict.
        code = end.code if isinstance(end.code, int) else COULD_NOT_RUN
        return COULD_NOT_RUN if code == 1 and not exits.given() else code
    except Exception as error:  # Python would end with 1, as if something had diverged
        streams.complain(exits.told(error)[0])
        return COULD_NOT_RUN
    return 0
