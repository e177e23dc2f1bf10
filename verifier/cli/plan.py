"""`plan`: what a comparison will take, before it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.cli import exits, options, showing
from verifier.cli.planning import InputOptions, dimension, placed, plan_jobs, plan_models, weights_of
from verifier.errors import UsageError
from verifier.ranks import joined


def plan(
    arch: options.Archs = None,
    baseline: options.Baseline = None,
    candidate: options.Candidate = None,
    baseline_path: options.BaselinePath = None,
    candidate_path: options.CandidatePath = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    memory_format: options.MemoryFormat = "contiguous",
    autocast: options.Autocast = "off",
    cells_wanted: options.Cells = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Samples that go through at once; 8.")
    ] = None,
    batch_dim: options.BatchDim = "0",
    input_file: options.InputFile = None,
    images: options.Images = None,
    data: options.Data = None,
    several: Annotated[
        int,
        typer.Option(
            "--ranks",
            metavar="N",
            min=1,
            help=(
                "Processes that share the samples of a data set, or with --sharded the candidate; under torchrun as "
                "many as it starts."
            ),
        ),
    ] = 1,
    sharded: Annotated[
        bool,
        typer.Option(
            "--sharded", help="The --ranks hold the candidate between them, each a part, as in run."
        ),
    ] = False,
    image_size: options.ImageSize = None,
    weights: options.WeightsMode = None,
    seed: options.Seed = 0,
    debug: options.Debug = False,
) -> None:
    """Predict time and memory of a comparison, by phase and cell, from short runs of both models."""
    with exits.translated(debug=debug), joined() as team:
        baseline = placed(baseline, baseline_path, "--baseline-path")
        candidate = placed(candidate, candidate_path, "--candidate-path")
        if arch is None:  # what is wrong without torch is said without importing it
            plan_models(arch, baseline, candidate)
        with showing.progress_bar("importing torch") as progress:
            from verifier.cli.verifying import CellOptions
            from verifier.estimate import estimated

            jobs = plan_jobs(
                arch,
                baseline,
                candidate,
                image_size=image_size,
                batch_size=batch_size,
                policy=None,
                out=Path(),
            )
            read = InputOptions(
                images=images,
                file=input_file,
                candidate_file=None,
                candidate_preprocessing=None,
                seed=seed,
                data=data,
            )
            requests = CellOptions(
                names=cells_wanted,
                device=device,
                dtype=dtype,
                memory_format=memory_format,
                autocast=autocast,
            ).requests()
            found = []
            for job in jobs:
                progress("building both, and running them for a moment", 0, 0)
                given, candidates = read.read(job, streaming=True, whole=False)
                if given is None:
                    raise UsageError(f"{job.baseline} is recorded, and plan is for two models that run.")
                count = team.size if team.size > 1 else several
                if sharded:
                    from verifier.sharded.planned import estimated_sharded

                    whole = estimated_sharded(job.baseline, given, requests=requests, seed=seed, of=count)
                    found.append((job.name or f"{job.baseline} and {job.candidate}", whole))
                    continue
                estimate = estimated(
                    job.baseline,
                    job.candidate,
                    given,
                    candidate_inputs=candidates,
                    requests=requests,
                    weights=weights_of(weights, baseline, candidate),
                    batch_size=job.batch_size,
                    batch_dim=dimension(batch_dim),
                    seed=seed,
                    of=count,
                )
                found.append((job.name or f"{job.baseline} and {job.candidate}", estimate))
        team.gather(None)  # all measure at once
        if team.leads:
            showing.show_estimates(found)
