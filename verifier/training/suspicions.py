"""Why a candidate's training differs where it does: each suspicion is put into numbers, and holds if they agree.

On identical inputs a fault of a procedure leaves a difference of known form. The form is fitted, one number at a
time, and what the candidate would have with that number is compared with what it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.training import clip_causes, end_causes, evaluation_causes, loss_causes
from verifier.training.baseline_batch import BUFFER, GRADIENT, WEIGHT
from verifier.training.fitting import CLOSE, agree, factor_between, fit
from verifier.training.records import Phase, TrainingCause
from verifier.training.update_causes import UpdateCauses

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from torch import Tensor

    from verifier.training.baseline_batch import Place
    from verifier.training.candidate_batch import CandidateBatch
    from verifier.training.history import History
    from verifier.training.watching import Watch

    Causes = dict[Place, TrainingCause]

_OF_UPDATES = (Phase.OPTIMISER, Phase.AFTER)


def explain(
    compared: CandidateBatch,
    baseline: Watch,
    candidate: Watch,
    known: Iterable[Place],
    sites: Sequence[tuple[int, int]],
) -> Causes:
    """The causes of what exceeds its limit in one forced batch, for the first time: it did at the places `known`.

    `sites` are those of the pairs.
    """
    left_out = set(known)
    wrong = [place for place in compared.exceeding() if place not in left_out]
    found: Causes = {}
    phases = {place.phase for place in wrong}
    loss = loss_causes.cause(compared.evidence) if {Phase.LOSS, Phase.BACKWARD} & phases else None
    clip = clip_causes.cause(compared.evidence) if Phase.CLIP in phases else None
    for place in wrong:
        cause = _cause(compared, place, baseline, candidate)
        if place.phase is Phase.FORWARD and place not in compared.reasons:
            cause = evaluation_causes.cause(compared, place, sites[int(place.subject)], baseline, candidate)
        if cause is None and place.phase is Phase.CLIP and place not in compared.reasons:
            cause = clip
        if cause is None and _of_loss(place, compared, loss):
            cause = loss
        if cause is None:
            cause = _scaled(compared, place)
        if cause is not None:
            found[place] = cause
    return found


def explain_updates(
    history: History,
    places: Collection[Place],
    makers: tuple[Mapping[str, type], Mapping[str, type]],
    names: Mapping[str, str],
    roundoff: float,
) -> Causes:
    """The causes of updates that differ, from all that was recorded of them.

    Args:
        history: What was recorded.
        places: Where updates differ.
        makers: The classes of the optimisers of the baseline's parameters, and of the candidate's.
        names: The baseline's name of each of the candidate's parameters.
        roundoff: Unit roundoff of the dtype of the training.
    """
    search = UpdateCauses(history, roundoff)
    found: Causes = {}
    by_name: dict[str, TrainingCause | None] = {}
    for place in places:
        name = str(place.subject)
        if place.phase not in _OF_UPDATES or name not in names or place.what.endswith("end"):
            continue
        if name not in by_name:
            by_name[name] = search.cause(name, (makers[0].get(names.get(name, "")), makers[1].get(name)))
        cause = by_name[name]
        if cause is not None:
            found[place] = cause
    return found


def explain_end(end: CandidateBatch, history: History) -> Causes:
    """The causes of what the two leave behind."""
    found = {}
    for place, (b, c) in end.evidence.exceeding.items():
        course = history.courses.get(str(place.subject))
        if course is not None:
            buffer = place.what.startswith(BUFFER)
            cause = end_causes.cause(course, history.sample(b), history.sample(c), buffer=buffer)
            if cause is not None:
                found[place] = cause
    return found


def _confirmed(code: str, summary: str) -> TrainingCause:
    return TrainingCause(code=code, summary=summary, confirmed=True)


_CUT = _confirmed(
    "gradient-cut", "no gradient reaches it: what uses it is detached, or made without gradients"
)


def _cause(compared: CandidateBatch, place: Place, baseline: Watch, candidate: Watch) -> TrainingCause | None:
    if isinstance(place.subject, int):
        cut = place.phase is Phase.BACKWARD and place in compared.alone
        return _CUT if cut else None
    name, evidence = place.subject, compared.evidence
    if place in compared.reasons:
        return _untrained(place, candidate, compared) if name in candidate.parameters else None
    if place not in evidence.exceeding:
        return None
    b, c = (tensor.double() for tensor in evidence.exceeding[place])
    if place.what == BUFFER and name in evidence.buffers:
        return _statistics(name, evidence.buffers[name].double(), b, c, baseline, candidate, compared)
    if place == (Phase.BACKWARD, GRADIENT, name):
        held = evidence.held.get(name)
        return None if held is None else _held(held.double(), b, c)
    if place == (Phase.AFTER, WEIGHT, name) and bool((c == evidence.weights[name]).all()):
        return _confirmed("frozen", "the candidate's step leaves it as it was")
    return None


def _untrained(place: Place, candidate: Watch, compared: CandidateBatch) -> TrainingCause | None:
    name = str(place.subject)
    if not candidate.parameters[name].requires_grad:
        return _confirmed("frozen", "the candidate does not train it: requires_grad is off")
    if candidate.optimisers and name not in candidate.groups():
        return _confirmed("frozen", "no optimiser of the candidate has it")
    if place == (Phase.BACKWARD, GRADIENT, name):
        return _CUT
    if place in compared.alone and place.what in (GRADIENT, WEIGHT):
        stepped = bool(compared.kept.applied), compared.stepped
        if stepped == (True, False):
            return _confirmed("steps-different", "it makes no step in this batch, which the baseline does")
        if stepped == (False, True):
            return _confirmed("steps-different", "it makes a step in this batch, which the baseline does not")
    return None


def _of_loss(place: Place, compared: CandidateBatch, loss: TrainingCause | None) -> bool:
    """Whether a place is the loss, its gradient, or where a penalty that is part of it shows."""
    if loss is None:
        return False
    if place.phase is Phase.LOSS:
        return True
    if place.phase is not Phase.BACKWARD:
        return False
    penalty = loss.code == "loss-penalty"
    return place.what == GRADIENT if penalty else place.subject in compared.relation.outputs


def _scaled(compared: CandidateBatch, place: Place) -> TrainingCause | None:
    """A tensor that is the baseline's times a number."""
    if place.phase not in (Phase.FORWARD, Phase.BACKWARD, Phase.AFTER):
        return None
    if place not in compared.evidence.exceeding:
        return None
    b, c = (tensor.double() for tensor in compared.evidence.exceeding[place])
    if not b.numel() or not float(b.abs().max()) > 0:
        return None
    low, high = float(c.min()), float(c.max())
    if place.phase is Phase.AFTER and low < high and agree(c, b.clamp(low, high)) and not agree(b, c):
        return _confirmed("weight-clamped-after", f"after the step it is clamped to {low:.6g} .. {high:.6g}")
    factor = factor_between(b, c) if float(c.abs().max()) > 0 else 0.0
    if factor is None:
        return None
    if place.phase is Phase.AFTER:
        return _confirmed(
            "weight-scaled-after", f"after the step it is {factor:.6g} times what the step made of it"
        )
    if place.phase is Phase.FORWARD:
        return _confirmed(
            "site-scaled", f"it is {factor:.6g} times the baseline's, a factor of the whole tensor"
        )
    return _confirmed(
        "gradient-scaled", f"its gradient is {factor:.6g} times the baseline's, which arrives here alike"
    )


