"""`judge`: apply another policy to a saved result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import exits, gating, options, showing


def judge(
    directory: options.Result,
    policy: options.Policy,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the result judged anew here; by default nothing is written."),
    ] = None,
    junit: options.Junit = None,
    sarif: options.Sarif = None,
    code_quality: options.CodeQuality = None,
    debug: options.Debug = False,
) -> None:
    """Judge the saved numbers by another policy; nothing is run again."""
    gate = gating.Gate(junit, sarif, code_quality)
    with exits.translated(debug=debug, failed=gate.failed):
        gate.check()
        from verifier.gate.findings import Outcome
        from verifier.judge.policy import Policy
        from verifier.judge.rejudging import judge_again
        from verifier.storage.saving import load, save

        verification = judge_again(load(directory), Policy.load(policy))
        if out is not None:
            showing.warn(save(verification, out))
        showing.show(verification, out)
        gate.ended([Outcome.of(verification)])
        exits.by(verification.verdict)
