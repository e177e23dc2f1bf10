"""Is a model that several processes train between them trained as the whole on one is?"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from verifier.align import Assembly
from verifier.bench.protocol import Protocol
from verifier.bench.side import Side
from verifier.border.programs import translating
from verifier.cells import ORACLE
from verifier.certificates.recording import undisturbed
from verifier.environment import describe, tf32
from verifier.errors import CannotRunError, ModelError, UsageError
from verifier.inputs import tensors
from verifier.models.copying import state_of
from verifier.ranks import named as ranks_named
from verifier.ranks import ranks
from verifier.records import UNEXPLAINED, Verdict
from verifier.sharded.asking import Crew
from verifier.sharded.verifying import check_models, compared, described, hidden
from verifier.sharded.watching import plain
from verifier.training.baseline_batch import ACTIVATION, WEIGHT
from verifier.training.correspondence import Correspondence, Forcing
from verifier.training.failing import failed
from verifier.training.judging import Blamed, blamed, limits_of
from verifier.training.other_ways import WAYS, exceeding, same_weights
from verifier.training.records import Allowed, Divergence, Phase, TensorRow, TrainingCause, TrainingParity
from verifier.training.sharded.comparing import Comparing
from verifier.training.sharded.learner import Learner, trained
from verifier.training.sharded.lying import Lying, aliases
from verifier.training.sharded.mending import Mending
from verifier.training.side_by_side import TOLD, SideBySide

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from torch import Tensor

    from verifier.cells import Cell
    from verifier.sharded.verifying import Compared
    from verifier.training.baseline_batch import Place
    from verifier.training.batches import Batches
    from verifier.training.procedure import Trainer
    from verifier.training.side_by_side import Batch, Progress

_PHASES = list(Phase)


def sharded_parity(
    baseline: Any,
    candidate: Any,
    given: Batches,
    loops: tuple[Trainer, Trainer],
    cell: Cell,
    *,
    narrow: Collection[str],
    share: int,
    asked: Mapping[str, object],
    seed: int,
    scheduled: bool,
    named: tuple[str, str],
    command: str,
    progress: Progress | None,
) -> TrainingParity:
    """Compare the forward pass of the first batch, then every step, of which the ranks' tensors are put together.

    Gradients as they are applied, what optimisers keep, weights and rates, and what was not right before it was
    applied. Each rank trains its own part from its own weights, the first one the whole, too. As in
    `verifier.training.parity` the candidate trains freely, then with the whole's tensors cut up in place of its own.

    Args:
        baseline: The whole model, or a specification of it.
        candidate: A specification of each process's part of the other, or that part.
        given: What the whole is trained on.
        loops: What trains the whole, and what trains each part.
        cell: Where they are trained.
        narrow: Dtypes of autocast.
        share: How many groups of ranks share the samples of a batch, each group the same of them.
        asked: What cannot be had, by its option.
        seed: For models that are built, and all else that is drawn.
        scheduled: Whether learning rates may be meant to change.
        named: What the two procedures are called.
        command: How it was asked for, for the record.
        progress: Told how far it has come.

    Raises:
        UsageError: Something asked for cannot be had.
        CannotRunError: A model or a loop raised, or the processes wait for each other in vain.
    """
    started = time.perf_counter()
    check_models(baseline, candidate)
    _check(given, asked, share)
    own = [_shared(each, share) for each in given.every]
    learner = Learner(candidate, tensors(own[0][0]), seed, loop=loops[1], batches=own)
    with undisturbed(), tf32(allowed=False):
        crew = Crew(learner.answers())
        if not ranks().leads:
            ended: TrainingParity = crew.serve()
            return ended
        tell = progress or (lambda *_: None)
        tell("building models", 0, 0)
        side = Side.of("baseline", baseline, seed)
        if why := next(filter(None, crew.ask("build", cell, cell == ORACLE)), ""):
            raise CannotRunError(f"the candidate cannot be had in {cell.dtype}: {why}")
        whole = side.trained(state_of(side.model), cell)
        forward = compared(
            replace(side, model=whole), crew, cell, tensors(given.every[0][0]), Protocol(progress=tell), None
        )
        if forward.result.verdict is Verdict.DIVERGED:
            steps = None
        else:
            steps = _steps(side, crew, cell, given, loops[0], seed, forward, narrow, share, tell)
    covered = forward.covered
    verdict, reason = _verdict(forward, steps)
    culprits = _forward_culprits(forward) if steps is None else steps.found.culprits
    free = SideBySide() if steps is None else steps.free
    notes = [*side.notes, *hidden(state_of(side.model)), *forward.notes, *_notes(steps, scheduled=scheduled)]
    found = TrainingParity(
        verdict=verdict,
        reason=reason,
        first_divergence=culprits[0] if culprits else None,
        culprits=culprits,
        bit_exact=steps is not None and not any(e for batch in free.compared for e in batch.errors.values()),
        steps=free.steps,
        batches=len(given.every),
        losses=free.losses,
        rates=free.rates,
        rows=(*_forward_rows(forward), *(() if steps is None else steps.found.rows)),
        **described(side, candidate, covered),
        baseline_procedure=named[0],
        candidate_procedure=f"{named[1]}, {ranks().size} processes"
        + (f", {share} of which share the samples" if share == ranks().size > 1 else "")
        + (f" in {share} groups that share the samples" if 1 < share < ranks().size else ""),
        data=given.source,
        dtype=cell.dtype if set(narrow) == {"off"} else f"autocast to {', '.join(sorted(narrow))}",
        device=cell.device,
        coverage=covered,
        notes=tuple(dict.fromkeys(notes)),
        seed=seed,
        environment=describe(),
        command=command,
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    crew.end(found)
    return found


@dataclass
class _Steps:
    """What the trainings have come to, and why that may be no match."""

    free: SideBySide
    found: Blamed
    doubts: list[str]
    followed: int
    unread: Mapping[str, tuple[int, ...]]
    undropped: bool


def _check(given: Batches, asked: Mapping[str, object], share: int) -> None:
    size = ranks().size
    if size == 1:
        raise UsageError(
            "--sharded trains a model that several processes hold between them: start it with torchrun."
        )
    wanted = [option for option, value in asked.items() if value]
    if wanted:
        raise UsageError(f"{wanted[0]} cannot be had with a sharded candidate; leave it out.")
    samples = min(len(each[1]) for each in given.every)
    for count, of in ((size, "processes"), (samples, "samples")):
        if count % share:
            raise UsageError(
                f"--data-parallel {share} does not divide {count} {of} evenly; give a number that does."
            )


def _shared(batch: Batch, share: int) -> Batch:
    """This rank's samples: of as many ranks as make a group each has the same."""
    if share == 1:
        return batch
    group = ranks().rank // (ranks().size // share)
    size = len(batch[1]) // share
    inputs, labels = (each[group * size : (group + 1) * size] for each in batch)
    return inputs, labels


