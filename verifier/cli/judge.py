"""`judge`: apply another policy to a saved result, or say which is the tightest that passes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import exits, gating, options, showing, streams
from verifier.cli.rendering import check_result
from verifier.errors import UsageError


def judge(
    directory: options.Result,
    policy: options.PolicyOrOwn = None,
    suggest: Annotated[
        bool,
        typer.Option(
            "--suggest",
            help="Print the tightest policy, as TOML, by which the result passes; --policy says from which to begin.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the result judged anew here; by default nothing is written."),
    ] = None,
    junit: options.Junit = None,
    sarif: options.Sarif = None,
    code_quality: options.CodeQuality = None,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Judge the saved numbers by another policy; nothing is run again."""
    gate = gating.Gate(junit, sarif, code_quality)
    with exits.translated(debug=debug, failed=gate.failed):
        if policy is None and not suggest:
            raise UsageError("judge needs --policy strict|criteria|task|FILE, or --suggest.")
        if suggest and (out is not None or gate.formats.files):
            raise UsageError("--suggest prints a policy and writes nothing; leave the files out.")
        gate.check()
        from datetime import UTC, datetime

        from verifier.gate.breaches import expired
        from verifier.gate.findings import Outcome
        from verifier.gate.policy_files import policy_for
        from verifier.judge.rejudging import judge_again
        from verifier.judge.suggesting import suggested
        from verifier.storage.saving import load, save

        check_result(directory, "a result of `run` is judged")
        saved = load(directory)
        by = policy_for(policy or "strict", saved.baseline_name, saved.candidate.spec, saved.model)
        if suggest:
            text, none = suggested(saved, by)
            if none:
                streams.complain(f"no budget makes this result pass: {none}")
                exits.end(1)
            showing.say(text)
            exits.end(0)
        verification = judge_again(saved, by)
        if out is not None:
            showing.warn(save(verification, out))
        showing.show(verification, out, verbose=verbose)
        failures = expired(by, datetime.now(UTC).date())
        for each in failures:
            streams.complain(each)
        broken = [Outcome.of_policy(str(policy), failures)] if failures else []
        gate.ended([Outcome.of(verification), *broken])
        exits.end(1 if failures else exits.EXIT_CODES[verification.verdict])
