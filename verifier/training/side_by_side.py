"""Two trainings side by side: each batch by the baseline first, then by the candidate, compared phase by phase."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from verifier.border.programs import translating
from verifier.environment import seed_all
from verifier.errors import ModelError
from verifier.lockstep.coroutine import Thread
from verifier.training.baseline_batch import ACTIVATION, BaselineBatch, Place
from verifier.training.candidate_batch import CandidateBatch
from verifier.training.correspondence import Correspondence, Forcing
from verifier.training.failing import failed
from verifier.training.history import History
from verifier.training.records import Phase
from verifier.training.steps import backward_passes_seen, steps_seen
from verifier.training.suspicions import explain, explain_end, explain_updates
from verifier.training.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.cells import Cell
    from verifier.training.pairing import Pairing
    from verifier.training.procedure import Trainer
    from verifier.training.records import Allowed, TrainingCause

    Batch = tuple[Tensor, Tensor]
    Progress = Callable[[str, int, int], None]

TOLD = {
    Forcing.NOTHING: "training side by side",
    Forcing.PHASES: "judging every phase on identical inputs",
    Forcing.STEPS: "judging every step on identical weights",
}


@dataclass
class SideBySide:
    """What two trainings were, batch by batch.

    `step_of` has the baseline's optimiser step of each batch, `rates_of` the learning rates of the candidate's
    parameters after each. `by_hand` says that one side, and one alone, has no optimiser, `options_differ` that two of
    one class are set otherwise, `moves` that the training moves weights, as far as was recorded.
    """

    compared: list[CandidateBatch] = field(default_factory=list)
    causes: dict[Place, TrainingCause] = field(default_factory=dict)
    losses: tuple[tuple[float, float], ...] = ()
    rates: tuple[tuple[float, float], ...] = ()
    rates_of: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    step_of: list[int] = field(default_factory=list)
    steps: int = 0
    by_hand: bool = False
    moves: bool = True
    options_differ: bool = False

    def explain_sites(self, causes: Mapping[int, TrainingCause]) -> None:
        """Take over causes of sites, by the position of their pair, that are better than those that are known."""
        for position, cause in causes.items():
            place = Place(Phase.FORWARD, ACTIVATION, position)
            if cause.confirmed or place not in self.causes:
                self.causes[place] = cause

    @property
    def forward_seen(self) -> bool:
        """Whether any tensor of a forward pass was compared."""
        return any(place.phase is Phase.FORWARD for batch in self.compared for place in batch.errors)

    @property
    def backward_seen(self) -> bool:
        """Whether any backward pass was compared."""
        return any(place.phase is Phase.LOSS for batch in self.compared for place in batch.errors)


class Training:
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
        with translating(partial(failed, f"the {self.role}'s trainer", self._failed)):
            return self._thread.resume()

    def _failed(self, why: str) -> ModelError:
        return ModelError(f"the {self.role}'s trainer failed at batch {self._given}: {why}")


def side_by_side(
    pairing: Pairing,
    cell: Cell,
    loops: tuple[Trainer, Trainer],
    batches: Sequence[Batch],
    allowed: Mapping[Phase, Allowed],
    *,
    forcing: Forcing,
    same_dtypes: bool,
    progress: Progress,
    seed: int,
) -> SideBySide:
    """Train both models, each batch by the baseline first, and compare them in every phase."""
    alignment = pairing.alignment
    graded = pairing.graded
    models = pairing.fresh(cell)
    relation = Correspondence(
        recipes=pairing.masters.assemblies,
        layouts=alignment.laid_out,
        buffers=frozenset(name for name, _ in models[1].named_buffers()),
        outputs=frozenset(
            k for k, each in enumerate(alignment.pairs) if each.baseline in alignment.baseline.outputs
        ),
    )
    history = None
    if forcing is Forcing.PHASES:
        history = History(len(batches), len(relation.recipes))
    sides = [
        Training(
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
    wrong: set[Place] = set()
    watches = [side.watch for side in sides]
    hooks = steps_seen(watches)
    try:
        with backward_passes_seen(watches):
            for side in sides:
                seed_all(seed)
                side.start()
            for number, batch in enumerate(batches):
                found.step_of.append(sides[0].watch.steps)
                kept = BaselineBatch()
                compared = CandidateBatch(kept, relation, allowed, forcing, same_dtypes, history)
                ledgers: tuple[BaselineBatch | CandidateBatch, ...] = (kept, compared)
                for side, ledger in zip(sides, ledgers, strict=True):
                    seed_all(seed + number)
                    side.take((batch[0].clone(), batch[1].clone()), ledger)
                losses.append((_number(kept.losses), _number(compared.losses)))
                rates.append((_first(kept.rates), _first(compared.rates)))
                _note_rates(found.rates_of, kept, compared)
                if history is not None:
                    found.causes |= explain(compared, watches[0], watches[1], wrong, alignment.pairs)
                    wrong.update(compared.exceeding())
                compared.forget()
                found.compared.append(compared)
                progress(TOLD[forcing], number + 1, len(batches))
            for side in sides:
                side.finish()
            end = CandidateBatch(BaselineBatch(), relation, allowed, forcing)
            end.over(*watches)
            if history is not None:
                found.causes |= explain_end(end, history)
                found.causes |= _updates(found, history, watches, relation, cell)
            end.forget()
            found.compared[-1].errors |= end.errors
            found.compared[-1].reasons |= end.reasons
            found.compared[-1].figures |= end.figures
    finally:
        for hook in hooks:
            hook.remove()
        for side in sides:
            side.close()
    found.by_hand = bool(sides[0].watch.optimisers) != bool(sides[1].watch.optimisers)
    found.options_differ = _set_otherwise(watches[0], watches[1], relation)
    found.losses, found.rates, found.steps = tuple(losses), tuple(rates), sides[0].watch.steps
    return found


def _note_rates(
    rates: dict[str, list[tuple[float, float]]], kept: BaselineBatch, compared: CandidateBatch
) -> None:
    """Note both learning rates of each of the candidate's parameters."""
    for name, rate in compared.rates.items():
        made = compared.relation.recipes.get(name)
        known = float("nan") if made is None else kept.rates.get(made.names[0], float("nan"))
        rates.setdefault(name, []).append((known, rate))


