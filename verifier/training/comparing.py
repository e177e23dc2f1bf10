"""One batch of two trainings, phase by phase: the baseline's is kept, the candidate's is compared with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.metrics import collect, compare, measure
from verifier.training.records import Phase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from torch import Tensor
    from torch.optim import Optimizer

    from verifier.align import Layout, Recipe
    from verifier.metrics import Moments
    from verifier.result import Comparison
    from verifier.training.records import Allowed
    from verifier.training.watching import Watch

ACTIVATION, BUFFER, LOSS = "activation", "buffer", "loss"
GRADIENT_OF_ACTIVATION, GRADIENT, NORM = "gradient of activation", "gradient", "gradient norm"
WEIGHT, RATE = "weight", "learning rate"

# A tensor may be 0 but for rounding, as the gradient of a bias before a batch norm is. Errors are relative to the
# tensor's own size, or to this part of the size its kind has in the whole network, whichever is larger.
_FLOOR = 2.0**-10


class Place(NamedTuple):
    """What is compared: `subject` is a pair's position, the candidate's name of a tensor, or empty."""

    phase: Phase
    what: str
    subject: int | str


@dataclass
class Kept:
    """What the baseline did in one batch.

    Tensors that the loop goes on changing are copies; weights and the optimiser's state are the baseline's own, which
    stands still while the candidate is given the batch.
    """

    activations: dict[int, Tensor] = field(default_factory=dict)
    activation_gradients: dict[int, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    loss_value: Tensor | None = None
    gradients: dict[str, Tensor] = field(default_factory=dict)
    applied: dict[str, Tensor] = field(default_factory=dict)
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    groups: dict[str, dict[str, object]] = field(default_factory=dict)

    def began(self, watch: Watch) -> None:
        """Nothing to keep yet."""

    def activation(self, pair: int, tensor: Tensor) -> None:
        """Keep it."""
        self.activations[pair] = tensor.detach().clone()

    def activation_gradient(self, pair: int, gradient: Tensor) -> Tensor | None:
        """Keep it, and change nothing."""
        self.activation_gradients[pair] = gradient.detach().clone()
        return None

    def constant(self, pair: int) -> None:
        """Nothing to keep."""

    def forward_ended(self, watch: Watch) -> None:
        """Keep the buffers."""
        self.buffers = copies(watch.buffers)

    def loss(self, watch: Watch, loss: Tensor) -> None:  # noqa: ARG002
        """Keep the loss."""
        self.loss_value = loss.clone()

    def backward_ended(self, watch: Watch) -> None:
        """Keep the gradients."""
        self.gradients = copies(gradients(watch))

    def before_step(self, watch: Watch, optimiser: Optimizer) -> None:
        """Keep the gradients as they are applied."""
        self.applied |= copies(gradients(watch, optimiser))

    def after_step(self, watch: Watch, optimiser: Optimizer) -> None:
        """Keep the optimiser's state and the weights."""
        for what, tensors in states(watch, optimiser).items():
            self.states.setdefault(what, {}).update(tensors)
        self.weights |= watch.updated(optimiser)

    def ended(self, watch: Watch) -> None:
        """Keep the options of the optimiser."""
        self.parameters = watch.parameters
        self.groups = {name: dict(group) for name, group in watch.groups().items()}
        self.rates = {name: float(group["lr"]) for name, group in watch.groups().items()}


@dataclass(frozen=True)
class Relation:
    """How what the candidate has is made from what the baseline has.

    `recipes` are those of its tensors, by its own names; `layouts` those of pairs, by position, whose tensors the
    candidate lays out otherwise; `shapes` those of the baseline at each pair.
    """

    recipes: Mapping[str, Recipe]
    layouts: Mapping[int, Layout]
    buffers: frozenset[str]


