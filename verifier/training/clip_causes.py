"""Why gradients are applied otherwise: clipped to another norm, at another time, one by one, or scaled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.training.fitting import agree, factor_between, fit, near
from verifier.training.records import TrainingCause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.training.evidence import Evidence

_CLOSE = 1e-6
# Of the largest tensor: what rounding leaves of a gradient that is 0, as of an attention's key bias.
_NOTHING = 1e-12
# What clip_grad_norm_ adds to the norm it divides by.
_SMALL = 1e-6


def cause(evidence: Evidence) -> TrainingCause | None:
    """Why the gradients of a batch are not applied as the baseline's are; None where no closed form gives them."""
    names = [name for name in evidence.applied if name in evidence.gradients]
    sizes = {name: max(float(tensor.norm()) for tensor in evidence.applied[name]) for name in names}
    least = _NOTHING * max(sizes.values(), default=0.0)
    names = [name for name in names if sizes[name] > least]
    if not names:
        return None
    raw = {name: evidence.gradients[name][0].double() for name in names}
    b = {name: evidence.applied[name][0].double() for name in names}
    c = {name: evidence.applied[name][1].double() for name in names}
    scale = _scale(evidence)
    plain = {name: tensor / scale for name, tensor in raw.items()}
    return (
        _one_factor(plain, b, c, scale)
        or _each_alone(plain, b, c)
        or _each_alone(plain, c, b, swapped=True)
        or _by_value(plain, b, c)
        or _by_value(plain, c, b, swapped=True)
        or _some(plain, b, c)
        or _decay(evidence, b, c)
    )


def _confirmed(code: str, summary: str) -> TrainingCause:
    return TrainingCause(code=code, summary=summary, confirmed=True)


def _scale(evidence: Evidence) -> float:
    """What the losses were multiplied with, as autograd has it; 1 where they were not."""
    losses = evidence.losses[0] or evidence.losses[1]
    counts = losses[-1].reading.counts if losses else ()
    return math.prod(1 / count for count in counts if count < 1)


def _norm(tensors: Mapping[str, Tensor], power: float = 2.0) -> float:
    norms = [float(tensor.norm(power)) for tensor in tensors.values()]
    return max(norms, default=0.0) if math.isinf(power) else sum(n**power for n in norms) ** (1 / power)


def _one_factor(
    plain: Mapping[str, Tensor], b: Mapping[str, Tensor], c: Mapping[str, Tensor], scale: float
) -> TrainingCause | None:
    """All gradients are some times the baseline's."""
    factors = [factor_between(b[name], c[name]) for name in b if float(b[name].abs().max()) > 0]
    some = [each for each in factors if each is not None]
    if not some or len(some) < len(factors) or not all(near(each, some[0], _CLOSE) for each in some):
        return None
    factor = some[0]
    text = f"gradients are applied {factor:.6g} times as large"
    unclipped, baseline, candidate = _norm(plain), _norm(b), _norm(c)
    there = "the baseline's are not" if near(baseline, unclipped) else f"the baseline's to {_short(baseline)}"
    scaled = unclipped * scale
    if scale != 1:
        if near(factor, scale, _CLOSE) or near(factor, 1 / scale, _CLOSE):
            if near(baseline, unclipped):
                how = "not unscaled" if factor > 1 else "unscaled twice"
                return _confirmed("gradients-scaled", f"{text}: {how}, the loss is scaled by {scale:g}")
            limit = candidate * scale
            return _confirmed("clip-before-unscale", _before(text, limit, scaled, candidate, there, scale))
        limit = candidate * scale
        if _is_short(limit) and candidate < unclipped and not near(candidate, unclipped):
            return _confirmed("clip-before-unscale", _before(text, limit, scaled, candidate, there, scale))
        if near(candidate, unclipped) and _is_short(baseline * scale) and not _is_short(baseline):
            limit = baseline * scale
            return _confirmed(
                "clip-before-unscale",
                f"{text}: the baseline's are clipped to {_short(limit)} before they are divided by the loss scale "
                f"{scale:g}, and so to {baseline:.6g}; the candidate's are not",
            )
    if near(candidate, unclipped):
        told = f"they are not clipped, the baseline's are, from norm {unclipped:.6g} to {_short(baseline)}"
        return _confirmed("gradients-scaled", f"{text}: {told}")
    if candidate < unclipped:
        for power, name in ((1.0, "sum of absolute values"), (math.inf, "largest absolute value")):
            limit = candidate * _norm(plain, power) / unclipped
            if near(limit, baseline, 1e-5) and not near(baseline, unclipped):
                told = f"clipped by their {name} to {_short(limit)}, the baseline's by their Euclidean norm"
                return _confirmed("clip-norm", f"{text}: {told}")
        told = f"clipped from norm {unclipped:.6g} to {_short(candidate)}, {there}"
        return _confirmed("gradients-scaled", f"{text}: {told}")
    return _confirmed("gradients-scaled", f"{text}: not divided, or multiplied, before the step")