def _statistics(
    name: str,
    before: Tensor,
    b: Tensor,
    c: Tensor,
    baseline: Watch,
    candidate: Watch,
    compared: CandidateBatch,
) -> TrainingCause | None:
    """Running statistics: never written, another momentum, or a variance divided by n and not by n - 1."""
    moved = b - before
    if bool((c == before).all()) and float(moved.abs().max()) > 0:
        return _confirmed("buffer-never-moved", "it stays what it was: the pass never writes it")
    factor = fit(moved, c - before)
    settings = _momentum(compared.relation.recipes[name].names[0], baseline), _momentum(name, candidate)
    if factor is not None and abs(factor - 1) > CLOSE:
        told = ""
        if None not in settings and settings[0] != settings[1]:
            told = f"momentum is {settings[1]:g}, the baseline's {settings[0]:g}: "
        return _confirmed("batchnorm-momentum", f"{told}it moves {factor:.3g} times as far a batch")
    momentum = settings[0]
    if momentum is None or not name.endswith("var"):
        return None
    seen = b - (1 - momentum) * before  # the batch's unbiased variance times the momentum
    share = fit(seen, b - c)
    if share is None or not 0 < share < 1:
        return None
    count = 1 / share
    if abs(count - round(count)) > 1e-3 * count:
        return None
    return _confirmed(
        "running-variance-biased",
        f"the batch's variance is divided by n = {round(count)}, the baseline's by n - 1",
    )


def _momentum(name: str, watch: Watch) -> float | None:
    module = watch.model.get_submodule(name.rpartition(".")[0])
    momentum = getattr(module, "momentum", None)
    return float(momentum) if isinstance(momentum, int | float) else None


def _held(held: Tensor, b: Tensor, c: Tensor) -> TrainingCause | None:
    """A gradient on top of what was there before, or without what should be."""
    if agree(c, b + held):
        return _confirmed(
            "gradients-not-cleared", "it still holds the gradients of the batch before: zero_grad is missing"
        )
    if agree(b, c + held):
        return _confirmed("gradients-cleared", "what was accumulated before is lost: zero_grad too early")
    return None
