"""Training parity, from two models to the first step at which they are no longer trained alike."""

from __future__ import annotations

import functools
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from verifier.border.accounts import account
from verifier.border.programs import by_program, contained
from verifier.border.signals import check_unanswered
from verifier.environment import describe, preserved
from verifier.errors import ModelError, UsageError, VerifierError
from verifier.judge import Cell, coverage
from verifier.lockstep.coroutine import Thread
from verifier.records import Verdict
from verifier.training.baseline_batch import BaselineBatch
from verifier.training.candidate_batch import CandidateBatch, Correspondence
from verifier.training.judging import judge, limits
from verifier.training.pairing import Pairing, pair
from verifier.training.procedure import trainer as by_recipe
from verifier.training.recipe import TrainingRecipe
from verifier.training.records import Phase, TrainingParity
from verifier.training.suspicions import explain
from verifier.training.watching import Watch, backward_passes_seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from verifier.training.baseline_batch import Place
    from verifier.training.data import Data
    from verifier.training.procedure import Trainer
    from verifier.training.records import Allowed, TrainingCause

    Batch = tuple[Tensor, Tensor]
    Progress = Callable[[str, int, int], None]

FREE, FORCED = "training side by side", "judging every phase on identical inputs"


@contained()
def train_parity(
    baseline: nn.Module | str,
    candidate: nn.Module | str,
    data: Data,
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
        data: What to train on.
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
        batches = list(_batches(data, b_recipe.batch_size, steps * b_recipe.accumulate, cell, seed))
        pairing = pair(
            baseline, candidate, batches[0][0], cell, weights=weights, parameter_map=parameter_map, seed=seed
        )
        classes = pairing.alignment.baseline.sites[pairing.alignment.baseline.outputs[0]].shape[-1]
        batches = [(images, labels % classes) for images, labels in batches]
        epoch_steps = max(1, len(data.labels) // (b_recipe.batch_size * b_recipe.accumulate))
        whole = {"steps": steps, "epoch_steps": epoch_steps}
        loops = (
            trainer or by_recipe(b_recipe, **whole),
            candidate_trainer
            or (trainer if trainer and candidate_recipe is None else by_recipe(c_recipe, **whole)),
        )
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
        free = run(force=False)
        exact = not any(error for batch in free.compared for error in batch.errors.values())
        forced = free if exact else run(force=True)
    covered = coverage(pairing.alignment, pairing.masters.info.unexercised)
    loops_given = trainer is not None or candidate_trainer is not None
    scheduled = loops_given or {b_recipe.schedule, c_recipe.schedule} != {"constant"}
    judged = judge(pairing, free, forced, allowed, covered, scheduled=scheduled)
    named = procedures or (b_recipe.told(), c_recipe.told())
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
        data=data.source,
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


def _batches(data: Data, size: int, count: int, cell: Cell, seed: int) -> Iterator[Batch]:
    """`count` whole batches, epoch after epoch."""
    if len(data.labels) < size:
        raise UsageError(f"a batch of {size} is more than the {len(data.labels)} images there are.")
    made, epoch = 0, 0
    while made < count:
        for images, labels in data.batches(size, seed=seed, epoch=epoch, dtype=cell.torch_dtype):
            if len(labels) == size and made < count:
                yield images.to(cell.device), labels.to(cell.device)
                made += 1
        epoch += 1


@dataclass
class SideBySide:
    """What two trainings were, batch by batch. `step_of` has the baseline's optimiser step of each batch."""

    compared: list[CandidateBatch] = field(default_factory=list)
    causes: dict[Place, TrainingCause] = field(default_factory=dict)
    losses: tuple[tuple[float, float], ...] = ()
    rates: tuple[tuple[float, float], ...] = ()
    step_of: list[int] = field(default_factory=list)
    steps: int = 0

    @property
    def forward_seen(self) -> bool:
        """Whether any tensor of a forward pass was compared."""
        return any(place.phase is Phase.FORWARD for batch in self.compared for place in batch.errors)

    @property
    def backward_seen(self) -> bool:
        """Whether any backward pass was compared."""
        return any(place.phase is Phase.LOSS for batch in self.compared for place in batch.errors)


class _Training:
    """A loop that trains one model, suspended where it asks for the next batch.

    It runs in a thread of its own, for grad mode, autocast and function modes belong to a thread.
    """

    def __init__(self, role: str, watch: Watch, loop: Trainer) -> None:
        self.role = role
        self.watch = watch
        self._loop = loop
        self._batch: Batch | None = None
        self._thread = Thread(self._body, f"verifier-training-{role}")
        self._given = 0

    def start(self) -> None:
        """Run to the request for the first batch."""
        self._resume()

    def take(self, batch: Batch, ledger: BaselineBatch | CandidateBatch) -> None:
        """Give the loop a batch and run to the request for the next one."""
        self._batch = batch
        self.watch.begin(ledger)
        self._resume()
        self._given += 1

    def finish(self) -> None:
        """Tell the loop that there are no more batches, and let it end."""
        self._batch, self.watch.ledger = None, None
        self._guarded()

    def close(self) -> None:
        """End the loop wherever it is. Safe to call twice."""
        self._thread.close()
        self._thread.release()
        self.watch.detach()

    def _body(self) -> None:
        with self.watch:
            self._loop(self.watch.model, self)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._batch is not None and self._given == 0 and not self.watch.eventful:
            raise ModelError(
                f"the {self.role}'s trainer asks for a second batch before it has done anything with the first, so "
                "that it cannot be told what belongs to which. It has to take batches one at a time, without "
                "fetching ahead."
            )
        self.watch.ended()
        self._thread.suspend()
        if self._batch is None:
            raise StopIteration
        return self._batch

    def _resume(self) -> None:
        if not self._guarded():
            raise ModelError(
                f"the {self.role}'s trainer ended after {self._given} batches, though there are more. It has to "
                "train on every batch it is given."
            )

    def _guarded(self) -> bool:
        try:
            return self._thread.resume()
        except VerifierError:
            raise
        except BaseException as error:
            check_unanswered(error)
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise by_program(
                ModelError(f"the {self.role}'s trainer failed at batch {self._given}: {account(error)}")
            ) from error


def side_by_side(
    pairing: Pairing,
    cell: Cell,
    loops: tuple[Trainer, Trainer],
    batches: Sequence[Batch],
    allowed: Mapping[Phase, Allowed],
    *,
    force: bool,
    same_dtypes: bool,
    progress: Progress,
    seed: int,
) -> SideBySide:
    """Train both models, each batch by the baseline first, and compare them in every phase."""
    alignment = pairing.alignment
    graded = _graded(pairing)
    models = pairing.fresh(cell)
    relation = Correspondence(
        recipes=pairing.masters.recipes,
        layouts=alignment.laid_out,
        buffers=frozenset(name for name, _ in models[1].named_buffers()),
    )
    sides = [
        _Training(
            side.role,
            Watch(
                side.role,
                model,
                graph,
                {each[k]: position for position, each in enumerate(alignment.pairs)},
                graded,
            ),
            loop,
        )
        for k, (side, model, graph, loop) in enumerate(
            zip(pairing.sides, models, (alignment.baseline, alignment.candidate), loops, strict=True)
        )
    ]
    found = SideBySide()
    losses, rates = [], []
    watches = [side.watch for side in sides]
    hooks = _optimiser_hooks(watches)
    try:
        with backward_passes_seen(watches):
            for side in sides:
                _seed(seed)
                side.start()
            for number, batch in enumerate(batches):
                found.step_of.append(sides[0].watch.steps)
                kept = BaselineBatch()
                compared = CandidateBatch(kept, relation, allowed, force, same_dtypes)
                ledgers: tuple[BaselineBatch | CandidateBatch, ...] = (kept, compared)
                for side, ledger in zip(sides, ledgers, strict=True):
                    _seed(seed + number)
                    side.take((batch[0].clone(), batch[1].clone()), ledger)
                losses.append((_number(kept.losses), _number(compared.losses)))
                rates.append((_first(kept.rates), _first(compared.rates)))
                if force:
                    found.causes |= explain(compared, sides[0].watch, sides[1].watch, found.causes)
                compared.forget()
                found.compared.append(compared)
                progress(FORCED if force else FREE, number + 1, len(batches))
            for side in sides:
                side.finish()
            end = CandidateBatch(BaselineBatch(), relation, allowed, force)
            end.over(*watches)
            found.compared[-1].errors |= end.errors
            found.compared[-1].reasons |= end.reasons
            found.compared[-1].figures |= end.figures
    finally:
        for hook in hooks:
            hook.remove()
        for side in sides:
            side.close()
    found.losses, found.rates, found.steps = tuple(losses), tuple(rates), sides[0].watch.steps
    return found


def _graded(pairing: Pairing) -> frozenset[int]:
    """Pairs whose gradients are the same by definition: all that reads the two tensors is paired as well."""
    alignment = pairing.alignment
    baseline, candidate = alignment.baseline, alignment.candidate
    return frozenset(
        position
        for position, (b, c) in enumerate(alignment.pairs)
        if sorted(alignment.partner.get(reader, -1) for reader in baseline.consumers[b])
        == [*candidate.consumers[c]]
        and (b in baseline.outputs) == (c in candidate.outputs)
    )


def _optimiser_hooks(watches: Iterable[Watch]) -> list[torch.utils.hooks.RemovableHandle]:
    """Show every optimiser's steps to the watch of the model it updates."""
    known = list(watches)

    def before(optimiser: Optimizer, *_: object) -> None:
        for watch in known:
            if watch.owns(optimiser):
                watch.before_step(optimiser)

    def after(optimiser: Optimizer, *_: object) -> None:
        for watch in known:
            if watch.owns(optimiser):
                watch.after_step(optimiser)

    return [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global state is the one a model would use
    random.seed(seed)


def _number(losses: Sequence[Tensor]) -> float:
    """The sum of what a batch's backward passes start from; NaN where there was none."""
    return sum(map(float, losses)) if losses else float("nan")


def _first(rates: Mapping[str, float]) -> float:
    return next(iter(rates.values()), float("nan"))
