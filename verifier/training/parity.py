"""Training parity, from two models to the first step at which they are no longer trained alike."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import torch

from verifier.border.programs import contained
from verifier.cells import Cell
from verifier.environment import describe, preserved
from verifier.errors import UsageError
from verifier.judge import coverage
from verifier.records import Verdict
from verifier.training.batches import Batches
from verifier.training.correspondence import Forcing
from verifier.training.forward_causes import causes as forward_causes
from verifier.training.judging import judge, limits
from verifier.training.other_ways import WAYS, exceeding, same_weights
from verifier.training.pairing import pair
from verifier.training.procedure import trainer as by_recipe
from verifier.training.recipe import TrainingRecipe
from verifier.training.records import Phase, TrainingParity
from verifier.training.sharded.parity import sharded_parity
from verifier.training.side_by_side import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import nn

    from verifier.training.data import Data
    from verifier.training.procedure import Trainer
    from verifier.training.side_by_side import Batch, Progress


@contained()
def train_parity(
    baseline: nn.Module | str,
    candidate: nn.Module | str,
    data: Data | Iterable[Batch] | Callable[[], Iterable[Batch]],
    *,
    recipe: TrainingRecipe | None = None,
    candidate_recipe: TrainingRecipe | None = None,
    trainer: Trainer | None = None,
    candidate_trainer: Trainer | None = None,
    steps: int = 50,
    dtype: str = "float64",
    device: str = "cpu",
    weights: str = "init",
    parameter_map: Mapping[str, object] | None = None,
    seed: int = 0,
    procedures: tuple[str, str] | None = None,
    command: str = "",
    progress: Progress | None = None,
    sharded: bool = False,
    data_parallel: int = 1,
) -> TrainingParity:
    """Are two models trained alike, and if not, at which step, in which phase and at which tensor do they part?

    Both train side by side from identical weights, on the same batches, with the same random numbers. Copies do: the
    models given are not touched, and process-wide state is as before afterwards.

    The candidate trains twice. Freely first: if every number is the baseline's, all is said. If not, once more with
    the baseline's tensors put in place of its own wherever the two have been compared, before and after each phase,
    so that each is judged on identical inputs. What differs there differs by itself; in free training rounding alone
    grows from step to step, so that no limit on it would mean anything.

    Args:
        baseline: The trusted model, or a specification that leads to one.
        candidate: The model under test, likewise.
        data: What to train on: images with labels, or batches, each a tuple of inputs and labels, or
            a function that gives such.
        recipe: How the baseline is trained, and the candidate if nothing else is said of it.
        candidate_recipe: How the candidate is trained.
        trainer: A loop that trains the baseline instead, a function of the model and of batches; and the candidate,
            if nothing else is said of it.
        candidate_trainer: A loop that trains the candidate.
        steps: Optimiser steps of the recipe; batches are that many times what it accumulates.
        dtype: `float64`, where any difference is real, or `float32`; under autocast it is float32.
        device: `cpu`, `cuda` or `cuda:N`.
        weights: What both start from: `init`, `imagenet` or a weights file.
        parameter_map: What is known of the candidate's tensors, as `verifier.verify` takes it.
        seed: For models, the order of the data and all else that is drawn.
        procedures: What the two procedures are called in the record.
        command: How the run was asked for, for the record.
        progress: Told how far the run has come.
        sharded: Whether the processes of torchrun hold the candidate between them; see
            `verifier.training.sharded.parity`.
        data_parallel: Of these, how many groups share the samples of each batch.

    Raises:
        UsageError: Something asked for is wrong.
        CannotRunError: This machine cannot run it, or a model or a trainer raised while it ran.
    """
    started = time.perf_counter()
    b_recipe = recipe or TrainingRecipe()
    c_recipe = candidate_recipe or b_recipe
    if c_recipe.batch_size != b_recipe.batch_size:
        raise UsageError(
            f"both models are given the same batches, but the recipes ask for {b_recipe.batch_size} and "
            f"{c_recipe.batch_size} samples; let them agree on batch_size."
        )
    mixed = "off" not in {b_recipe.amp, c_recipe.amp}
    cell = Cell.parse(f"{device}/{'float32' if mixed or b_recipe.amp != c_recipe.amp else dtype}")
    cell.check_device()
    with preserved(), torch.inference_mode(mode=False), torch.enable_grad():
        given = Batches.of(data, b_recipe.batch_size, steps * b_recipe.accumulate, cell, seed)
        batches = given.every
        length = {"steps": steps, "epoch_steps": max(1, given.epoch // b_recipe.accumulate)}
        loops = (
            trainer or by_recipe(b_recipe, **length),
            candidate_trainer
            or (trainer if trainer and candidate_recipe is None else by_recipe(c_recipe, **length)),
        )
        loops_given = trainer is not None or candidate_trainer is not None
        scheduled = loops_given or {b_recipe.schedule, c_recipe.schedule} != {"constant"}
        named = procedures or (b_recipe.told(), c_recipe.told())
        if sharded:
            return sharded_parity(
                baseline,
                candidate,
                given,
                loops,
                cell,
                narrow={b_recipe.amp, c_recipe.amp},
                share=data_parallel,
                asked={"--weights": weights if weights != "init" else "", "--map": parameter_map},
                seed=seed,
                scheduled=scheduled,
                named=named,
                command=command,
                progress=progress,
            )
        pairing = pair(
            baseline, candidate, batches[0][0], cell, weights=weights, parameter_map=parameter_map, seed=seed
        )
        if given.labelled:
            classes = pairing.alignment.baseline.sites[pairing.alignment.baseline.outputs[0]].shape[-1]
            batches = [(images, labels % classes) for images, labels in batches]
        allowed = limits(cell, b_recipe, c_recipe, pairing.alignment)
        tell = progress or (lambda *_: None)
        run = functools.partial(
            side_by_side,
            pairing,
            cell,
            loops,
            batches,
            allowed,
            same_dtypes=b_recipe.amp != c_recipe.amp,
            progress=tell,
            seed=seed,
        )
        free = run(forcing=Forcing.NOTHING)
        exact = not any(error for batch in free.compared for error in batch.errors.values())
        forced = free if exact else run(forcing=Forcing.PHASES)
        first = exceeding(forced, allowed)
        # Where free training has grown apart by rounding, whether a way makes a difference is judged step by step.
        told = same_weights(free, allowed) or not any(place.phase in WAYS for place in first)
        whole = free if told else run(forcing=Forcing.STEPS)
        if any(place.phase is Phase.FORWARD for place in first):
            forced.explain_sites(forward_causes(pairing, batches[0][0]))
    covered = coverage(pairing.alignment, pairing.masters.hiding)
    judged = judge(pairing, free, forced, whole, allowed, covered, scheduled=scheduled)
    found = TrainingParity(
        verdict=judged.verdict,
        reason=judged.reason,
        first_divergence=judged.culprits[0] if judged.culprits else None,
        culprits=judged.culprits,
        bit_exact=exact,
        steps=free.steps,
        batches=len(batches),
        losses=free.losses,
        rates=free.rates,
        rows=judged.rows,
        baseline=pairing.baseline.info(pairing.alignment.baseline),
        candidate=pairing.candidate.info(pairing.alignment.candidate),
        baseline_procedure=named[0],
        candidate_procedure=named[1],
        data=given.source,
        dtype=cell.dtype
        if b_recipe.amp == c_recipe.amp == "off"
        else f"autocast to {b_recipe.amp}, {c_recipe.amp}",
        device=cell.device,
        coverage=covered,
        weights=pairing.masters.info,
        notes=judged.notes,
        seed=seed,
        environment=describe(),
        command=command,
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if found.verdict is not Verdict.MATCH or exact or found.dtype == "float64" or loops_given:
        return found
    # Rounding hides small faults in a narrow dtype, an eps for one: float64 tells.
    return _in_float64(
        found,
        train_parity(
            baseline,
            candidate,
            data,
            recipe=_unmixed(b_recipe),
            candidate_recipe=_unmixed(c_recipe),
            steps=steps,
            device=device,
            weights=weights,
            parameter_map=parameter_map,
            seed=seed,
            procedures=named,
            command=command,
            progress=progress,
        ),
    )


def _unmixed(recipe: TrainingRecipe) -> TrainingRecipe:
    """The same recipe without autocast; a loss scale it has by name stays."""
    return msgspec.structs.replace(recipe, amp="off")


def _in_float64(found: TrainingParity, exactly: TrainingParity) -> TrainingParity:
    """The narrow dtype's record if the trainings are the same in float64, else that one, which names the fault."""
    seconds = found.seconds + exactly.seconds
    if exactly.verdict is Verdict.DIVERGED:
        note = f"in {found.dtype} the difference is within rounding; it was found by training in float64"
        return msgspec.structs.replace(exactly, notes=(*exactly.notes, note), seconds=seconds)
    note = "the same recipe in float64, without autocast: " + (
        "every phase of every step agrees, too"
        if exactly.verdict is Verdict.MATCH
        else f"{exactly.verdict}, {exactly.reason}"
    )
    return msgspec.structs.replace(found, notes=(*found.notes, note), seconds=seconds)
