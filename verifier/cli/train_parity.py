"""`train-parity`: train a candidate and its baseline side by side."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verifier.cli import exits, options, showing
from verifier.cli.planning import command_line, picture_size, placed, plan_models
from verifier.ranks import PATIENCE, Ranks, joined

if TYPE_CHECKING:
    from verifier.training.recipe import TrainingRecipe


def train_parity(
    arch: options.Arch = None,
    baseline: options.Baseline = None,
    candidate: options.Candidate = None,
    baseline_path: options.BaselinePath = None,
    candidate_path: options.CandidatePath = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps of the optimiser.")] = 50,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML of how to train both: optimiser, lr, schedule, clip_norm, amp, ..."
        ),
    ] = None,
    candidate_recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What the candidate's training does otherwise; same form."),
    ] = None,
    trainer: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="file.py:function(model, batches), a loop of your own that trains both instead of a recipe.",
        ),
    ] = None,
    candidate_trainer: Annotated[
        str | None, typer.Option(metavar="SPEC", help="A loop that trains the candidate alone; same form.")
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            metavar="digits|cifar10|FOLDER|SPEC",
            help=(
                "What to learn from: scikit-learn's handwritten digits, CIFAR-10, a folder of photographs for each "
                "class, or what file.py:function returns, batches of inputs and labels."
            ),
        ),
    ] = "digits",
    data_dir: options.DataDirectory = Path("data"),
    image_size: options.PictureSize = None,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=2, help="Samples a batch, whatever the recipe says; else 32."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="DTYPE", help="float64, where any difference is real, or float32.")
    ] = "float64",
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N.")] = "cpu",
    weights: Annotated[
        str, typer.Option(metavar="MODE", help="What both start from: init, imagenet, or a weights file.")
    ] = "init",
    map_file: options.Map = None,
    sharded: Annotated[
        bool,
        typer.Option(
            "--sharded",
            help="The processes that torchrun started hold the candidate between them, and train it together.",
        ),
    ] = False,
    data_parallel: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="With --sharded: how many groups of processes share the samples of a batch; 1 gives all to each.",
        ),
    ] = 1,
    patience: options.Patience = PATIENCE,
    seed: options.TrainingSeed = 0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where training-parity.json, its page and tensors.csv go.")
    ] = Path("training-parity"),
    debug: options.Debug = False,
) -> None:
    """Train a candidate and its baseline side by side; name the first step, phase and tensor that differ."""
    with exits.translated(debug=debug):
        for_both, for_candidate = _recipes(recipe, candidate_recipe, batch_size)
        baseline = placed(baseline, baseline_path, "--baseline-path")
        candidate = placed(candidate, candidate_path, "--candidate-path")
        models = plan_models(arch, baseline, candidate)
        with contextlib.ExitStack() as stack:
            team = stack.enter_context(joined(patience, spread=True)) if sharded else Ranks()
            progress = stack.enter_context(showing.progress_bar("importing torch"))
            from verifier.models import specs
            from verifier.storage.earlier import awaiting
            from verifier.storage.saving import check_writable
            from verifier.training.data import read
            from verifier.training.parity import train_parity as run
            from verifier.training.saving import PARITY, PARITY_PAGE, TENSORS, save_parity
            from verifier.weights import read_map

            if team.leads:
                check_writable(out)
                stack.enter_context(awaiting(out, (PARITY, TENSORS, PARITY_PAGE)))
            loops = [None if spec is None else specs.function(spec) for spec in (trainer, candidate_trainer)]
            known = None if map_file is None else read_map(map_file)
            progress("reading data", 0, 0)
            found = run(
                *models,
                specs.function(data)
                if ":" in data and not Path(data).exists()
                else read(data, data_dir, size=picture_size(image_size, arch, data), seed=seed),
                recipe=for_both,
                candidate_recipe=for_candidate,
                trainer=loops[0],
                candidate_trainer=loops[1],
                steps=steps,
                dtype=dtype,
                device=device,
                weights=weights,
                parameter_map=known,
                seed=seed,
                procedures=_told(for_both, for_candidate, trainer, candidate_trainer),
                command=command_line(),
                progress=progress,
                sharded=sharded,
                data_parallel=data_parallel,
            )
            if not team.leads:
                exits.end(0)  # one rank speaks, writes and has the exit code
            showing.warn(save_parity(found, out))
        showing.show_parity(found, out)
        exits.by(found.verdict)


def _recipes(
    recipe: Path | None, candidate_recipe: Path | None, batch_size: int | None
) -> tuple[TrainingRecipe, TrainingRecipe | None]:
    """Both recipes: the candidate's says only what it does otherwise; None where that is nothing."""
    import msgspec

    from verifier.training.recipe import TrainingRecipe, read_recipe

    for_both = TrainingRecipe(batch_size=32)
    for_both = for_both if recipe is None else read_recipe(recipe, for_both)
    for_candidate = None if candidate_recipe is None else read_recipe(candidate_recipe, for_both)
    if batch_size is not None:
        for_both = msgspec.structs.replace(for_both, batch_size=batch_size)
        for_candidate = (
            None if for_candidate is None else msgspec.structs.replace(for_candidate, batch_size=batch_size)
        )
    return for_both, for_candidate


def _told(
    for_both: TrainingRecipe,
    for_candidate: TrainingRecipe | None,
    trainer: str | None,
    candidate_trainer: str | None,
) -> tuple[str, str]:
    """What the two procedures are called in the record."""
    baseline = trainer or for_both.told()
    return baseline, candidate_trainer or (for_candidate.told() if for_candidate is not None else baseline)
