"""`train`: train networks to the end, each beside its baseline twin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verifier.cli import exits, interruption, options, showing
from verifier.cli.planning import command_line, picture_size, plan_models, scales
from verifier.errors import OutputError, UsageError

if TYPE_CHECKING:
    from verifier.experiment.twins import Trainee
    from verifier.training.recipe import TrainingRecipe

_EPOCHS = {"digits": 12, "cifar10": 164}
_FOLDER_EPOCHS = 12


def train(
    arch: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Networks of the catalogue, separated by commas; see `models`."),
    ] = None,
    baseline: options.Baseline = None,
    candidate: options.Candidate = None,
    data: options.DataName = "digits",
    data_dir: options.DataDirectory = Path("data"),
    image_size: options.PictureSize = None,
    test_scales: options.TestScales = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="164 for CIFAR-10, else 12 if not given.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML of what to do otherwise: optimiser, lr, schedule, amp, ..."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", min=2, help="Samples a batch.")] = None,
    twin: Annotated[bool, typer.Option(help="Train the baseline as well, from the same weights.")] = True,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N.")] = "cpu",
    seed: options.TrainingSeed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on, exactly, with what was interrupted in --out.")
    ] = False,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where training.json, training.html, weights and checkpoints go."),
    ] = Path("training"),
    debug: options.Debug = False,
) -> None:
    """Train networks to the end, each beside its baseline twin, with checkpoints to go on from."""
    with exits.translated(debug=debug):
        trainees = _trainees(arch, baseline, candidate, twin=twin)
        files = [file for trainee in trainees for file in trainee.checkpoints(out)]
        _check_unfinished(out, files, epochs, resume=resume)
        with showing.training_bar() as (progress, log):
            from verifier.experiment import twins
            from verifier.storage.saving import check_writable
            from verifier.training.data import read
            from verifier.training.saving import save_experiment

            check_writable(out)
            interruption.leaves(f"finished epochs are kept in {out}, and --resume goes on from there.")
            learnt = read(
                data,
                data_dir,
                size=picture_size(image_size, arch, data),
                seed=seed,
                scales=scales(test_scales),
            )
            length = epochs or _EPOCHS.get(data, _FOLDER_EPOCHS)
            found = twins.train(
                trainees,
                learnt,
                out,
                recipe=_recipe(recipe, data, length, batch_size),
                epochs=length,
                device=device,
                seed=seed,
                resume=resume,
                command=command_line(),
                progress=progress,
                log=log,
            )
            showing.warn(save_experiment(found, out))
            for file in files:
                file.unlink(missing_ok=True)
        showing.show_experiment(found, out)
        _tell_of_others(out)


def _trainees(arch: str | None, baseline: str | None, candidate: str | None, *, twin: bool) -> list[Trainee]:
    """What to train: the architectures, or the two models named."""
    import reference_models
    from reference_models.published import family
    from verifier.experiment.twins import Trainee

    names = [None] if arch is None else [name.strip() for name in arch.split(",") if name.strip()]
    if not names:
        raise UsageError("--arch names nothing; `verifier models` lists what it takes.")
    if len(names) > 1 and (baseline or candidate):
        raise UsageError("--baseline and --candidate go with one --arch only.")
    found = []
    for name in dict.fromkeys(names):
        alone = name is None and candidate is not None and not twin
        b, c = ("", candidate or "") if alone else plan_models(name, baseline, candidate)
        of = reference_models.get(name) if name is not None and name in reference_models.list() else None
        facts = (None, None, None) if of is None else (of.depth, family(of.family), of.image_size)
        found.append(Trainee(name or _short(c), c, b if twin else None, *facts))
    return found


def _short(spec: str) -> str:
    """A specification as a network's name and part of a file's: without folders, and not with a dash in front."""
    last = re.split(r"[\\/]", spec)[-1]
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in last).lstrip("-") or "network"


def _recipe(file: Path | None, data: str, epochs: int, batch_size: int | None) -> TrainingRecipe:
    import msgspec

    from verifier.training.recipe import article, digits, photographs, read_recipe

    made = article(epochs) if data == "cifar10" else digits() if data == "digits" else photographs()
    made = made if file is None else read_recipe(file, made)
    return made if batch_size is None else msgspec.structs.replace(made, batch_size=batch_size)


def _check_unfinished(out: Path, files: list[Path], epochs: int | None, *, resume: bool) -> None:
    """Refuse what would train over an unfinished training, or go on where there is nothing to go on with.

    With --resume, what others left unfinished stays as it is: whoever names networks means these.
    """
    from verifier.training.saving import EXPERIMENT, unfinished

    left = unfinished(out)
    asked = [file for file in left if file in files]
    if resume:
        if not asked and (out / EXPERIMENT).exists():
            raise UsageError(_finished(out / EXPERIMENT, files, epochs))
    elif asked:
        raise UsageError(
            f"{out} holds an unfinished training ({asked[0].name}). Add --resume to go on with it, or give another "
            "--out."
        )
    elif left:
        raise UsageError(
            f"{out} holds an unfinished training of another network ({left[0].name}). Ask for that one with "
            "--resume, or give another --out."
        )


def _finished(file: Path, files: list[Path], epochs: int | None) -> str:
    """Why there is nothing to go on with beside a finished training, and what to do.

    It cannot be made longer: the schedule of its learning rate was for all of its epochs, and no checkpoint is left.
    """
    from verifier.training.saving import checkpoint_file, load_experiment

    where = file.parent
    anew = "Leave out --resume to train anew, or give another --out to keep it"
    try:
        found = load_experiment(file)
    except OutputError:  # what cannot be read is about to be replaced
        return f"the training in {where} is finished. {anew}."
    if not {checkpoint_file(where, each.name, each.role) for each in found.learners} & {*files}:
        names = ", ".join(dict.fromkeys(each.name for each in found.learners))
        return f"{where} holds a finished training of {names}, and nothing to go on with. {anew}."
    if epochs is None or epochs == found.epochs:
        return f"the training in {where} is finished. {anew}."
    return (
        f"the training in {where} is finished, and cannot be made longer or shorter: it was asked for --epochs "
        f"{found.epochs}, now for {epochs}. {anew}."
    )


def _tell_of_others(out: Path) -> None:
    """Say what else is unfinished in the folder; it was not asked for, so it was left alone."""
    from verifier.training.saving import unfinished

    left = [file.name for file in unfinished(out)]
    if left:
        are = "are unfinished trainings that were" if len(left) > 1 else "is an unfinished training that was"
        showing.say(f"Left alone: {', '.join(left)} in {out} {are} not asked for.\n")
