"""The command line: one module a command, options declared once, no logic.

Nothing heavy is imported before a command needs it: `--help` must not wait for torch.
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130

written: list[str] = []
"""Folders with results of networks that were finished before the command was: what an interruption leaves."""


def app() -> None:
    """Run the command this process was started for, and end the process with its exit code.

    Ctrl-C is answered here, because importing takes long enough to press it before a command has begun.
    """
    try:
        from verifier.cli import interruption

        interruption.listen()
        from verifier.cli import commands

        commands.app()
    except (KeyboardInterrupt, SystemExit) as end:  # typer turns the first into the second
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        left = f"results are in {', '.join(written)}" if written else "nothing was written"
        sys.stderr.write(f"verifier: interrupted; {left}.\n")
        sys.stderr.flush()
        # If Ctrl-C met an exec() of source text, as in making a dataclass, CPython would replace an ordinary
        # exit's code by death of SIGINT, though the interruption was caught. All is unwound: nothing is lost.
        os._exit(INTERRUPTED)
