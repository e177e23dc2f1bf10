"""From the errors of two trainings to a verdict, the first divergence and its cause."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from verifier.judge import STRICT, too_thin
from verifier.records import UNEXPLAINED, Verdict
from verifier.training import rate_causes
from verifier.training.baseline_batch import ACTIVATION, GRADIENT_OF_ACTIVATION, NORM, RATE, WEIGHT, Place
from verifier.training.consequences import consequences
from verifier.training.other_ways import different, exceeding, inconsequential
from verifier.training.records import Allowed, Divergence, Phase, TensorRow, TrainingCause

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from verifier.align import Alignment
    from verifier.cells import Cell
    from verifier.records import Coverage
    from verifier.training.pairing import Pairing
    from verifier.training.recipe import TrainingRecipe
    from verifier.training.side_by_side import SideBySide

# Rounding is near 1e-16 in float64, and a real difference far above: the limit needs no tuning.
_FLOAT64 = 1e-12
# An update is a handful of operations on each element, each rounded once.
_OPERATIONS = 16
# Errors of a sum of n terms add up like a random walk; the candidate's and the baseline's, each in its own order.
_WALKS = 4
_PHASES = list(Phase)


class Judgement(NamedTuple):
    """What `judge` found."""

    verdict: Verdict
    reason: str
    culprits: tuple[Divergence, ...]
    rows: tuple[TensorRow, ...]
    notes: tuple[str, ...]


class Blamed(NamedTuple):
    """What is at fault, a row for every tensor, and what differs and is no fault, as notes."""

    culprits: tuple[Divergence, ...]
    rows: tuple[TensorRow, ...]
    notes: tuple[str, ...]


class Named(Protocol):
    """What places are called, and in which order they come."""

    def order(self, place: Place) -> tuple[float, ...]:
        """Larger is later."""

    def names(self, place: Place) -> tuple[str, str]:
        """What the baseline and the candidate call it."""

    def shape(self, place: Place) -> tuple[int, ...]:
        """The baseline's."""

    def follows(self, first: Mapping[Place, int]) -> set[Place]:
        """Of places that differ, in which batch first, those that only follow from others."""


