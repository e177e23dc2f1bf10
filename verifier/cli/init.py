"""`init`: compare the values two models start from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import exits, options, showing
from verifier.cli.planning import command_line, placed, plan_models


def init(
    arch: options.Arch = None,
    baseline: options.Baseline = None,
    candidate: options.Candidate = None,
    baseline_path: options.BaselinePath = None,
    candidate_path: options.CandidatePath = None,
    seed: options.Seed = 0,
    draws: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1000,
            help="How often to build each model where bits differ; by default as often as small tensors need.",
        ),
    ] = None,
    error_rate: Annotated[
        float,
        typer.Option(metavar="P", help="The chance of any false alarm between models initialised alike."),
    ] = 1e-3,
    map_file: options.Map = None,
    input_file: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE|SPEC",
            help="What both models run on once, where their tensors have other names; images by default.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where initialisation.json and its page go; by default nothing is written."
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Compare what two models start from: the same bits, or draws from the same distributions."""
    with exits.translated(debug=debug):
        baseline = placed(baseline, baseline_path, "--baseline-path")
        candidate = placed(candidate, candidate_path, "--candidate-path")
        specs = plan_models(arch, baseline, candidate)
        with showing.progress_bar("importing torch") as progress, contextlib.ExitStack() as stack:
            from verifier import inputs
            from verifier.initialisation.comparing import verify_initialisation
            from verifier.initialisation.saving import INITIALISATION, PAGE, save_initialisation
            from verifier.storage.earlier import awaiting
            from verifier.storage.saving import check_writable
            from verifier.weights import read_map

            if out is not None:
                check_writable(out)
            stack.enter_context(awaiting(out, (INITIALISATION, PAGE)))
            known = None if map_file is None else read_map(map_file)
            given = None if input_file is None else inputs.read(input_file, seed)
            progress("building models", 0, 0)
            result = verify_initialisation(
                *specs,
                seed=seed,
                draws=draws,
                error_rate=error_rate,
                parameter_map=known,
                inputs=given,
                command=command_line(),
            )
            if out is not None:
                showing.warn(save_initialisation(result, out))
        showing.show_initialisation(result, None if out is None else out / PAGE)
        exits.by(result.verdict)
