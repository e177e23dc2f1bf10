"""git, asked in a few words: it is read only, unless a command is given that writes."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PATIENCE = 5.0  # seconds git may take over a large tree


def ask(*arguments: str, given: str = "", patience: float = _PATIENCE) -> str | None:
    """What git says here; None where there is no repository, no git, or no answer in a few seconds."""
    try:
        done = run(*arguments, given=given, patience=patience)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def run(
    *arguments: str,
    given: str = "",
    at: Path | None = None,
    patience: float | None = None,
    environment: Mapping[str, str] | None = None,
    apart: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run git to its end, whatever its exit code is.

    Args:
        arguments: The command.
        given: What it reads from its standard input.
        at: The directory it works in; None for the process's own.
        patience: Seconds it may take; None for as long as it takes.
        environment: Variables besides those of the process; by default no optional lock is taken.
        apart: Whether Ctrl-C at the terminal is kept from it.

    Raises:
        OSError: There is no git.
        subprocess.TimeoutExpired: It took longer.
    """
    found = shutil.which("git")
    if found is None:
        raise FileNotFoundError("git is not installed")
    return subprocess.run(  # noqa: S603 - git, as found on the path, with arguments of ours
        # No monitor that the repository names is started.
        [found, "-c", "core.fsmonitor=false", *arguments],
        cwd=at,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=patience,
        check=False,
        input=given,
        env={**os.environ, **({"GIT_OPTIONAL_LOCKS": "0"} if environment is None else environment)},
        start_new_session=apart,
    )
