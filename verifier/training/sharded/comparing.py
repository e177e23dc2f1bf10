"""The batches of a candidate that several processes train, put together and compared with the whole's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from verifier.metrics import collect, measure
from verifier.sharded.aligning import wide
from verifier.training.baseline_batch import GRADIENT, LOSS, BaselineBatch, Place
from verifier.training.candidate_batch import CandidateBatch
from verifier.training.correspondence import Correspondence, Forcing
from verifier.training.history import History
from verifier.training.loss_reading import LossReading
from verifier.training.measuring import error_of, size
from verifier.training.records import Phase, TrainingCause
from verifier.training.sharded import causes
from verifier.training.sharded.losses import first, loss_cause, losses_of, nearest, total
from verifier.training.side_by_side import SideBySide
from verifier.training.suspicions import explain, explain_updates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from verifier.training.records import Allowed
    from verifier.training.sharded.lying import Lying
    from verifier.training.sharded.part_batch import PartBatch

_LOSS = Place(Phase.LOSS, LOSS, "")
_ABOUT = 1 + 1e-6
_OPTIMISER: Any = None  # of which there is one, as all are put together


@dataclass
class Joined:
    """What all processes have at a time, put together, as `verifier.training.steps.Seen` has it of one."""

    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    graded: Mapping[str, Tensor] = field(default_factory=dict)
    kept: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    options: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    optimisers: Mapping[int, Any] = field(default_factory=dict)

    def gradients(self, _: Any = None) -> Mapping[str, Tensor]:
        """All of them."""
        return self.graded

    def states(self, _: Any) -> Mapping[str, Mapping[str, Tensor]]:
        """What optimisers keep."""
        return self.kept

    def updated(self, _: Any) -> Mapping[str, Tensor]:
        """The parameters."""
        return self.parameters

    def groups(self) -> Mapping[str, dict[str, Any]]:
        """The options of each."""
        return self.options


@dataclass
class Comparing:
    """Compares trainings with the whole's, of which `kept` has every batch and `start` the weights before.

    `share` is how many groups of ranks have samples of their own; `reduced` says what the sum of terms is divided by
    that a gradient is made of before it is applied, `divided` by which number of passes it is divided then.
    """

    lying: Lying
    kept: Sequence[PartBatch]
    start: Mapping[str, Tensor]
    relation: Correspondence
    allowed: Mapping[Phase, Allowed]
    roundoff: float
    share: int = 1
    reduced: dict[str, int] = field(default_factory=dict)
    divided: dict[str, int] = field(default_factory=dict)

    def training(self, parts: Sequence[Sequence[PartBatch]], forcing: Forcing) -> SideBySide:
        """Compare what the ranks have done, batch by batch."""
        found = SideBySide()
        explaining = forcing is Forcing.PHASES
        history = History(len(self.kept), len(self.relation.recipes)) if explaining else None
        losses, rates = [], []
        wrong: set[Place] = set()
        start = self.start
        for number, kept in enumerate(self.kept):
            here = [each[number] for each in parts]
            found.step_of.append(found.steps)
            compared = CandidateBatch(kept, self.relation, self.allowed, forcing, history=history)
            watch = self._replay(compared, here, start)
            losses.append((total(kept), nearest(total(kept), here)))
            rates.append((first(kept.rates), first(compared.rates)))
            for name, rate in compared.rates.items():
                found.rates_of.setdefault(name, []).append((kept.rates.get(name, float("nan")), rate))
            if explaining:
                new = [place for place in compared.exceeding() if place not in wrong]
                known: Any = watch
                found.causes |= explain(compared, known, known, wrong, ())
                if _LOSS in compared.exceeding() and _LOSS not in found.causes:
                    loss = loss_cause(compared, total(kept), here)
                    found.causes |= {} if loss is None else {_LOSS: loss}
                for place in new:
                    cause = self._between(place, kept, here, found.causes.get(place))
                    if cause is not None:
                        found.causes[place] = cause
                wrong.update(new)
            compared.forget()
            found.compared.append(compared)
            found.steps += max((len(row) for row in kept.applied.values()), default=0)
            start = {**start, **kept.parameters}
        if history is not None:
            found.moves = history.moves()
            places = [p for each in found.compared for p in each.exceeding() if p not in found.causes]
            makers = self.kept[-1].makers, self._first_of(parts, lambda each: each.makers)
            found.causes |= explain_updates(
                history, dict.fromkeys(places), makers, {name: name for name in start}, self.roundoff
            )
        self._over(found, [each[-1] for each in parts], forcing)
        found.losses, found.rates = tuple(losses), tuple(rates)
        last = [each[-1] for each in parts]
        found.by_hand = bool(self.kept[-1].makers) != any(each.makers for each in last)
        options = self._options(last)
        found.options_differ = any(
            options.get(name, {}).get(key, value) != value
            for name, group in self.kept[-1].groups.items()
            for key, value in group.items()
            if key not in ("params", "lr", "initial_lr")
        )
        return found

    def _over(self, found: SideBySide, last: Sequence[PartBatch], forcing: Forcing) -> None:
        """Compare what the loops leave behind, after the last batch."""
        end = CandidateBatch(BaselineBatch(), self.relation, self.allowed, forcing)
        whole = self.kept[-1]
        weights, buffers = (
            self._joined({n: [t] for n, t in table.items()}, last, partial(_left_over, k))
            for k, table in enumerate(whole.over)
        )
        known: Any = Joined(*whole.over)
        other: Any = Joined(weights, buffers)
        end.over(known, other)
        here = found.compared[-1]
        here.errors |= end.errors
        here.reasons |= end.reasons
        here.figures |= end.figures

    def _replay(
        self, compared: CandidateBatch, parts: Sequence[PartBatch], start: Mapping[str, Tensor]
    ) -> Joined:
        """Show a batch to what compares it, as if one process had made it; the last that it had."""
        kept = compared.kept
        compared.sizes = {
            (phase, GRADIENT): size(t for row in table.values() for t in row)
            for phase, table in ((Phase.BACKWARD, kept.gradients), (Phase.CLIP, kept.applied))
        }
        raw, applied = self._gradients(kept, parts, list(compared.sizes.values()))
        early = {name for name in kept.applied if name in raw and name not in applied}
        whole = total(kept)
        compared.kept = replace(
            kept,
            losses=[torch.tensor(whole)] if kept.losses else [],
            readings=[LossReading()] if kept.losses else [],
            gradients={name: row[-1:] for name, row in kept.gradients.items() if name in raw},
            applied={name: row for name, row in kept.applied.items() if name not in early},
        )
        options = self._options(parts)
        trainable = {
            name: tensor.clone().requires_grad_(
                not any(own.get(name) in each.frozen for own, each in zip(self.lying.own, parts, strict=True))
            )
            for name, tensor in start.items()
        }
        makers: Any = {0: None} if any(each.makers for each in parts) else {}
        watch = Joined(trainable, options=options, optimisers=makers)
        compared.began(watch)
        if not math.isnan(losses_of(parts)[0]):
            held = self._joined(kept.gradients, parts, lambda each: each.held)
            compared.loss(replace(watch, graded=held), torch.tensor(nearest(whole, parts)), LossReading())
            compared.backward_ended(replace(watch, graded={n: t for n, t in raw.items() if t is not None}))
        times = max((len(row) for each in parts for row in each.applied.values()), default=0)
        for k in range(times):
            graded = {name: row[k] for name, row in applied.items() if k < len(row)}
            compared.before_step(replace(watch, graded=graded), _OPTIMISER)
            states = {
                what: self._joined(table, parts, lambda each, w=what: each.states.get(w, {}), k)  # type: ignore[misc]
                for what, table in kept.states.items()
            }
            weights = self._joined(kept.weights, parts, lambda each: each.weights, k)
            compared.after_step(replace(watch, kept=states, parameters=weights), _OPTIMISER)
        ends = self._joined(
            {n: [t] for n, t in kept.parameters.items()},
            parts,
            lambda each: {n: [t] for n, t in each.parameters.items()},
        )
        rates = self._first_of([[each] for each in parts], lambda each: each.rates)
        ended = {name: {**group, "lr": rates.get(name, group["lr"])} for name, group in options.items()}
        left = self._joined(kept.buffers, parts, lambda each: each.buffers)
        compared.forward_ended(Joined(buffers=left))
        compared.ended(replace(watch, parameters=ends, options=ended))
        return replace(watch, parameters=trainable)

    def _gradients(
        self, kept: Any, parts: Sequence[PartBatch], sizes: Sequence[float]
    ) -> tuple[dict[str, Tensor | None], dict[str, list[Tensor]]]:
        """Gradients after the backward pass where they count, and as they are applied.

        What is applied rightly may have been anything before. Where it is not, what was before is at fault if it is
        neither right nor made of terms that have still to be added up.
        """
        raw: dict[str, Tensor | None] = {}
        applied: dict[str, list[Tensor]] = {}
        for name in self.lying.placed:
            wanted, before = kept.applied.get(name, []), kept.gradients.get(name)
            times = max(
                len(part.applied.get(own.get(name, ""), []))
                for own, part in zip(self.lying.own, parts, strict=True)
            )
            if not wanted and not times:
                continue
            made = [
                self._one(name, wanted[min(k, len(wanted) - 1)], parts, lambda each: each.applied, k)
                for k in range(times if wanted else 0)
            ]
            right = len(made) == len(wanted) and all(
                m is not None and self._within(w, m, sizes[1]) for w, m in zip(wanted, made, strict=True)
            )
            then = None if before is None else self._before(name, before[-1], parts, sizes[0])
            sound = before is not None and then is not None and self._within(before[-1], then, sizes[0])
            if before is not None and (sound or not right):
                raw[name] = then
            if right or sound or before is None:
                applied[name] = [each for each in made if each is not None]
        return raw, applied

    def _before(self, name: str, whole: Tensor, parts: Sequence[PartBatch], kind: float) -> Tensor | None:
        """The gradient that the backward pass leaves; of terms that are added up later what they make."""
        joined = self._one(name, whole, parts, lambda each: each.gradients, -1)
        if joined is not None and self._within(whole, joined, kind):
            return joined
        terms, applied = (
            self._pieces(name, whole, parts, found)
            for found in (lambda each: each.gradients, lambda each: each.applied)
        )
        if number := causes.reduced(terms, applied, self.share):
            self.reduced.setdefault(name, number)
        alone = causes.never_reduced(terms, applied)
        summed = None if alone else causes.summed(terms, self.share, number)
        made = joined if summed is None else summed.to(whole.dtype, copy=True)
        passes = max(len(parts[rank].losses) for rank in self.lying.ranks[name])
        if made is None or passes < 2 or not self._within(whole, made / passes, kind):
            return made
        # A schedule divides once all portions are through; where nothing did, what is applied is as large as this.
        least = self._one(name, whole, parts, lambda each: each.applied, -1)
        if least is None or float(least.norm()) > _ABOUT * float(whole.norm()):
            return made
        self.divided[name] = passes
        return made / passes

    def _within(self, whole: Tensor, joined: Tensor, kind: float) -> bool:
        (moments,) = collect([measure(wide(whole), joined)])
        return error_of(moments, kind) <= self.allowed[Phase.CLIP].limit

    def _one(
        self,
        name: str,
        whole: Tensor,
        parts: Sequence[PartBatch],
        found: Callable[[PartBatch], Mapping[str, Any]],
        number: int = 0,
    ) -> Tensor | None:
        """What the ranks have of one tensor, put together, in the whole's dtype."""

        def at(part: PartBatch) -> dict[str, Tensor]:
            rows = found(part)
            listed = {n: r if isinstance(r, list) else [r] for n, r in rows.items()}
            return {n: r[number] for n, r in listed.items() if -len(r) <= number < len(r)}

        joined = self.lying.joined(name, whole, self.lying.pieces(name, at, parts))
        return None if joined is None else joined.to(whole.dtype, copy=True)  # it may be overwritten

    def _joined(
        self,
        table: Mapping[str, list[Tensor]],
        parts: Sequence[PartBatch],
        found: Callable[[PartBatch], Mapping[str, Any]],
        number: int = 0,
    ) -> dict[str, Tensor]:
        made = {}
        for name, row in table.items():
            if name not in self.lying.placed or not row:
                continue
            joined = self._one(name, row[min(number, len(row) - 1)], parts, found, number)
            if joined is not None:
                made[name] = joined
        return made

    def _options(self, parts: Sequence[PartBatch]) -> dict[str, dict[str, Any]]:
        return {
            name: dict(group)
            for name, group in self._first_of([[p] for p in parts], lambda e: e.groups).items()
        }

    def _first_of(
        self, parts: Sequence[Sequence[PartBatch]], found: Callable[[PartBatch], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Of each parameter what the first rank says that has it."""
        said: dict[str, Any] = {}
        for name in self.lying.placed:
            for rank in self.lying.ranks[name]:
                own = self.lying.own[rank][name]
                table = found(parts[rank][-1])
                if own in table:
                    said.setdefault(name, table[own])
        return said

    def _pieces(
        self,
        name: str,
        whole: Tensor,
        parts: Sequence[PartBatch],
        found: Callable[[PartBatch], Mapping[str, Any]],
    ) -> causes.Pieces:
        """What the ranks had last of a tensor of a parameter's."""
        pieces = self.lying.pieces(name, lambda each: {n: r[-1] for n, r in found(each).items()}, parts)
        return causes.Pieces(name, wide(whole), pieces, self.lying.ranks[name], self.lying.placed[name])

    def _between(
        self, place: Place, kept: PartBatch, parts: Sequence[PartBatch], known: TrainingCause | None
    ) -> TrainingCause | None:
        """What goes wrong between processes, where that explains it; else what is known."""
        name = str(place.subject)
        row, found = _table(place, kept, name)
        if not row or name not in self.lying.placed:
            return known
        pieces = self._pieces(name, row[-1], parts, found)
        own = [(self.lying.own[rank][name], parts[rank]) for rank in self.lying.ranks[name]]
        if untrained := causes.untrained(pieces, [each.untrained(n) for n, each in own]):
            return untrained
        if place.phase is Phase.BACKWARD:
            applied = self._pieces(name, row[-1], parts, lambda each: each.applied)
            held = self.lying.pieces(name, lambda each: each.held, parts)
            alone, number = causes.never_reduced(pieces, applied), self.reduced.get(name, 0)
            made = None if alone else causes.summed(pieces, self.share, number)
            uncleared = (
                causes.uncleared(replace(pieces, whole=pieces.whole * self.divided.get(name, 1)), held)
                if made is None
                else causes.uncleared_term(pieces, held, made, self.share)
            )
            if uncleared is not None:
                return uncleared
            if made is not None:
                pieces = replace(pieces, found=self.lying.cut(name, made))
        if place.what == GRADIENT:
            return causes.of_gradient(pieces, known)
        options = [each.groups.get(n, {}) for n, each in own]
        return causes.set_apart(pieces, options) or known or causes.some(pieces)


def _left_over(which: int, part: PartBatch) -> Mapping[str, Tensor]:
    """Parameters (0) or buffers (1) as a loop leaves them."""
    return part.over[which]


def _table(
    place: Place, kept: PartBatch, name: str
) -> tuple[list[Tensor], Callable[[PartBatch], Mapping[str, Any]]]:
    """The whole's tensors at a place, and where the ranks have theirs."""
    if place.phase is Phase.BACKWARD:
        return kept.gradients.get(name, []), lambda each: each.gradients
    if place.phase is Phase.CLIP:
        return kept.applied.get(name, []), lambda each: each.applied
    if place.phase is Phase.AFTER:
        there = [kept.parameters[name]] if name in kept.parameters else []
        return there, lambda each: {n: [t] for n, t in each.parameters.items()}
    if place.phase is not Phase.OPTIMISER:
        return [], lambda _: {}
    if place.what in kept.states:
        return kept.states[place.what].get(name, []), lambda each: each.states.get(place.what, {})
    return kept.weights.get(name, []), lambda each: each.weights