def limits(
    cell: Cell, recipe: TrainingRecipe, candidate_recipe: TrainingRecipe, alignment: Alignment
) -> dict[Phase, Allowed]:
    """The relative error each phase may have on identical inputs, and why.

    In float64 any error above 1e-12 is another program. In float32 a phase that sums n terms may be 4 u sqrt(n) off,
    u = 2^-24 the unit roundoff: forward and backward passes n the elements of the largest tensor of the pass, for a
    weight's gradient sums over as many; statistics the elements of the largest channel, losses those of the outputs.
    What works element by element, and what norms all gradients to clip them, may be 16 u off. Autocast leaves
    statistics, losses, clipping and updates in float32, but what passes between operators is rounded to a dtype
    whose u is far larger than what sums in float32 lose: 4 u of that. Where one side alone is under autocast, the
    other's limits hold.
    """
    sites = alignment.baseline.sites
    channel = max(
        (math.prod(s.shape) // s.shape[1] for s in sites if len(s.shape) > 1 and s.shape[1]), default=1
    )
    return limits_of(
        cell,
        {recipe.amp, candidate_recipe.amp},
        largest=max((math.prod(site.shape) for site in sites), default=1),
        channel=channel,
        outputs=max((math.prod(sites[k].shape) for k in alignment.baseline.outputs if k >= 0), default=1),
    )


def limits_of(
    cell: Cell, narrow: Collection[str], *, largest: int, channel: int, outputs: int
) -> dict[Phase, Allowed]:
    """The same from numbers of elements: of the largest tensor, the largest channel and the outputs."""
    rates = Allowed(limit=_FLOAT64, rule="1e-12: a learning rate is a Python number")
    if set(narrow) == {"off"} and cell.dtype == "float64":
        exactly = Allowed(limit=_FLOAT64, rule="1e-12 in float64")
        return {phase: rates if phase is Phase.SCHEDULE else exactly for phase in Phase}
    single = 2.0**-24

    def summed(terms: int) -> Allowed:
        return Allowed(limit=_WALKS * single * math.sqrt(terms), rule=f"4 u sqrt({terms}) of float32")

    passing = summed(largest)
    if "off" not in narrow:
        half = min(float(torch.finfo(getattr(torch, amp)).eps) / 2 for amp in narrow)
        passing = Allowed(limit=_WALKS * half, rule=f"4 u of {' and '.join(sorted(narrow))}")
    updated = Allowed(limit=_OPERATIONS * single, rule="16 u of float32")
    return {
        Phase.FORWARD: passing,
        Phase.STATISTICS: summed(channel),
        Phase.LOSS: summed(outputs),
        Phase.BACKWARD: passing,
        Phase.CLIP: updated,
        Phase.OPTIMISER: updated,
        Phase.AFTER: updated,
        Phase.SCHEDULE: rates,
    }


def judge(
    pairing: Pairing,
    free: SideBySide,
    forced: SideBySide,
    whole: SideBySide,
    allowed: Mapping[Phase, Allowed],
    covered: Coverage,
    *,
    scheduled: bool,
) -> Judgement:
    """The verdict on a free and a forced training.

    A place is a culprit if its intrinsic error exceeds what its phase is allowed. A tensor is blamed once a phase,
    where it is first wrong, and once in all if a phase of the candidate leaves it out. The norm of all gradients is
    shown and never blamed, as every gradient is judged; nor is the gradient of a loss that is blamed itself.
    `whole` is a training in which each batch is judged by the weights it leaves; `scheduled` says that learning rates
    may be meant to change.
    """
    found = blamed(_Paired(pairing), free, forced, whole, allowed)
    culprits = found.culprits
    verdict, reason = _verdict(pairing, free, culprits, covered)
    notes = (*_notes(pairing, free, scheduled=scheduled), *found.notes)
    return Judgement(verdict, reason, culprits, found.rows, notes)


def blamed(
    named: Named, free: SideBySide, forced: SideBySide, whole: SideBySide, allowed: Mapping[Phase, Allowed]
) -> Blamed:
    """What of two trainings is at fault, and a row for every tensor."""
    places = sorted(
        {p for batch in (*free.compared, *forced.compared) for p in batch.errors}, key=named.order
    )
    first = exceeding(forced, allowed)
    dropped = inconsequential(whole, forced, allowed, first)
    first = {place: number for place, number in first.items() if place not in dropped}
    follows = named.follows(first)
    first = {place: number for place, number in first.items() if place not in follows}
    by_tensor: dict[tuple[object, ...], Place] = {}
    missing = {place.subject for place, number in first.items() if place in forced.compared[number].reasons}
    for place in sorted(first, key=lambda each: (first[each], named.order(each))):
        key = (place.subject,) if place.subject in missing else (place.subject, place.phase)
        by_tensor.setdefault(key, place)
    culprits = tuple(
        _divergence(
            named,
            free,
            forced,
            place,
            first[place],
            allowed[place.phase],
            _cause(forced, free, place, first),
        )
        for place in by_tensor.values()
    )
    rows = tuple(
        _row(named, free, forced, place, allowed[place.phase], first.get(place), by_tensor.values())
        for place in places
    )
    notes = different(forced, dropped)
    if follows:
        notes.append(f"{len(follows)} gradients differ with sites that differ in the forward pass")
    return Blamed(culprits, rows, tuple(notes))


def _cause(forced: SideBySide, free: SideBySide, place: Place, first: Mapping[Place, int]) -> TrainingCause:
    """Why a place is wrong; where nothing gives the candidate's numbers, that."""
    if place.what == RATE:
        rates = free.rates_of.get(str(place.subject)) or free.rates
        alone = not any(each.phase in (Phase.OPTIMISER, Phase.AFTER) for each in first)
        return rate_causes.cause(rates, alone=alone)
    known = forced.causes.get(place)
    if known is not None:
        return known
    return TrainingCause(
        code=UNEXPLAINED, summary="no closed form that is known gives the candidate's numbers"
    )


def _verdict(
    pairing: Pairing, free: SideBySide, culprits: tuple[Divergence, ...], covered: Coverage
) -> tuple[Verdict, str]:
    if culprits:
        return Verdict.DIVERGED, culprits[0].reason
    open_ = next(_open(pairing, free, covered), "")
    return (Verdict.INCONCLUSIVE, open_) if open_ else (Verdict.MATCH, "")


def _open(pairing: Pairing, free: SideBySide, covered: Coverage) -> Iterator[str]:
    """Reasons why nothing can be said, the first of which is told."""
    if thin := too_thin(covered, STRICT):
        yield thin
    for name in _alone(pairing):
        yield f"{name} is trained and has no partner in the other model"
    unseen = _unseen(pairing)
    if unseen:
        yield unseen
    if not free.forward_seen:
        yield "no forward pass in training mode with gradients was seen: call the model, in training mode"
    if all(math.isnan(loss) for loss, _ in free.losses) and not free.backward_seen:
        yield "no backward pass of the baseline was seen: let the trainer call backward() on the loss"
    if not free.steps:
        yield "the baseline's optimiser made no step"
    wild = _wild(free)
    if wild is not None and wild < max(1, len(free.losses) // 2):
        yield f"the baseline's loss is not finite from batch {wild} on; use a smaller lr"


def _wild(free: SideBySide) -> int | None:
    """The first batch whose loss is not finite, of the baseline."""
    return next((k for k, (loss, _) in enumerate(free.losses) if not math.isfinite(loss)), None)


def _alone(pairing: Pairing) -> list[str]:
    """Parameters that one model trains and the other has not."""
    used = {name for recipe in pairing.masters.assemblies.values() for name in recipe.names}
    baseline = [n for n, p in pairing.baseline.model.named_parameters() if p.requires_grad and n not in used]
    candidate = [
        name
        for name, parameter in pairing.candidate.model.named_parameters()
        if parameter.requires_grad and name not in pairing.masters.assemblies
    ]
    return [
        *(f"the baseline's {name}" for name in baseline),
        *(f"the candidate's {name}" for name in candidate),
    ]


def _unseen(pairing: Pairing) -> str:
    """Statistics that one model writes as it is trained, and the other has not: they count in evaluation."""
    used = {name for recipe in pairing.masters.assemblies.values() for name in recipe.names}
    baseline, candidate = pairing.alignment.baseline, pairing.alignment.candidate
    for role, graph, tensors, known in (
        ("baseline", baseline, pairing.masters.baseline, used),
        ("candidate", candidate, pairing.masters.candidate, pairing.masters.assemblies.keys()),
    ):
        for name in sorted(graph.writes_state):
            if name not in known and name in tensors and tensors[name].is_floating_point():
                return f"training writes the {role}'s {name}, which has no partner in the other model"
    return ""


def _notes(pairing: Pairing, free: SideBySide, *, scheduled: bool) -> tuple[str, ...]:
    notes = [*pairing.baseline.notes, *pairing.candidate.notes]
    if pairing.masters.info.kept:
        some = ", ".join(pairing.masters.info.kept[:3])
        notes.append(f"the candidate is an edited copy, and keeps values of its own in {some}")
    wild = _wild(free)
    if wild is not None:
        notes.append(f"the baseline's loss is not finite from batch {wild} on")
    if scheduled and len({rate for both in free.rates for rate in both}) == 1:
        notes.append(
            f"the learning rate never changed in these {free.steps} steps, so that schedules were not compared"
        )
    return tuple(notes)


class _Paired:
    """Places of two models that were paired by their graphs."""

    def __init__(self, pairing: Pairing) -> None:
        self._pairing = pairing
        self._pairs = pairing.alignment.pairs
        self._order = {name: k for k, name in enumerate(pairing.masters.candidate)}
        self._used: dict[str, int] = {}
        for site in pairing.alignment.candidate.sites:
            for use in site.tensors:
                self._used.setdefault(use.name, site.index)

    def order(self, place: Place) -> tuple[float, ...]:
        """Larger is later."""
        phase = _PHASES.index(place.phase)
        if place.what == ACTIVATION:
            return (phase, self._pairs[int(place.subject)].baseline)
        if place.what == GRADIENT_OF_ACTIVATION:
            return (phase, -self._pairs[int(place.subject)].candidate, 0)
        if place.what == NORM:
            return (phase, 1)
        number = self._order.get(str(place.subject), -1)
        if place.phase is Phase.BACKWARD:  # complete once its first site has been gone back through
            return (phase, -self._used.get(str(place.subject), 0), 1, number)
        return (phase, place.what == WEIGHT, number)

    def names(self, place: Place) -> tuple[str, str]:
        """What the baseline and the candidate call it."""
        alignment = self._pairing.alignment
        if isinstance(place.subject, int):
            both = alignment.pairs[place.subject]
            return alignment.baseline.sites[both.baseline].name, alignment.candidate.sites[
                both.candidate
            ].name
        recipe = self._pairing.masters.assemblies.get(place.subject)
        if recipe is None:
            return place.subject or place.what, place.subject or place.what
        text = recipe.text
        return text if isinstance(text, str) else " + ".join(text), place.subject

    def shape(self, place: Place) -> tuple[int, ...]:
        """The baseline's."""
        alignment = self._pairing.alignment
        if isinstance(place.subject, int):
            return alignment.baseline.sites[alignment.pairs[place.subject].baseline].shape
        tensor = self._pairing.masters.candidate.get(place.subject)
        return () if tensor is None or place.phase is Phase.SCHEDULE else tuple(tensor.shape)

    def follows(self, first: Mapping[Place, int]) -> set[Place]:
        """What differs because a site does."""
        return consequences(self._pairing, first)


def _divergence(
    named: Named,
    free: SideBySide,
    forced: SideBySide,
    place: Place,
    batch: int,
    allowed: Allowed,
    cause: TrainingCause,
) -> Divergence:
    baseline, candidate = named.names(place)
    there = forced.compared[batch]
    intrinsic = there.errors[place]
    reason = there.reasons.get(place) or (
        f"its relative error is {intrinsic:.3g}, {allowed.limit:.3g} is allowed (rule {allowed.rule})"
    )
    return Divergence(
        step=forced.step_of[batch],
        batch=batch,
        phase=place.phase,
        what=place.what,
        tensor=baseline,
        candidate=candidate,
        total=free.compared[batch].errors.get(place, math.nan),
        intrinsic=intrinsic,
        allowed=allowed,
        reason=reason,
        comparison=there.figures.get(place),
        cause=cause,
    )


def _row(
    named: Named,
    free: SideBySide,
    forced: SideBySide,
    place: Place,
    allowed: Allowed,
    first: int | None,
    blamed: Collection[Place],
) -> TensorRow:
    baseline, candidate = named.names(place)
    return TensorRow(
        phase=place.phase,
        what=place.what,
        tensor=baseline,
        candidate=candidate,
        shape=named.shape(place),
        allowed=allowed,
        culprit=place in blamed,
        first_step=None if first is None else forced.step_of[first],
        total=tuple(batch.errors.get(place) for batch in free.compared),
        intrinsic=tuple(batch.errors.get(place) for batch in forced.compared),
    )
