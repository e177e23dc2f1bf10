"""Why a candidate's training differs where it does: each suspicion is put into numbers, and holds if they agree.

On identical inputs a fault of a procedure leaves a difference of known form. The form is fitted, one number at a
time, and what the candidate would have with that number is compared with what it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.training.baseline_batch import BUFFER, GRADIENT, RATE, WEIGHT
from verifier.training.records import Phase, TrainingCause

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from verifier.training.baseline_batch import Place
    from verifier.training.candidate_batch import CandidateBatch
    from verifier.training.watching import Watch

_CLOSE = 1e-6  # relative: of fits to differences that are themselves small next to what they were taken from


def explain(
    compared: CandidateBatch, baseline: Watch, candidate: Watch, known: Iterable[Place]
) -> dict[Place, TrainingCause]:
    """The causes of what exceeds its limit in one forced batch, but at places that are `known` already."""
    left_out = set(known)
    found = {}
    for place, error in compared.errors.items():
        if (
            place in left_out
            or error <= compared.allowed[place.phase].limit
            or isinstance(place.subject, int)
        ):
            continue
        cause = _cause(compared, place, baseline, candidate)
        if cause is not None:
            found[place] = cause
    return found


def _confirmed(code: str, summary: str) -> TrainingCause:
    return TrainingCause(code=code, summary=summary, confirmed=True)


def _cause(compared: CandidateBatch, place: Place, baseline: Watch, candidate: Watch) -> TrainingCause | None:
    name = str(place.subject)
    if place in compared.reasons:
        return _untrained(name, candidate) if name in candidate.parameters else None
    if place not in compared.exceeding:
        return None
    b, c = (tensor.double() for tensor in compared.exceeding[place])
    if place.what == BUFFER and name in compared.buffers_before:
        return _statistics(name, compared.buffers_before[name].double(), b, c, baseline, candidate, compared)
    if place == (Phase.BACKWARD, GRADIENT, name):
        held = compared.gradients_before.get(name)
        return None if held is None else _held(held.double(), b, c)
    if place == (Phase.CLIP, GRADIENT, name):
        factor = _fit(b, c)
        if factor is not None and abs(factor - 1) > _CLOSE:
            return _confirmed(
                "gradients-scaled",
                f"gradients are applied {factor:.6g} times as large: clipped to another norm, or not divided",
            )
    if place.phase is Phase.OPTIMISER and name in compared.weights_before:
        return _step(compared, place, name, b, c)
    return None


def _untrained(name: str, candidate: Watch) -> TrainingCause | None:
    if not candidate.parameters[name].requires_grad:
        return _confirmed("frozen", "the candidate does not train it: requires_grad is off")
    if candidate.optimisers and name not in candidate.groups():
        return _confirmed("frozen", "no optimiser of the candidate has it")
    return None


def _statistics(
    name: str,
    before: Tensor,
    b: Tensor,
    c: Tensor,
    baseline: Watch,
    candidate: Watch,
    compared: CandidateBatch,
) -> TrainingCause | None:
    """Running statistics: another momentum, or a variance divided by n and not by n - 1."""
    moved = b - before
    factor = _fit(moved, c - before)
    settings = _momentum(compared.relation.recipes[name].names[0], baseline), _momentum(name, candidate)
    if factor is not None and abs(factor - 1) > _CLOSE:
        told = ""
        if None not in settings and settings[0] != settings[1]:
            told = f"momentum is {settings[1]:g}, the baseline's {settings[0]:g}: "
        return _confirmed("batchnorm-momentum", f"{told}it moves {factor:.3g} times as far a batch")
    momentum = settings[0]
    if momentum is None or not name.endswith("var"):
        return None
    seen = b - (1 - momentum) * before  # the batch's unbiased variance times the momentum
    share = _fit(seen, b - c)
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
    if _agree(c, b + held):
        return _confirmed(
            "gradients-not-cleared", "it still holds the gradients of the batch before: zero_grad is missing"
        )
    if _agree(b, c + held):
        return _confirmed("gradients-cleared", "what was accumulated before is lost: zero_grad too early")
    return None


def _step(compared: CandidateBatch, place: Place, name: str, b: Tensor, c: Tensor) -> TrainingCause | None:
    """What an optimiser keeps or writes: weight decay, or another learning rate."""
    weights = compared.weights_before[name].double()
    settings = [
        table.get(key, {})
        for table, key in (
            (compared.kept.groups, compared.relation.recipes[name].names[0]),
            (compared.groups, name),
        )
    ]
    decay = [group.get("weight_decay", 0.0) for group in settings]
    if decay[0] != decay[1] and _fit(weights, c - b) is not None:
        return _confirmed("weight-decay", f"weight_decay is {decay[1]:g}, the baseline's {decay[0]:g}")
    if place.what == WEIGHT:
        factor = _fit(b - weights, c - weights)
        if factor is not None:
            return _confirmed("learning-rate", f"its step is {factor:.6g} times the baseline's")
    options = [
        f"{option} is {settings[1][option]}, the baseline's {value}"
        for option, value in settings[0].items()
        if option not in {"params", "lr", "initial_lr"} and settings[1].get(option, value) != value
    ]
    return TrainingCause(code="optimiser-option", summary="; ".join(options)) if options else None


def schedule(rates: Sequence[tuple[float, float]]) -> TrainingCause | None:
    """How the candidate's learning rates, batch by batch after each, are the baseline's at other times."""
    baseline, candidate = [rate for rate, _ in rates], [rate for _, rate in rates]
    for every in (2, 3, 4):
        expected = baseline[every - 1 :: every]
        if _same(expected, candidate[: len(expected)]):
            times = {2: "twice", 3: "three times", 4: "four times"}[every]
            return _confirmed("schedule-steps", f"the schedule is stepped {times} a step of the optimiser")
    if _same(baseline[:-1], candidate[1:]):
        return _confirmed("schedule-late", "the schedule is one step behind")
    if _same(baseline[1:], candidate[:-1]):
        return _confirmed("schedule-early", "the schedule is one step ahead")
    if len(set(candidate)) == 1 and len(set(baseline)) > 1:
        return _confirmed("schedule-missing", "the learning rate never changes")
    return None


def of_rates(place: Place) -> bool:
    """Whether a place is a learning rate, whose cause only the whole training tells."""
    return place.what == RATE


def _same(baseline: Sequence[float], candidate: Sequence[float]) -> bool:
    """Whether rates agree; two numbers or a rate that never changes would tell nothing."""
    if len(baseline) != len(candidate) or len(baseline) < 3 or len(set(baseline)) < 2:
        return False
    scale = max(map(abs, baseline))
    return all(abs(a - b) <= _CLOSE * scale for a, b in zip(baseline, candidate, strict=True))


def _fit(basis: Tensor, tensor: Tensor) -> float | None:
    """The factor that makes `tensor` of `basis`; None where none does."""
    size = float(basis.square().sum())
    if not size:
        return None
    factor = float((basis * tensor).sum()) / size
    return factor if _agree(tensor, factor * basis) and float(tensor.abs().max()) > 0 else None


def _agree(one: Tensor, other: Tensor) -> bool:
    return float((one - other).norm()) <= _CLOSE * float(one.norm())