def _before(text: str, limit: float, scaled: float, left: float, there: str, scale: float) -> str:
    return (
        f"{text}: clipped to {_short(limit)} before they are divided by the loss scale {scale:g}, when their norm is "
        f"{scaled:.6g}, and so to {left:.6g}; {there}"
    )


def _each_alone(
    plain: Mapping[str, Tensor],
    one: Mapping[str, Tensor],
    each: Mapping[str, Tensor],
    *,
    swapped: bool = False,
) -> TrainingCause | None:
    """Each tensor is clipped by its own norm, where the other side clips all of them by one."""
    norms = {name: float(tensor.norm()) for name, tensor in plain.items()}
    left = {name: float(tensor.norm()) for name, tensor in each.items()}
    limit = max(left.values(), default=0.0)
    clipped = [name for name in left if not near(left[name], norms[name], 1e-5)]
    if not clipped or any(not near(left[name], limit, 1e-5) for name in clipped):
        return None
    for name, tensor in each.items():
        wanted = plain[name] * min(1.0, limit / (norms[name] + _SMALL))
        if not agree(wanted, tensor, 1e-5):
            return None
    whole = _norm(one)
    told = "not clipped" if near(whole, _norm(plain)) else f"clipped together, to norm {_short(whole)}"
    if swapped:
        return _confirmed(
            "clip-each", f"all tensors are {told}, the baseline's each by its own norm, to {_short(limit)}"
        )
    return _confirmed(
        "clip-each",
        f"each tensor is clipped by its own norm, to {_short(limit)} ({len(clipped)} of {len(left)} are); the "
        f"baseline's are {told}",
    )


def _by_value(
    plain: Mapping[str, Tensor],
    one: Mapping[str, Tensor],
    each: Mapping[str, Tensor],
    *,
    swapped: bool = False,
) -> TrainingCause | None:
    """Each number is clipped to a range."""
    limit = max((float(tensor.abs().max()) for tensor in each.values()), default=0.0)
    clamped = {name: tensor.clamp(-limit, limit) for name, tensor in plain.items()}
    if not all(agree(clamped[name], tensor) for name, tensor in each.items()):
        return None
    if all(agree(plain[name], tensor) for name, tensor in each.items()):
        return None
    whole = _norm(one)
    told = "not clipped" if near(whole, _norm(plain)) else f"clipped by their norm, to {_short(whole)}"
    sides = (
        ("the baseline's each number", f"they are {told}")
        if swapped
        else ("each number", f"the baseline's are {told}")
    )
    return _confirmed("clip-value", f"{sides[0]} is clipped to +-{_short(limit)}; {sides[1]}")


def _some(
    plain: Mapping[str, Tensor], b: Mapping[str, Tensor], c: Mapping[str, Tensor]
) -> TrainingCause | None:
    """One factor on some tensors, none on others."""
    factors = {name: fit(plain[name], c[name]) for name in c if float(plain[name].abs().max()) > 0}
    some = [each for each in factors.values() if each is not None and not near(each, 1.0, _CLOSE)]
    if not some or None in factors.values() or not all(near(each, some[0], _CLOSE) for each in some):
        return None
    left = [name for name, each in factors.items() if each is not None and near(each, 1.0, _CLOSE)]
    if not left:
        return None
    whole = _norm(b)
    unclipped = near(whole, _norm(plain))
    scaled = {name: tensor for name, tensor in c.items() if name in factors and name not in left}
    if some[0] > 1 or (unclipped and not _is_short(_norm(scaled))):
        return _confirmed(
            "gradients-scaled",
            f"gradients of {len(some)} of {len(factors)} tensors are applied {some[0]:.6g} times as large as they "
            f"were ({_named(left)} not)",
        )
    told = "are not" if unclipped else f"are all clipped, to norm {_short(whole)}"
    return _confirmed(
        "clip-some",
        f"{len(some)} of {len(factors)} tensors are clipped, {some[0]:.6g} times as large as they were "
        f"({_named(left)} not); the baseline's {told}",
    )


def _decay(evidence: Evidence, b: Mapping[str, Tensor], c: Mapping[str, Tensor]) -> TrainingCause | None:
    """A multiple of the weights is added to the gradients."""
    apart = {name: c[name] - b[name] for name in c if float((c[name] - b[name]).abs().max()) > 0}
    factors = [
        fit(evidence.weights[name].double(), apart[name]) for name in apart if name in evidence.weights
    ]
    some = [each for each in factors if each is not None]
    if not some or len(some) < len(apart) or not all(near(each, some[0]) for each in some):
        return None
    return _confirmed(
        "weight-decay", f"{some[0]:.6g} times the weight is added to the gradients of {len(some)} tensors"
    )


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_short(value: float) -> bool:
    """Whether a person would write the number: three digits, and what clipping adds to a norm."""
    return near(value, float(f"{value:.3g}"), 1e-5)


def _short(value: float) -> str:
    return f"{value:.3g}" if _is_short(value) else f"{value:.6g}"
