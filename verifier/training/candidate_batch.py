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
    gradients,
    states,
)
from verifier.training.records import Phase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from torch import Tensor
    from torch.optim import Optimizer

    from verifier.align import Assembly, Layout
    from verifier.metrics import Moments
    from verifier.records import Comparison
    from verifier.training.baseline_batch import Named
    from verifier.training.records import Allowed
    from verifier.training.watching import Watch

# A tensor may be 0 but for rounding, as the gradient of a bias before a batch norm is. Errors are relative to the
# tensor's own size, or to this part of the size its kind has in the whole network, whichever is larger.
_FLOOR = 2.0**-10


@dataclass(frozen=True)
class Correspondence:
    """How what the candidate has is made from what the baseline has.

    `recipes` are those of its tensors, by its own names; `layouts` those of pairs, by position, whose tensors the
    candidate lays out otherwise; `buffers` names which of its tensors are none that are trained.
    """

    recipes: Mapping[str, Assembly]
    layouts: Mapping[int, Layout]
    buffers: frozenset[str]


@dataclass
class CandidateBatch:
    """The candidate's batch against the baseline's. With `force` it is given the baseline's tensors at every place.

    The first pass is compared with the first, the second with the second. `errors` are relative, by place, the
    largest of the batch: infinite where shapes differ or one side alone has the tensor; `reasons` then says which.
    With `same_dtypes` a tensor that is not computed in the baseline's dtype counts like one of another shape.
    """

    kept: BaselineBatch
    relation: Correspondence
    allowed: Mapping[Phase, Allowed]
    force: bool
    same_dtypes: bool = False
    errors: dict[Place, float] = field(default_factory=dict)
    figures: dict[Place, Comparison] = field(default_factory=dict)
    reasons: dict[Place, str] = field(default_factory=dict)
    losses: list[Tensor] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    groups: dict[str, dict[str, object]] = field(default_factory=dict)
    exceeding: dict[Place, tuple[Tensor, Tensor]] = field(default_factory=dict)
    weights_before: dict[str, Tensor] = field(default_factory=dict)
    buffers_before: dict[str, Tensor] = field(default_factory=dict)
    gradients_before: dict[str, Tensor] = field(default_factory=dict)
    _sizes: dict[tuple[Phase, str], float] = field(default_factory=dict)
    _turns: Counter[Place] = field(default_factory=Counter)

    def began(self, watch: Watch) -> None:
        """Keep what a forced batch starts from."""
        if self.force:
            self.buffers_before = copies(watch.buffers)

    def activation(self, pair: int, tensor: Tensor) -> None:
        """Compare with the baseline's, which takes its place if forced."""
        place = Place(Phase.FORWARD, ACTIVATION, pair)
        forced = self._site(place, tensor.detach(), self.kept.activations)
        if forced is not None and not _overlaps(tensor):
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

    def forward_ended(self, watch: Watch) -> None:
        """Compare the buffers."""
        self._tensors(Phase.STATISTICS, BUFFER, self.kept.buffers, watch.buffers)

    def loss(self, watch: Watch, loss: Tensor) -> None:
        """Compare the loss."""
        place = Place(Phase.LOSS, LOSS, "")
        self.losses.append(loss.clone())
        if self.force:
            self.gradients_before = copies(gradients(watch))
        number = self._turn(place)
        if number < len(self.kept.losses):
            self._compare(place, self.kept.losses[number], loss, ())
        elif self.kept.losses:
            self._note(
                place, math.inf, f"the candidate makes {number + 1} backward passes, {number} are made"
            )

    def backward_ended(self, watch: Watch) -> None:
        """Compare the gradients."""
        candidate, place = gradients(watch), Place(Phase.BACKWARD, NORM, "")
        number = self._turn(place)
        baseline = [row[number] for row in self.kept.gradients.values() if number < len(row)]
        norm = _norm(candidate.values())  # before they may be overwritten
        self._tensors(Phase.BACKWARD, GRADIENT, self.kept.gradients, candidate)
        self._note(place, _relative(_norm(baseline), norm))

    def before_step(self, watch: Watch, optimiser: Optimizer) -> None:
        """Compare the gradients as they are applied."""
        if self.force:
            self.weights_before |= copies(watch.updated(optimiser))
        self._tensors(Phase.CLIP, GRADIENT, self.kept.applied, gradients(watch, optimiser))

    def after_step(self, watch: Watch, optimiser: Optimizer) -> None:
        """Compare the optimiser's state and the weights."""
        for what, tensors in states(watch, optimiser).items():
            self._tensors(Phase.OPTIMISER, what, self.kept.states.get(what, {}), tensors)
        self._tensors(Phase.OPTIMISER, WEIGHT, self.kept.weights, watch.updated(optimiser))

    def ended(self, watch: Watch) -> None:
        """Compare the learning rates, and note what the candidate has left out."""
        groups = watch.groups()
        self.groups = {name: dict(group) for name, group in groups.items()}
        self.rates = {name: float(group["lr"]) for name, group in groups.items()}
        shared = len({*self.rates.values()}) == len({*self.kept.rates.values()}) == 1
        for name, recipe in self.relation.recipes.items():
            candidate, baseline = self.rates.get(name), self.kept.rates.get(recipe.names[0])
            if candidate is not None and baseline is not None:
                self._note(
                    Place(Phase.SCHEDULE, RATE, "" if shared else name), _relative(baseline, candidate)
                )
        self._tensors(Phase.AFTER, WEIGHT, _once(self.kept.parameters), watch.parameters)
        if self.force:
            for name, group in groups.items():
                made = self.relation.recipes.get(name)
                rate = None if made is None else self.kept.rates.get(made.names[0])
                if rate is not None:
                    group["lr"] = rate
        self._missing()

    def over(self, baseline: Watch, candidate: Watch) -> None:
        """Both loops have ended: compare what they leave behind, buffers included."""
        for what, b, c in (
            (f"{WEIGHT} at the end", baseline.parameters, candidate.parameters),
            (f"{BUFFER} at the end", baseline.buffers, candidate.buffers),
        ):
            self._tensors(Phase.AFTER, what, _once(b), c)
        self.forget()

    def forget(self) -> None:
        """Let go of all tensors; the numbers stay."""
        self.kept = BaselineBatch()
        for table in (self.exceeding, self.weights_before, self.buffers_before, self.gradients_before):
            table.clear()

    def _missing(self) -> None:
        """What the baseline did and the candidate did not."""
        for pair, row in self.kept.activations.items():
            place = Place(Phase.FORWARD, ACTIVATION, pair)
            self._never(place, len(row), "the candidate does not make it")
        for pair, row in self.kept.activation_gradients.items():
            place = Place(Phase.BACKWARD, GRADIENT_OF_ACTIVATION, pair)
            self._never(place, len(row), "the candidate's has no gradient")
        self._never(
            Place(Phase.LOSS, LOSS, ""), len(self.kept.losses), "no backward pass of the candidate was seen"
        )
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
                    self._never(
                        Place(phase, what, name), min(len(table[piece]) for piece in recipe.names), reason
                    )

    def _never(self, place: Place, times: int, reason: str) -> None:
        seen = self._turns[place]
        if seen < times:
            self._note(place, math.inf, f"{seen} of {times} times in the batch" if seen else reason)

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
        if number >= len(row):
            if row:
                self._note(
                    place, math.inf, f"the candidate makes it {number + 1} times in a batch, not {number}"
                )
            return None
        baseline = row[number]
        if self.same_dtypes and baseline.dtype != tensor.dtype:
            said = [str(each.dtype).removeprefix("torch.") for each in (tensor, baseline)]
            self._note(place, math.inf, f"it is computed in {said[0]}, the baseline's in {said[1]}")
        layout = self.relation.layouts.get(int(place.subject))
        shown = tensor if layout is None else layout.back(tensor, baseline.shape)
        same = self._compare(place, baseline, shown, table.values())
        if same or not self.force or shown.shape != baseline.shape:
            return None
        forced = baseline if layout is None else layout.forth(baseline, tensor.shape)
        return forced.to(tensor.dtype)

    def _tensors(self, phase: Phase, what: str, kept: Named, candidate: Mapping[str, Tensor]) -> None:
        """Compare named tensors, each with what it should be made of; overwrite them if that is wanted."""
        for name, tensor in candidate.items():
            recipe = self.relation.recipes.get(name)
            if recipe is None:
                continue
            place = Place(phase, what, name)
            number = self._turn(place)
            rows = {piece: kept.get(piece, []) for piece in recipe.names}
            if any(number >= len(row) for row in rows.values()):
                times = f"{number + 1} times in the batch, the baseline's {number}"
                self._note(place, math.inf, times if number else f"the baseline's has no {what} here")
                continue
            pieces = {piece: row[number] for piece, row in rows.items()}
            if tensor.dim() == 0:
                baseline = pieces[recipe.names[0]].reshape(-1)[:1].reshape(())
            elif not recipe.fits({piece: tuple(each.shape) for piece, each in pieces.items()}, tensor.shape):
                self._note(place, math.inf, f"the baseline's {what} has another shape")
                continue
            else:
                baseline = recipe.make(pieces, tensor.shape)
            same = self._compare(place, baseline.detach(), tensor.detach(), kept.values())
            if self.force and not same:
                tensor.data.copy_(baseline)

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
        error = self._error(place, moments, others)
        self._note(place, error)
        if not error <= self.allowed[place.phase].limit and place not in self.figures:
            self.figures[place] = compare(moments)
            if self.force and isinstance(place.subject, str):
                self.exceeding[place] = baseline.clone(), candidate.clone()
        return moments.identical

    def _error(self, place: Place, moments: Moments, others: Iterable[Iterable[Tensor]]) -> float:
        if moments.identical or moments.elements == 0:
            return 0.0
        if moments.nonfinite_mismatched or not moments.finite:
            return math.inf
        size = math.sqrt(moments.raw_aa / moments.finite)
        key = (place.phase, place.what)
        if key not in self._sizes:
            self._sizes[key] = _size(tensor for row in others for tensor in row)
        scale = max(size, _FLOOR * self._sizes[key])
        return math.sqrt(moments.sum_dd / moments.finite) / scale if scale > 0 else math.inf


def _once(tensors: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    return {name: [tensor.detach()] for name, tensor in tensors.items()}


def _norm(tensors: Collection[Tensor]) -> float:
    return math.sqrt(math.fsum(float(tensor.double().square().sum()) for tensor in tensors))


def _size(tensors: Iterable[Tensor]) -> float:
    """Root of the mean square over all elements that are finite."""
    total, count = 0.0, 0
    for tensor in tensors:
        if tensor.is_floating_point():
            finite = tensor[torch.isfinite(tensor)].double()
            total += float(finite.square().sum())
            count += finite.numel()
    return math.sqrt(total / count) if count else 0.0


def _relative(baseline: float, candidate: float) -> float:
    if baseline == candidate or (math.isnan(baseline) and math.isnan(candidate)):
        return 0.0
    if not (math.isfinite(baseline) and math.isfinite(candidate)) or baseline == 0:
        return math.inf
    return abs(candidate - baseline) / abs(baseline)


def _overlaps(tensor: Tensor) -> bool:
    """Whether elements share memory, as after `expand`; their source was forced before."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
