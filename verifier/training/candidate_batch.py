"""One batch of the candidate's training, compared phase by phase with what was kept of the baseline's."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from verifier.metrics import collect, compare, measure
from verifier.training.baseline_batch import (
    ACTIVATION,
    BUFFER,
    GRADIENT,
    GRADIENT_OF_ACTIVATION,
    LOSS,
    NORM,
    RATE,
    WEIGHT,
    BaselineBatch,
    Place,
    copies,
    plain,
)
from verifier.training.correspondence import Forcing
from verifier.training.evidence import Answer, Evidence, Loss
from verifier.training.measuring import error_of, norm, overlaps, relative, size
from verifier.training.records import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from torch import Tensor
    from torch.optim import Optimizer

    from verifier.records import Comparison
    from verifier.training.baseline_batch import Named
    from verifier.training.correspondence import Correspondence
    from verifier.training.history import History
    from verifier.training.loss_reading import LossReading
    from verifier.training.records import Allowed
    from verifier.training.steps import Seen


@dataclass
class CandidateBatch:
    """The candidate's batch against the baseline's.

    The first pass is compared with the first, the second with the second; where the candidate passes the samples
    through in other portions, its first rows with the baseline's first rows. `errors` are relative, by place, the
    largest of the batch: infinite where shapes differ or one side alone has the tensor; `reasons` then says which.
    With `same_dtypes` a tensor that is not computed in the baseline's dtype counts like one of another shape.
    `evidence` and `history` are kept where phases are forced; `sizes` are what errors of a kind are relative to.
    """

    kept: BaselineBatch
    relation: Correspondence
    allowed: Mapping[Phase, Allowed]
    forcing: Forcing
    same_dtypes: bool = False
    history: History | None = None
    errors: dict[Place, float] = field(default_factory=dict)
    figures: dict[Place, Comparison] = field(default_factory=dict)
    reasons: dict[Place, str] = field(default_factory=dict)
    alone: set[Place] = field(default_factory=set)
    losses: list[Tensor] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)
    in_portions: bool = False
    stepped: bool = False
    sizes: dict[tuple[Phase, str], float] = field(default_factory=dict)
    _turns: Counter[Place] = field(default_factory=Counter)
    _rows: Counter[Place] = field(default_factory=Counter)
    _stepped: set[str] = field(default_factory=set)

    def exceeding(self) -> list[Place]:
        """Where the error is larger than is allowed."""
        return [p for p, error in self.errors.items() if not error <= self.allowed[p.phase].limit]

    @property
    def _explaining(self) -> bool:
        return self.forcing is Forcing.PHASES

    def _forces(self, place: Place) -> bool:
        if self.forcing is Forcing.STEPS:
            return place.phase in (Phase.STATISTICS, Phase.AFTER)
        # What an optimiser keeps need not be the same for the same updates; its rounding must not add up.
        own = place.phase is Phase.OPTIMISER and place.what != WEIGHT
        return self._explaining and not (own and self.errors[place] > self.allowed[place.phase].limit)

    def began(self, watch: Seen) -> None:
        """Keep what a forced batch starts from."""
        if self._explaining:
            self.evidence.buffers = copies(watch.buffers)
            self.evidence.weights = copies(watch.parameters)
            if self.history is not None:
                self.history.begins({**watch.parameters, **watch.buffers})

    def activation(self, pair: int, tensor: Tensor) -> None:
        """Compare with the baseline's, which takes its place if forced."""
        place = Place(Phase.FORWARD, ACTIVATION, pair)
        forced = self._site(place, tensor.detach(), self.kept.activations)
        if forced is not None and not overlaps(tensor):
            # Through `data`, so that autograd need not know: what it has saved of this tensor is forced as well.
            tensor.data.copy_(forced)

    def activation_gradient(self, pair: int, gradient: Tensor) -> Tensor | None:
        """Compare with the baseline's, which takes its place if forced."""
        place = Place(Phase.BACKWARD, GRADIENT_OF_ACTIVATION, pair)
        return self._site(place, gradient.detach(), self.kept.activation_gradients)

    def constant(self, pair: int) -> None:
        """Do not ask for its gradient."""
        # The parameters above it tell that they have no gradient.
        self.kept.activation_gradients.pop(pair, None)

    def forward_ended(self, watch: Seen) -> None:
        """Compare the buffers."""
        if self._whole():
            self._tensors(Phase.STATISTICS, BUFFER, self.kept.buffers, watch.buffers)

    def _whole(self) -> bool:
        """Whether as many samples have passed as the baseline's did, if they pass in other portions."""
        if not self.in_portions:
            return True
        place = next(iter(self._rows))
        rows = self.kept.activations.get(int(place.subject), [])
        return self._rows[place] >= sum(len(each) for each in rows)

    def loss(self, watch: Seen, loss: Tensor, reading: LossReading) -> None:
        """Compare the loss."""
        place = Place(Phase.LOSS, LOSS, "")
        self.losses.append(loss.clone())
        if self._explaining:
            self.evidence.held = copies(watch.gradients())
            self.evidence.losses[1].append(Loss(float(loss), reading))
        if self.in_portions:
            return  # their sum is compared
        number = self._turn(place)
        if number < len(self.kept.losses):
            self._compare(place, self.kept.losses[number], loss, ())
        elif self.kept.losses:
            self._note(
                place, math.inf, f"the candidate makes {number + 1} backward passes, {number} are made"
            )

    def backward_ended(self, watch: Seen) -> None:
        """Compare the gradients."""
        if not self._whole():
            return
        candidate, place = watch.gradients(), Place(Phase.BACKWARD, NORM, "")
        number = self._turn(place)
        number = -1 if self.in_portions else number
        baseline = [row[number] for row in self.kept.gradients.values() if number < len(row)]
        length = norm(candidate.values())  # before they may be overwritten
        self._tensors(Phase.BACKWARD, GRADIENT, self.kept.gradients, candidate)
        self._note(place, relative(norm(baseline), length))
        self._applied(watch.gradients())

    def before_step(self, watch: Seen, optimiser: Optimizer) -> None:
        """Compare the gradients as they are applied."""
        self.stepped = True
        self._tensors(Phase.CLIP, GRADIENT, self.kept.applied, watch.gradients(optimiser))
        self.groups = {name: dict(group) for name, group in watch.groups().items()}
        self._applied(watch.gradients(optimiser))

    def _applied(self, gradients: Mapping[str, Tensor]) -> None:
        if self._explaining and self.history is not None:
            for name, gradient in gradients.items():
                self.history.gradient(name, gradient)

    def after_step(self, watch: Seen, optimiser: Optimizer) -> None:
        """Compare the optimiser's state and the weights."""
        for what, tensors in watch.states(optimiser).items():
            self._tensors(Phase.OPTIMISER, what, self.kept.states.get(what, {}), tensors)
        self._tensors(Phase.OPTIMISER, WEIGHT, self.kept.weights, watch.updated(optimiser))

    def ended(self, watch: Seen) -> None:
        """Compare the learning rates, and note what the candidate has left out."""
        groups = watch.groups()
        if self._explaining:
            both = zip(self.kept.losses, self.kept.readings, strict=True)
            self.evidence.losses[0].extend(Loss(float(loss), reading) for loss, reading in both)
        if self.in_portions:
            sums = [sum(map(float, each)) for each in (self.kept.losses, self.losses)]
            self._note(Place(Phase.LOSS, LOSS, ""), relative(*sums))
        self.rates = {name: float(group["lr"]) for name, group in groups.items()}
        shared = len({*self.rates.values()}) == len({*self.kept.rates.values()}) == 1
        for name, recipe in self.relation.recipes.items():
            candidate, baseline = self.rates.get(name), self.kept.rates.get(recipe.names[0])
            if candidate is not None and baseline is not None:
                self._note(Place(Phase.SCHEDULE, RATE, "" if shared else name), relative(baseline, candidate))
        self._tensors(Phase.AFTER, WEIGHT, _once(self.kept.parameters), watch.parameters)
        if self._explaining:
            for name, group in groups.items():
                made = self.relation.recipes.get(name)
                rate = None if made is None else self.kept.rates.get(made.names[0])
                if rate is not None:
                    group["lr"] = rate
        self._missing()

    def over(self, baseline: Seen, candidate: Seen) -> None:
        """Both loops have ended: compare what they leave behind, buffers included."""
        for what, b, c in (
            (f"{WEIGHT} at the end", baseline.parameters, candidate.parameters),
            (f"{BUFFER} at the end", baseline.buffers, candidate.buffers),
        ):
            self._tensors(Phase.AFTER, what, _once(b), c)

    def forget(self) -> None:
        """Let go of all tensors; the numbers stay."""
        self.kept, self.evidence, self.history = BaselineBatch(), Evidence(), None

    def _missing(self) -> None:
        """What the baseline did and the candidate did not."""
        for pair, row in self.kept.activations.items():
            self._rows_left_out(Place(Phase.FORWARD, ACTIVATION, pair), row, "the candidate does not make it")
        for pair, row in self.kept.activation_gradients.items():
            place = Place(Phase.BACKWARD, GRADIENT_OF_ACTIVATION, pair)
            self._rows_left_out(place, row, "the candidate's has no gradient")
        if not (self.in_portions and self.losses):
            place = Place(Phase.LOSS, LOSS, "")
            self._never(place, len(self.kept.losses), "no backward pass of the candidate was seen")
        tables = [
            (Phase.BACKWARD, GRADIENT, self.kept.gradients, "the candidate's has no gradient"),
            (Phase.CLIP, GRADIENT, self.kept.applied, "the candidate makes no step with it"),
            *(
                (Phase.OPTIMISER, w, t, f"the candidate's optimiser has no {w}")
                for w, t in self.kept.states.items()
            ),
            (Phase.OPTIMISER, WEIGHT, self.kept.weights, "the candidate makes no step"),
        ]
        for phase, what, table, reason in tables:
            for name, recipe in self.relation.recipes.items():
                if name not in self.relation.buffers and all(piece in table for piece in recipe.names):
                    times = min(len(table[piece]) for piece in recipe.names)
                    if self.in_portions and phase is Phase.BACKWARD:
                        times = min(times, 1)
                    self._never(Place(phase, what, name), times, reason)

    def _rows_left_out(self, place: Place, row: list[Tensor], reason: str) -> None:
        if not (self.in_portions and self._turns[place]):
            self._never(place, len(row), reason)
            return
        passed, every = self._rows[place], sum(len(each) if each.dim() else 1 for each in row)
        if passed < every:
            self._note(place, math.inf, f"{passed} of {every} rows")

    def _never(self, place: Place, times: int, reason: str) -> None:
        seen = self._turns[place]
        if seen < times:
            self._note(place, math.inf, f"{seen} of {times} times in the batch" if seen else reason)
            if not seen:
                self.alone.add(place)

    def _turn(self, place: Place) -> int:
        """How often the candidate has been here in this batch, before now."""
        self._turns[place] += 1
        return self._turns[place] - 1

    def _note(self, place: Place, error: float, reason: str = "") -> None:
        known = self.errors.get(place, 0.0)
        self.errors[place] = known if known >= error else error
        if reason:
            self.reasons.setdefault(place, reason)

    def _site(self, place: Place, tensor: Tensor, table: Mapping[int, list[Tensor]]) -> Tensor | None:
        """Compare at a pair; what the candidate's tensor is to be, if that is another than it is."""
        row, number = table.get(int(place.subject), []), self._turn(place)
        baseline = self._rows_of(place, tensor, row, number)
        if baseline is None:
            if row and not self.in_portions:
                times = f"the candidate makes it {number + 1} times in a batch, not {number}"
                self._note(place, math.inf, times)
            return None
        if self.same_dtypes and baseline.dtype != tensor.dtype:
            said = [str(each.dtype).removeprefix("torch.") for each in (tensor, baseline)]
            self._note(place, math.inf, f"it is computed in {said[0]}, the baseline's in {said[1]}")
        layout = self.relation.layouts.get(int(place.subject))
        shown = tensor if layout is None else layout.back(tensor, baseline.shape)
        if self._explaining and place.phase is Phase.BACKWARD and place.subject in self.relation.outputs:
            self._answer(place, baseline, shown, number)
        same = self._compare(place, baseline, shown, table.values())
        if same or not self._forces(place) or shown.shape != baseline.shape:
            return None
        forced = baseline if layout is None else layout.forth(baseline, tensor.shape)
        return forced.to(tensor.dtype)

    def _rows_of(self, place: Place, tensor: Tensor, row: list[Tensor], number: int) -> Tensor | None:
        """The baseline's tensor that the candidate's belongs to: of the same pass, or rows of the same samples."""
        start = self._rows[place]
        self._rows[place] += len(tensor) if tensor.dim() else 1
        if number < len(row):
            same_pass = row[number].shape[:1] == tensor.shape[:1] or row[number].dim() == 0
            if same_pass and not self.in_portions:
                return row[number]
        whole = bool(row) and tensor.dim() > 0 and {each.shape[1:] for each in row} == {tensor.shape[1:]}
        # A batch's portions show at the first site that is met.
        first = place.phase is Phase.FORWARD and len(self._rows) == 1 and not number
        if not (whole and (self.in_portions or first)) or int(place.subject) in self.relation.layouts:
            return row[number] if number < len(row) and not self.in_portions else None
        rows = torch.cat(row)[start : start + len(tensor)]
        if len(rows) < len(tensor):
            return None
        self.in_portions = True
        return rows

    def _answer(self, place: Place, baseline: Tensor, candidate: Tensor, number: int) -> None:
        row = self.kept.activations.get(int(place.subject), [])
        start = self._rows[place] - len(candidate) if candidate.dim() else 0
        same = row[min(number, len(row) - 1)]  # one pass may be gone back through twice
        outputs = torch.cat(row)[start : start + len(candidate)] if self.in_portions else same
        if outputs.shape == baseline.shape == candidate.shape:
            self.evidence.answers.append(Answer(outputs, baseline, candidate.clone()))

    def _tensors(self, phase: Phase, what: str, kept: Named, candidate: Mapping[str, Tensor]) -> None:
        """Compare named tensors, each with what it should be made of; overwrite them if that is wanted."""
        last = self.in_portions and phase in (Phase.STATISTICS, Phase.BACKWARD)
        for name, tensor in candidate.items():
            recipe = self.relation.recipes.get(name)
            if recipe is None:
                continue
            place = Place(phase, what, name)
            number = self._turn(place)
            rows = {piece: kept.get(piece, []) for piece in recipe.names}
            if any((not row if last else number >= len(row)) for row in rows.values()):
                times = f"{number + 1} times in the batch, the baseline's {number}"
                self._note(place, math.inf, times if number else f"the baseline's has no {what} here")
                if not number:
                    self.alone.add(place)
                continue
            pieces = {piece: row[-1 if last else number] for piece, row in rows.items()}
            if tensor.dim() == 0:
                baseline = pieces[recipe.names[0]].reshape(-1)[:1].reshape(())
            elif not recipe.fits({piece: tuple(each.shape) for piece, each in pieces.items()}, tensor.shape):
                self._note(place, math.inf, f"the baseline's {what} has another shape")
                continue
            else:
                baseline = recipe.make(pieces, tensor.shape)
            same = self._compare(place, baseline.detach(), tensor.detach(), kept.values())
            if self._explaining:
                self._remember(place, name, recipe.names[0], baseline.detach(), tensor.detach())
            if not same and self._forces(place):
                tensor.data.copy_(baseline)

    def _remember(
        self, place: Place, name: str, baseline_name: str, baseline: Tensor, candidate: Tensor
    ) -> None:
        """Keep of a pair of tensors what causes are found in."""
        if place.phase in (Phase.BACKWARD, Phase.CLIP):
            table = self.evidence.gradients if place.phase is Phase.BACKWARD else self.evidence.applied
            table[name] = baseline, baseline if self.errors[place] == 0 else candidate.clone()
        if self.history is None:
            return
        if place.phase is Phase.STATISTICS or place == (Phase.AFTER, WEIGHT, name):
            self.history.ends(name, baseline)
        if place.what != WEIGHT:
            return
        if place.phase is Phase.OPTIMISER or (place.phase is Phase.AFTER and name not in self._stepped):
            options = self.kept.groups.get(baseline_name, {}), self.groups.get(name, {})
            by_hand = place.phase is Phase.AFTER
            self.history.updated(name, baseline, candidate, plain(options), by_hand=by_hand)
            self._stepped.add(name)

    def _compare(
        self, place: Place, baseline: Tensor, candidate: Tensor, others: Iterable[Iterable[Tensor]]
    ) -> bool:
        """Note the relative error; whether there is none. `others` are the baseline's tensors of this kind."""
        if baseline.shape != candidate.shape:
            shapes = f"{tuple(baseline.shape)} and {tuple(candidate.shape)}"
            self._note(place, math.inf, f"the shapes differ: {shapes}")
            return False
        if torch.equal(baseline, candidate):
            self._note(place, 0.0)
            return True
        (moments,) = collect([measure(baseline, candidate)])
        key = (place.phase, place.what)
        if key not in self.sizes:
            self.sizes[key] = size(tensor for row in others for tensor in row)
        error = error_of(moments, self.sizes[key])
        self._note(place, error)
        if not error <= self.allowed[place.phase].limit and place not in self.figures:
            self.figures[place] = compare(moments)
            if self._explaining:
                self.evidence.exceeding[place] = baseline.clone(), candidate.clone()
        return moments.identical


def _once(tensors: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    return {name: [tensor.detach()] for name, tensor in tensors.items()}
