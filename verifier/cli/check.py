"""`check`: verify everything that a policy's file names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.border.garbage import collecting_seldom
from verifier.cli import exits, gating, isolating, options, showing
from verifier.errors import UsageError


def check(
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file that names models; by default the next pyproject.toml with a table [tool.verifier].",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Where check.html and check.json go, and each model's result in a folder there.",
        ),
    ] = Path("verifier-report"),
    junit: options.Junit = None,
    sarif: options.Sarif = None,
    code_quality: options.CodeQuality = None,
    only_one: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="NAME", help="One model of the file alone; in check.html it is marked as later."
        ),
    ] = None,
    isolate: options.Isolate = False,
    timeout: options.Timeout = None,
    history: options.History = None,
    no_history: options.NoHistory = False,
    debug: options.Debug = False,
) -> None:
    """Verify all models that a policy's file names, and hold them to it."""
    gate = gating.Gate(junit, sarif, code_quality, str(policy or "pyproject.toml"))
    with exits.translated(debug=debug, failed=gate.failed), collecting_seldom():
        gate.check()
        isolating.where_asked(timeout, isolate=isolate)
        if no_history and history is not None:
            raise UsageError("--history and --no-history exclude each other.")
        with showing.progress_bar("importing torch"):
            from verifier.cli.checking import carry_out, only, planned
            from verifier.gate import policy_files
            from verifier.gate.history import place

            found = policy_files.read(policy or policy_files.find(Path.cwd()))
            found = found if only_one is None else only(found, only_one)
            tasks = planned(found, out, place(history, never=no_history))
        carry_out(found, tasks, out, gate.ended, whole=only_one is None, debug=debug)
