"""`run`: compare a candidate with its baseline."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from verifier.border.garbage import collecting_seldom
from verifier.cli import exits, gating, isolating, options, showing
from verifier.cli.planning import (
    ALL,
    InputOptions,
    compiled_with,
    dimension,
    placed,
    plan_jobs,
    plan_models,
    scales,
    weights_of,
)
from verifier.errors import UsageError
from verifier.ranks import PATIENCE, joined

_GRANULARITIES = ("site", "block")
_LOCALISE = ("auto", "always", "never")
_OUTPUTS = ("by-name", "by-order")


def run(
    arch: options.Archs = None,
    baseline: options.BaselineOrRecorded = None,
    candidate: options.Candidate = None,
    baseline_path: options.BaselinePath = None,
    candidate_path: options.CandidatePath = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    memory_format: options.MemoryFormat = "contiguous",
    autocast: options.Autocast = "off",
    cells_wanted: options.Cells = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Samples that go through at once; 8, or 2 for several small networks."
        ),
    ] = None,
    batch_dim: options.BatchDim = "0",
    images: options.Images = None,
    input_file: options.InputFile = None,
    data: options.Data = None,
    checkpoint: options.Checkpoint = None,
    patience: options.Patience = PATIENCE,
    candidate_input: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|SPEC",
            help="What the candidate is given, where its input is prepared otherwise; same forms.",
        ),
    ] = None,
    candidate_preprocessing: options.CandidatePreprocessing = None,
    image_size: options.ImageSize = None,
    test_scales: options.TestScales = None,
    compile_with: options.Compile = None,
    weights: options.WeightsMode = None,
    map_file: options.Map = None,
    save_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to write the parameter map in use, to read and correct; - prints it."
        ),
    ] = None,
    seed: options.Seed = 0,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Where result.json, layers.csv and report.html go; of several networks, each in a folder there.",
        ),
    ] = Path("verifier-report"),
    repro: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=(
                "If they diverge, write a script for each culprit here that shows it with torch alone, beside the "
                "tensors it needs; of several networks, each in a folder there."
            ),
        ),
    ] = None,
    junit: options.Junit = None,
    sarif: options.Sarif = None,
    code_quality: options.CodeQuality = None,
    policy: options.PolicyOrOwn = None,
    granularity: Annotated[
        str,
        typer.Option(
            metavar="|".join(_GRANULARITIES),
            help="block: each block alone on the baseline's inputs first, then each stage, then the network.",
        ),
    ] = "site",
    localise: Annotated[
        str,
        typer.Option(
            metavar="|".join(_LOCALISE),
            help="Forced passes, which tell culprits from pairs that only inherit: auto if it diverged.",
        ),
    ] = "auto",
    semantics: Annotated[
        bool, typer.Option(help="Compare two samples in float64 first, where any difference is real.")
    ] = True,
    repeat: Annotated[
        int, typer.Option(metavar="N", min=1, help="Run every cell N times and say whether it is repeatable.")
    ] = 1,
    outputs: Annotated[
        str,
        typer.Option(
            metavar="|".join(_OUTPUTS),
            help="How what the models return is paired; by-order takes other names for the same.",
        ),
    ] = "by-name",
    isolate: options.Isolate = False,
    timeout: options.Timeout = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help=(
                "Draw a few more inputs on purpose, of other sizes, scales and signs and in training mode, and say "
                "which of them shows a difference."
            ),
        ),
    ] = False,
    keep_float_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help=(
                "Of a quantised candidate, find the smallest set of layers to keep in float so that no more changes "
                "than 0.1% (of the samples, their highest class) or error=1% (of the outputs, NRMSE)."
            ),
        ),
    ] = None,
    sharded: Annotated[
        bool | None,
        typer.Option(
            "--sharded",
            help=(
                "The processes that torchrun started hold the candidate between them, each a part, and do not share "
                "samples; known without it where the parameters are DTensors."
            ),
        ),
    ] = None,
    history: options.History = None,
    no_history: options.NoHistory = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Compare a candidate with its baseline, site by site."""
    gate = gating.Gate(junit, sarif, code_quality, candidate or arch or "")
    with exits.translated(debug=debug, failed=gate.failed), collecting_seldom(), ExitStack() as stack:
        gate.check()
        options.check_choice("--granularity", granularity, _GRANULARITIES)
        options.check_choice("--localise", localise, _LOCALISE)
        options.check_choice("--outputs", outputs, _OUTPUTS)
        isolating.where_asked(timeout, isolate=isolate)
        stack.enter_context(
            joined(patience, spread=bool(sharded))
        )  # the child is the rank, not who waits for it
        baseline = placed(baseline, baseline_path, "--baseline-path")
        candidate = placed(candidate, candidate_path, "--candidate-path")
        baseline, candidate = compiled_with(compile_with, baseline, candidate)
        if arch is None:  # what is wrong without torch is said without importing it
            plan_models(arch, baseline, candidate)
        if no_history and history is not None:
            raise UsageError("--history and --no-history exclude each other.")
        if test_scales is not None and image_size is not None:
            raise UsageError("--test-scales and --image-size exclude each other; give one of them.")
        with showing.progress_bar("importing torch"):
            from verifier.cli.verifying import CellOptions, Task
            from verifier.gate.history import place

            task = Task.of(
                plan_jobs(
                    arch,
                    baseline,
                    candidate,
                    image_size=image_size,
                    batch_size=batch_size,
                    policy=policy,
                    out=out,
                ),
                InputOptions(
                    images=images,
                    file=input_file,
                    candidate_file=candidate_input,
                    candidate_preprocessing=candidate_preprocessing,
                    seed=seed,
                    scales=scales(test_scales),
                    data=data,
                ),
                CellOptions(
                    names=cells_wanted,
                    device=device,
                    dtype=dtype,
                    memory_format=memory_format,
                    autocast=autocast,
                ),
                {
                    "weights": weights_of(weights, baseline, candidate),
                    "batch_dim": dimension(batch_dim),
                    "granularity": granularity,
                    "localise": localise,
                    "semantics": semantics,
                    "repeat": repeat,
                    "outputs": outputs,
                    "probe": probe,
                    "sharded": sharded,
                    "keep_float_budget": keep_float_budget,
                },
                map_file=map_file,
                save_map=save_map,
                out=out,
                repro=repro,
                checkpoint=checkpoint,
                history=place(history, never=no_history),
            )
        several = len(task.jobs) > 1 or arch == ALL
        task.carry_out(several=several, ended=gate.ended, verbose=verbose, debug=debug)