@dataclass
class Compared:
    """The candidate's batch against the baseline's. With `force` it is given the baseline's tensors at every place.

    `errors` are relative, by place: infinite where shapes differ or one side alone has the tensor.
    """

    kept: Kept
    relation: Relation
    allowed: Mapping[Phase, Allowed]
    force: bool
    errors: dict[Place, float] = field(default_factory=dict)
    figures: dict[Place, Comparison] = field(default_factory=dict)
    reasons: dict[Place, str] = field(default_factory=dict)
    loss_value: Tensor | None = None
    rates: dict[str, float] = field(default_factory=dict)
    groups: dict[str, dict[str, object]] = field(default_factory=dict)
    exceeding: dict[Place, tuple[Tensor, Tensor]] = field(default_factory=dict)
    weights_before: dict[str, Tensor] = field(default_factory=dict)
    buffers_before: dict[str, Tensor] = field(default_factory=dict)
    gradients_before: dict[str, Tensor] = field(default_factory=dict)
    _sizes: dict[tuple[Phase, str], float] = field(default_factory=dict)

    def began(self, watch: Watch) -> None:
        """Keep what a forced batch starts from."""
        if self.force:
            self.buffers_before = copies(watch.buffers)

    def activation(self, pair: int, tensor: Tensor) -> None:
        """Compare with the baseline's, which takes its place if forced."""
        reference = self.kept.activations.get(pair)
        place = Place(Phase.FORWARD, ACTIVATION, pair)
        forced = self._site(place, reference, tensor.detach(), self.kept.activations)
        if forced is not None and not _overlaps(tensor):
            # Through `data`, so that autograd need not know: what it has saved of this tensor is forced as well.
            tensor.data.copy_(forced)

    def activation_gradient(self, pair: int, gradient: Tensor) -> Tensor | None:
        """Compare with the baseline's, which takes its place if forced."""
        place = Place(Phase.BACKWARD, GRADIENT_OF_ACTIVATION, pair)
        reference = self.kept.activation_gradients.get(pair)
        return self._site(place, reference, gradient.detach(), self.kept.activation_gradients)

    def constant(self, pair: int) -> None:
        """Do not ask for its gradient."""
        # The parameters above it tell that they have no gradient.
        self.kept.activation_gradients.pop(pair, None)

    def forward_ended(self, watch: Watch) -> None:
        """Compare the buffers."""
        self._tensors(Phase.STATISTICS, BUFFER, self.kept.buffers, watch.buffers)

    def loss(self, watch: Watch, loss: Tensor) -> None:
        """Compare the loss."""
        self.loss_value = loss.clone()
        if self.force:
            self.gradients_before = copies(gradients(watch))
        if self.kept.loss_value is not None:
            self._compare(Place(Phase.LOSS, LOSS, ""), self.kept.loss_value, loss, {})

    def backward_ended(self, watch: Watch) -> None:
        """Compare the gradients."""
        own = gradients(watch)
        self._tensors(Phase.BACKWARD, GRADIENT, self.kept.gradients, own)
        reference, norm = _norm(self.kept.gradients.values()), _norm(own.values())
        self.errors[Place(Phase.BACKWARD, NORM, "")] = _relative(reference, norm)

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
            own, reference = self.rates.get(name), self.kept.rates.get(recipe.names[0])
            if own is not None and reference is not None:
                self.errors[Place(Phase.SCHEDULE, RATE, "" if shared else name)] = _relative(reference, own)
        if self.force:
            for name, group in groups.items():
                made = self.relation.recipes.get(name)
                rate = None if made is None else self.kept.rates.get(made.names[0])
                if rate is not None:
                    group["lr"] = rate
            for (
                name,
                parameter,
            ) in watch.parameters.items():  # those that the candidate does not train as well
                made = self.relation.recipes.get(name)
                if made is not None:
                    parameter.data.copy_(made.make(self.kept.parameters, parameter.shape).detach())
        self._missing()

    def forget(self) -> None:
        """Let go of all tensors; the numbers stay."""
        self.kept = Kept()
        for table in (self.exceeding, self.weights_before, self.buffers_before, self.gradients_before):
            table.clear()

    def _missing(self) -> None:
        """What the baseline did and the candidate did not."""
        for pair in self.kept.activations:
            self._never(Place(Phase.FORWARD, ACTIVATION, pair), "the candidate does not make it")
        for pair in self.kept.activation_gradients:
            self._never(
                Place(Phase.BACKWARD, GRADIENT_OF_ACTIVATION, pair), "the candidate's has no gradient"
            )
        if self.kept.loss_value is not None:
            self._never(Place(Phase.LOSS, LOSS, ""), "the candidate makes no backward pass")
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
                    self._never(Place(phase, what, name), reason)

    def _never(self, place: Place, reason: str) -> None:
        if place not in self.errors:
            self.errors[place] = math.inf
            self.reasons[place] = reason

    def _site(
        self, place: Place, reference: Tensor | None, tensor: Tensor, table: Mapping[int, Tensor]
    ) -> Tensor | None:
        """Compare at a pair; what the candidate's tensor is to be, if that is another than it is."""
        if reference is None:
            return None
        layout = self.relation.layouts.get(int(place.subject))
        shown = tensor if layout is None else layout.back(tensor, reference.shape)
        same = self._compare(place, reference, shown, table)
        if same or not self.force or shown.shape != reference.shape:
            return None
        forced = reference if layout is None else layout.forth(reference, tensor.shape)
        return forced.to(tensor.dtype)

    def _tensors(
        self, phase: Phase, what: str, kept: Mapping[str, Tensor], own: Mapping[str, Tensor]
    ) -> None:
        """Compare named tensors, each with what it should be made of; overwrite them if that is wanted."""
        for name, tensor in own.items():
            recipe = self.relation.recipes.get(name)
            if recipe is None:
                continue
            place = Place(phase, what, name)
            if any(piece not in kept for piece in recipe.names):
                self.errors[place], self.reasons[place] = math.inf, f"the baseline's has no {what} here"
                continue
            if tensor.dim() == 0:
                reference = kept[recipe.names[0]].reshape(-1)[:1].reshape(())
            elif not recipe.fits({piece: tuple(kept[piece].shape) for piece in recipe.names}, tensor.shape):
                self.errors[place], self.reasons[place] = math.inf, f"the baseline's {what} has another shape"
                continue
            else:
                reference = recipe.make(kept, tensor.shape)
            same = self._compare(place, reference.detach(), tensor.detach(), kept)
            if self.force and not same:
                tensor.data.copy_(reference)

    def _compare(
        self,
        place: Place,
        reference: Tensor,
        tensor: Tensor,
        others: Mapping[int, Tensor] | Mapping[str, Tensor],
    ) -> bool:
        """Note the relative error; whether there is none. `others` are the baseline's tensors of this kind."""
        if reference.shape != tensor.shape:
            self.errors[place] = math.inf
            shapes = f"{tuple(reference.shape)} and {tuple(tensor.shape)}"
            self.reasons[place] = f"the shapes differ: {shapes}"
            return False
        if torch.equal(reference, tensor):
            self.errors[place] = 0.0
            return True
        (moments,) = collect([measure(reference, tensor)])
        self.errors[place] = self._error(place, moments, others)
        if not self.errors[place] <= self.allowed[place.phase].limit:
            self.figures[place] = compare(moments)
            if self.force and isinstance(place.subject, str):
                self.exceeding[place] = reference.clone(), tensor.clone()
        return moments.identical

    def _error(
        self, place: Place, moments: Moments, others: Mapping[int, Tensor] | Mapping[str, Tensor]
    ) -> float:
        if moments.identical or moments.elements == 0:
            return 0.0
        if moments.nonfinite_mismatched or not moments.finite:
            return math.inf
        own = math.sqrt(moments.raw_aa / moments.finite)
        key = (place.phase, place.what)
        if key not in self._sizes:
            self._sizes[key] = _size(others.values())
        scale = max(own, _FLOOR * self._sizes[key])
        return math.sqrt(moments.sum_dd / moments.finite) / scale if scale > 0 else math.inf


def gradients(watch: Watch, optimiser: Optimizer | None = None) -> dict[str, Tensor]:
    """The gradients the parameters have now; those of one optimiser, if it is given."""
    parameters = watch.parameters if optimiser is None else watch.updated(optimiser)
    return {name: p.grad for name, p in parameters.items() if p.grad is not None}


def states(watch: Watch, optimiser: Optimizer) -> dict[str, dict[str, Tensor]]:
    """The optimiser's tensors by what they are (`momentum_buffer`, `exp_avg`, ...) and by parameter."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, parameter in watch.parameters.items():
        for what, value in optimiser.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                found.setdefault(what, {})[name] = value
    return found


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that stay as they are."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


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


def _relative(reference: float, value: float) -> float:
    if reference == value or (math.isnan(reference) and math.isnan(value)):
        return 0.0
    if not (math.isfinite(reference) and math.isfinite(value)) or reference == 0:
        return math.inf
    return abs(value - reference) / abs(reference)


def _overlaps(tensor: Tensor) -> bool:
    """Whether elements share memory, as after `expand`; their source was forced before."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
