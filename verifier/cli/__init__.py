"""The command line: one module a command, options declared once, no logic.

Nothing heavy is imported before a command needs it: `--help` must not wait for torch.
"""

from __future__ import annotations

import io
import os
import sys

INTERRUPTED = 130


def app() -> None:
    """Run the command this process was started for, and end the process with its exit code.

    Ctrl-C is answered here, because importing takes long enough to press it before a command has begun.
    """
    try:
        from verifier.cli import interruption

        interruption.listen()
        if isinstance(
            sys.stdout, io.TextIOWrapper
        ):  # what cannot be encoded is spelt out, as it is on stderr
            sys.stdout.reconfigure(errors="backslashreplace")
        from verifier.cli import commands

        commands.app()
    except (KeyboardInterrupt, SystemExit) as end:  # typer turns the first into the second
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        left = sys.modules.get("verifier.cli.interruption")
        said = left.left() if left is not None else "nothing was written."
        sys.stderr.write(f"verifier: interrupted; {said}\n")
        sys.stderr.flush()
        # If Ctrl-C met an exec() of source text, as in making a dataclass, CPython would replace an ordinary
        # exit's code by death of SIGINT, though the interruption was caught. All is unwound: nothing is lost.
        os._exit(INTERRUPTED)