def _steps(
    side: Side,
    crew: Crew,
    cell: Cell,
    given: Batches,
    loop: Trainer,
    seed: int,
    forward: Compared,
    narrow: Collection[str],
    share: int,
    tell: Progress,
) -> _Steps:
    whole = side.trained(state_of(side.model), cell)
    start = {plain(name): tensor.detach().clone() for name, tensor in whole.named_parameters()}
    trainable = {plain(name) for name, parameter in whole.named_parameters() if parameter.requires_grad}
    tell(TOLD[Forcing.NOTHING], 0, 3)
    with translating(partial(failed, "the baseline's trainer", _alone)):
        kept = trained(whole, loop, given.every, seed)
    held = crew.ask("state")
    lying = Lying.told(forward.spreads, held, forward.names).tied(aliases(whole), held)
    shapes = {plain(name): tensor.shape for name, tensor in state_of(whole).items()}
    values = [event.value for event in forward.baseline.events.values()]
    allowed = limits_of(
        cell,
        narrow,
        largest=max(each.numel() for each in (*values, *start.values())),
        channel=max((e.numel() // e.shape[1] for e in values if e.dim() > 1 and e.shape[1]), default=1),
        outputs=max((each.numel() for each in forward.baseline.outputs), default=1),
    )
    buffers = {plain(name) for name, each in whole.named_buffers() if each.is_floating_point()}
    relation = Correspondence(
        {name: Assembly.of(name) for name in (*start, *buffers) if name in lying.placed},
        {},
        frozenset(buffers),
    )
    roundoff = torch.finfo(cell.torch_dtype).eps / 2
    parts = crew.ask("train", Forcing.NOTHING, None)
    lying = lying.settled(kept[0], [each[0] for each in parts])
    by_batch = [lying.expected(each, shapes) for each in kept]
    expected = [[each[rank] for each in by_batch] for rank in range(ranks().size)]
    strangers = lying.strangers(parts, start)
    untrained = lying.untrained(parts)
    names = [[lying.own[rank][n] for n, on in untrained.items() if rank in on] for rank in range(len(parts))]
    unread = bool(untrained) and all(crew.ask("unread", names))
    lying = lying.without(untrained) if unread else lying
    comparing = Comparing(lying, kept, start, relation, allowed, roundoff, share)

    def run(forcing: Forcing, number: int) -> SideBySide:
        tell(TOLD[forcing], number, 3)
        return comparing.training(crew.ask("train", forcing, expected), forcing)

    def heard(scope: str) -> list[dict[str, list[Tensor]]]:
        again = side.trained(state_of(side.model), cell)
        return [each.arrived for each in trained(again, loop, given.every, seed, listening=[scope])]

    free = comparing.training(parts, Forcing.NOTHING)
    forced = run(Forcing.PHASES, 2)
    order = _Order(forward, start)
    mending = Mending(
        lying,
        kept,
        expected,
        forward.placed,
        comparing.reduced,
        comparing.divided,
        heard if share == 1 else None,
    )
    forced, followed = mending.one_by_one(forced, lambda: run(Forcing.PHASES, 2), allowed, order.order)
    ways = any(place.phase in WAYS for place in exceeding(forced, allowed))
    whole_steps = run(Forcing.STEPS, 3) if ways and not same_weights(free, allowed) else free
    found = blamed(order, free, forced, whole_steps, allowed)
    lost = sorted(name for name in trainable if name not in lying.placed)
    doubts = [f"how {name} lies on the ranks could not be told" for name in lost[:1]]
    doubts += [f"{name} is trained and has no partner in the whole model" for name in sorted(strangers)[:1]]
    if all(not each.losses for each in kept):
        doubts.append(
            "no backward pass of the baseline was seen: let the trainer call backward() on the loss"
        )
    if not free.steps:
        doubts.append("the baseline's optimiser made no step")
    undropped = any(each.undropped for each in (kept[-1], *(each[-1] for each in parts)))
    if undropped:
        doubts.append("dropouts are on, and what the loops draw for them was not compared: set their p to 0")
    return _Steps(free, found, doubts, followed, untrained if unread else {}, undropped=undropped)


def _alone(why: str) -> ModelError:
    return ModelError(
        f"the baseline's trainer failed: {why}. It trains the whole on the first process alone, and must wait for no "
        "other."
    )


class _Order:
    """Places by the whole's names, in the order in which it uses its parameters."""

    def __init__(self, forward: Compared, start: Mapping[str, Tensor]) -> None:
        self._start = start
        self._used: dict[str, int] = {}
        for number, event in enumerate(forward.baseline.events.values()):
            for name in event.uses:
                self._used.setdefault(name, number)
        self._order = {name: number for number, name in enumerate(start)}

    def order(self, place: Place) -> tuple[float, ...]:
        """Larger is later: a gradient is complete once its first use has been gone back through."""
        phase, name = _PHASES.index(place.phase), str(place.subject)
        if place.phase in (Phase.BACKWARD, Phase.CLIP):
            return (phase, not name, -self._used.get(name, 0), self._order.get(name, -1))
        return (phase, place.what == WEIGHT, self._order.get(name, -1))

    def names(self, place: Place) -> tuple[str, str]:
        """Both sides have the whole's."""
        name = str(place.subject) or place.what
        return name, name

    def shape(self, place: Place) -> tuple[int, ...]:
        """Of the whole's parameter."""
        tensor = self._start.get(str(place.subject))
        return () if tensor is None or place.phase is Phase.SCHEDULE else tuple(tensor.shape)

    def follows(self, _: Mapping[Place, int]) -> set[Place]:
        """Nothing: forward passes agree."""
        return set()


def _verdict(forward: Compared, steps: _Steps | None) -> tuple[Verdict, str]:
    if steps is None:
        first = forward.result.first_divergence
        return Verdict.DIVERGED, forward.result.reason or (first.reason if first is not None else "")
    if steps.found.culprits:
        return Verdict.DIVERGED, steps.found.culprits[0].reason
    if forward.result.verdict is not Verdict.MATCH:
        return Verdict.INCONCLUSIVE, forward.result.reason
    if steps.doubts:
        return Verdict.INCONCLUSIVE, steps.doubts[0]
    return Verdict.MATCH, ""


def _forward_culprits(forward: Compared) -> tuple[Divergence, ...]:
    found = []
    for row in forward.result.culprits:
        cause = row.cause
        limit = 0.0 if row.budget is None else row.budget.total
        error = float("inf") if row.total is None else row.total.nrmse
        found.append(
            Divergence(
                step=0,
                batch=0,
                phase=Phase.FORWARD,
                what=ACTIVATION,
                tensor=row.baseline or "",
                candidate=row.candidate or "",
                total=error,
                intrinsic=error,
                allowed=Allowed(limit=limit, rule="" if row.budget is None else row.budget.rule),
                reason=row.reason,
                comparison=row.total,
                cause=TrainingCause(code=UNEXPLAINED, summary="no cause is known")
                if cause is None
                else TrainingCause(code=cause.code, summary=cause.summary, confirmed=cause.confirmed),
            )
        )
    return tuple(found)


def _forward_rows(forward: Compared) -> Iterator[TensorRow]:
    blamed_rows = {row.index for row in forward.result.culprits}
    for row in forward.result.layers:
        if row.baseline is None or row.budget is None or row.total is None:
            continue
        yield TensorRow(
            phase=Phase.FORWARD,
            what=ACTIVATION,
            tensor=row.baseline,
            candidate=row.candidate or "",
            shape=row.shape,
            allowed=Allowed(limit=row.budget.total, rule=row.budget.rule),
            culprit=row.index in blamed_rows,
            first_step=0 if row.index in blamed_rows else None,
            total=(row.total.nrmse,),
            intrinsic=(None if row.intrinsic is None else row.intrinsic.nrmse,),
        )


def _notes(steps: _Steps | None, *, scheduled: bool) -> Iterator[str]:
    if steps is None:
        yield "the forward pass differs, so that no step of the training was compared"
        return
    yield from steps.found.notes
    if steps.followed:
        yield f"{steps.followed} gradients differ only because of those that are blamed"
    for name, on in steps.unread.items():
        yield f"{name} is read by nothing on {ranks_named(on)}, and not trained there"
    if steps.undropped:
        yield "dropouts were left out of the steps; the forward pass was compared with them"
    if scheduled and len({rate for both in steps.free.rates for rate in both}) == 1:
        yield (
            f"the learning rate never changed in these {steps.free.steps} steps, so that schedules were not compared"
        )
