"""`run`: compare a candidate with its baseline."""

from __future__ import annotations

import enum
import shlex
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verifier.border.garbage import collecting_seldom
from verifier.cli import exits, interruption, isolating, options, showing
from verifier.cli.planning import ALL, Job, explained, plan_inputs, plan_jobs
from verifier.cli.walking import walk
from verifier.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.storage.saving import Verification


class Granularity(enum.StrEnum):
    """What is verified besides the network itself."""

    SITE = "site"
    BLOCK = "block"


class Outputs(enum.StrEnum):
    """How what two models return is paired."""

    BY_NAME = "by-name"
    BY_ORDER = "by-order"


class Localise(enum.StrEnum):
    """When to run forced passes in the numerics cells."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def run(
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=(
                "One that `models` lists: the reference model against its baseline, torchvision's or one composed "
                "of torchvision's blocks. Several, separated by commas, or all: one after the other."
            ),
        ),
    ] = None,
    baseline: options.Baseline = None,
    candidate: options.Candidate = None,
    device: Annotated[
        str, typer.Option(metavar="LIST", help="cpu, cuda or cuda:N, separated by commas, or all.")
    ] = "cpu",
    dtype: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="float64, float32, tf32, bfloat16, float16, separated by commas, or all."
        ),
    ] = "float32",
    memory_format: Annotated[
        str, typer.Option(metavar="LIST", help="contiguous, channels_last, separated by commas.")
    ] = "contiguous",
    autocast: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="For bfloat16 and float16: off casts the models, on leaves that to torch.autocast; both: off,on.",
        ),
    ] = "off",
    cells_wanted: Annotated[
        str | None,
        typer.Option(
            "--cells",
            metavar="LIST",
            help="Cells by name, instead of the options above: cpu/float32,cuda/bfloat16/channels_last.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Samples that go through at once; 8, or 2 for several small networks."
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Directory of photographs; 'samples' for some that scikit-image ships."
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="Tensors from a .npy, .pt or .safetensors file."),
    ] = None,
    candidate_input: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What the candidate is given, where its input is prepared otherwise; same forms.",
        ),
    ] = None,
    candidate_preprocessing: options.CandidatePreprocessing = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS",
            help="Height and width of an image, or 'small'; --arch knows what fits, else 224, and 64 if small.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help=(
                "calibrated: seeded draws that excite every parameter, for both models. init: the baseline's initial "
                "values, for both. imagenet: torchvision's published ones, for both. as-is: each model's own. "
                "Or a .safetensors, .pt or .pth file."
            ),
        ),
    ] = "calibrated",
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
    policy: options.PolicyOrOwn = None,
    granularity: Annotated[
        Granularity,
        typer.Option(
            help="block: each block alone on the baseline's inputs first, then each stage, then the network."
        ),
    ] = Granularity.SITE,
    localise: Annotated[
        Localise,
        typer.Option(
            help="Forced passes, which tell culprits from pairs that only inherit: auto if it diverged."
        ),
    ] = Localise.AUTO,
    semantics: Annotated[
        bool, typer.Option(help="Compare two samples in float64 first, where any difference is real.")
    ] = True,
    repeat: Annotated[
        int, typer.Option(metavar="N", min=1, help="Run every cell N times and say whether it is repeatable.")
    ] = 1,
    outputs: Annotated[
        Outputs,
        typer.Option(help="How what the models return is paired; by-order takes other names for the same."),
    ] = Outputs.BY_NAME,
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate", help="Run the models in a process of their own, whose death is told and ends with 3."
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            help="End that process when it has run for this long; goes with --isolate.",
        ),
    ] = None,
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
    debug: options.Debug = False,
) -> None:
    """Compare a candidate with its baseline, site by site."""
    with exits.translated(debug=debug), collecting_seldom():
        isolating.where_asked(timeout, isolate=isolate)
        if arch is None:  # what is wrong without torch is said without importing it
            plan_jobs(arch, baseline, candidate, image_size=None, batch_size=None, policy=None, out=out)
        with showing.progress_bar("importing torch"):
            from verifier.cells import Cell, Request, missing_here, product
            from verifier.judge.policy import Policy
            from verifier.metrics import warm_up
            from verifier.storage.earlier import awaiting
            from verifier.storage.saving import WRITTEN, check_file, check_writable, save, save_text
            from verifier.verification import verify
            from verifier.weights import as_toml, read_map

            jobs = plan_jobs(
                arch,
                baseline,
                candidate,
                image_size=image_size,
                batch_size=batch_size,
                policy=policy,
                out=out,
            )
            policies = {job.policy: Policy.load(job.policy) for job in jobs}
            cells = (
                product(
                    _listed("--device", device),
                    _listed("--dtype", dtype),
                    _listed("--memory-format", memory_format),
                    [_switch(text) for text in _listed("--autocast", autocast)],
                )
                if cells_wanted is None
                else [Request(Cell.parse(name)) for name in _listed("--cells", cells_wanted)]
            )
            missing_here(cells)
            check_writable(out, *(job.out for job in jobs))
            known = None if map_file is None else read_map(map_file)
            if save_map is not None and str(save_map) != "-":
                check_file(save_map)
            threading.Thread(target=warm_up, name="verifier-warm-up").start()  # while models are built
            _refuse_for_several(
                jobs,
                {"--input": input_file, "--candidate-input": candidate_input, "--map": map_file}
                | {"--save-map": save_map},
            )

        def verified(job: Job, progress: showing.Progress) -> Verification:
            progress("reading inputs", 0, 0)
            if candidate_preprocessing is not None and candidate_input is not None:
                raise UsageError("--candidate-preprocessing and --candidate-input exclude each other.")
            inputs = plan_inputs(
                images,
                input_file,
                job.batch_size,
                job.image_size,
                seed,
                candidate_preprocessing,
                reference=job.reference,
            )
            other = (
                None
                if candidate_input is None
                else plan_inputs(None, candidate_input, job.batch_size, job.image_size, seed)
            )
            progress("building models", 0, 0)
            try:
                verification = verify(
                    job.baseline,
                    job.candidate,
                    inputs,
                    candidate_inputs=other,
                    weights=weights,
                    parameter_map=known,
                    cells=cells,
                    granularity=granularity.value,
                    localise=localise.value,
                    semantics=semantics,
                    policy=policies[job.policy],
                    batch_size=job.batch_size,
                    repeat=repeat,
                    outputs=outputs.value,
                    probe=probe,
                    seed=seed,
                    command=shlex.join(["python", "-m", "verifier", *sys.argv[1:]]),
                    progress=progress,
                )
            except ModelError as error:
                raise explained(error, inputs) from error
            save(verification, job.out)
            interruption.leaves(f"the result is in {job.out}.")
            return verification

        def verified_anew(job: Job, progress: showing.Progress) -> Verification:
            with awaiting(job.out, WRITTEN):
                return verified(job, progress)

        def one_of_several(job: Job) -> Verification:
            with showing.progress_bar(job.name) as bar:
                return verified_anew(job, lambda stage, done, total: bar(f"{job.name}: {stage}", done, total))

        if len(jobs) > 1 or arch == ALL:
            walk(jobs, one_of_several, out, debug=debug)
        with showing.progress_bar("reading inputs") as progress:
            verification = verified_anew(jobs[0], progress)
            if save_map is not None and str(save_map) != "-":
                save_text(as_toml(verification.weights), save_map)
        if str(save_map) == "-":
            showing.say(as_toml(verification.weights))
        showing.show(verification, out)
        exits.by(verification.verdict)


def _refuse_for_several(jobs: Sequence[Job], given: Mapping[str, object]) -> None:
    for option, value in given.items():
        if value is not None and len(jobs) > 1:
            raise UsageError(
                f"{option} belongs to one network, but --arch names several; leave one of them out."
            )


def _listed(option: str, text: str) -> list[str]:
    found = [item.strip() for item in text.split(",") if item.strip()]
    if not found:
        raise UsageError(f"{option} names nothing; see --help for what it takes.")
    return found


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise UsageError(f"--autocast {text}: write on, off or off,on.")
    return text == "on"
