"""The command line: one module a command, options declared once, no logic.

Nothing heavy is imported before a command needs it: `--help` must not wait for torch.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130
INTERRUPTION = "verifier: interrupted; nothing was written.\n"


def app() -> None:
    """Run the command this process was started for, and end the process with its exit code."""
    try:
        from verifier.cli import commands

        commands.app()
    except KeyboardInterrupt:  # before a command had begun: importing takes long enough to press Ctrl-C
        sys.stderr.write(INTERRUPTION)
        sys.exit(INTERRUPTED)