def _set_otherwise(baseline: Watch, candidate: Watch, relation: Correspondence) -> bool:
    """Whether optimisers of one class, on both sides of a parameter, have other options."""
    makers, groups = (baseline.makers(), candidate.makers()), (baseline.groups(), candidate.groups())
    for name, group in groups[1].items():
        other = relation.recipes[name].names[0] if name in relation.recipes else ""
        if makers[0].get(other) is makers[1].get(name) and other in groups[0]:
            b = groups[0][other]
            if any(
                b.get(key) != value
                for key, value in group.items()
                if key not in ("params", "lr", "initial_lr")
            ):
                return True
    return False


def _updates(
    found: SideBySide, history: History, watches: Sequence[Watch], relation: Correspondence, cell: Cell
) -> dict[Place, TrainingCause]:
    """The causes of updates that differ, where nothing simpler is known; and whether any update moves weights."""
    found.moves = history.moves()
    places = dict.fromkeys(
        place for compared in found.compared for place in compared.exceeding() if place not in found.causes
    )
    names = {name: recipe.names[0] for name, recipe in relation.recipes.items()}
    roundoff = torch.finfo(cell.torch_dtype).eps / 2
    return explain_updates(history, places, (watches[0].makers(), watches[1].makers()), names, roundoff)


def _number(losses: Sequence[Tensor]) -> float:
    """The sum of what a batch's backward passes start from; NaN where there was none."""
    return sum(map(float, losses)) if losses else float("nan")


def _first(rates: Mapping[str, float]) -> float:
    return next(iter(rates.values()), float("nan"))
