"""Why a loss is another on the same outputs: a factor and what was counted, other labels, smoothing, a penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.training import cross_entropy
from verifier.training.fitting import agree, factor_between, fit, near
from verifier.training.records import TrainingCause
from verifier.training.wording import counted, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from verifier.training.cross_entropy import CrossEntropy
    from verifier.training.evidence import Answer, Evidence, Loss

_CLOSE = 1e-9  # relative: losses and their gradients are sums of products, a few hundred roundings at most
_CLOSE_IN_SINGLE = 3e-5  # as many roundings of float32
_COUNTS = 4  # told of one side


def cause(evidence: Evidence) -> TrainingCause | None:
    """Why the losses of a batch differ; None where nothing that is known here gives the candidate's numbers."""
    answers, (b, c) = evidence.answers, evidence.losses
    if not b or not c:
        return None
    exact = all(each.baseline.dtype == torch.float64 for each in answers)
    close = _CLOSE if exact else _CLOSE_IN_SINGLE
    if any(not agree(each.baseline.double(), each.candidate.double(), close) for each in answers):
        return _factor(answers, b, c, close) or _as_cross_entropy(answers, b, c, close)
    return _penalty(evidence, sum(each.value for each in c) - sum(each.value for each in b))


def _confirmed(code: str, summary: str) -> TrainingCause:
    return TrainingCause(code=code, summary=summary, confirmed=True)


def _factor(
    answers: Sequence[Answer], b: Sequence[Loss], c: Sequence[Loss], close: float
) -> TrainingCause | None:
    """The loss is the baseline's times a number, in every pass."""
    factors: list[float] = []
    for each in answers:
        b_slopes, c_slopes = each.baseline.double(), each.candidate.double()
        factor = 1.0 if agree(b_slopes, c_slopes, close) else factor_between(b_slopes, c_slopes)
        if factor is None:
            return None
        factors.append(factor)
    one = all(near(factor, factors[0], close) for factor in factors)
    if one:
        whole = near(sum(each.value for each in c), factors[0] * sum(each.value for each in b), close)
    elif len(answers) == len(c):
        in_pairs = len(b) == len(c) and all(
            near(y.value, factor * x.value, close) for x, y, factor in zip(b, c, factors, strict=True)
        )
        whole = in_pairs or all(_reproduces(each, loss, close) for each, loss in zip(answers, c, strict=True))
    else:
        return None
    if not whole:
        return None
    text = f"the loss is {factors[0]:.6g} times the baseline's"
    if not one:
        text += f" ({numbers(*factors)} in the passes of a batch)"
    return _confirmed("loss-scaled", f"{text}{_by_counts(factors, answers, b, c, close)}")


def _reproduces(answer: Answer, loss: Loss, close: float) -> bool:
    found = cross_entropy.read(answer.outputs, answer.candidate)
    return found is not None and near(found[0].value(), loss.value, close)


class _Count(NamedTuple):
    name: str
    number: float


def _known_counts(answers: Sequence[Answer], first: int, passes: int) -> list[_Count]:
    """What a loss may be divided by, by what it counts, for one pass of a batch."""
    one, every = answers[first].baseline, [each.baseline for each in answers]
    found = [
        _Count(f"samples of the batch's {len(every)} passes", sum(map(len, every)) if one.dim() else 1),
        _Count(f"labels that count in the batch's {len(every)} passes", sum(map(_labelled, every))),
        _Count("labels that count", _labelled(one)),
        _Count("samples", len(one) if one.dim() else 1),
        _Count("positions", _positions(one)),
        _Count("numbers in the output", one.numel()),
        _Count("classes", _classes(one)),
        _Count("passes of the batch", passes),
    ]
    kept: dict[float, _Count] = {}
    for each in found if len(every) > 1 else found[2:]:
        if each.number > 1:
            kept.setdefault(each.number, each)
    samples = _Count("samples", len(one) if one.dim() else 1)
    if samples.number > 1:  # what is both labels and samples, people call samples
        kept[samples.number] = samples
    return list(kept.values())


def _classes(tensor: Tensor) -> int:
    """Of scores: the dimension along which a cross-entropy's gradient sums to nothing."""
    for dim in (1, tensor.dim() - 1):
        if tensor.dim() > dim > 0:
            sums = tensor.double().sum(dim)
            close = _CLOSE if tensor.dtype == torch.float64 else _CLOSE_IN_SINGLE
            if float(sums.abs().max()) <= close * float(tensor.abs().max()):
                return tensor.shape[dim]
    return 1


def _positions(tensor: Tensor) -> int:
    return tensor.numel() // _classes(tensor)


def _labelled(tensor: Tensor) -> int:
    for dim in (1, tensor.dim() - 1):
        if tensor.dim() > dim > 0 and _classes(tensor) == tensor.shape[dim]:
            return int((tensor.abs().amax(dim) > 0).sum())
    return len(tensor) if tensor.dim() else 1


def _by_counts(
    factors: Sequence[float], answers: Sequence[Answer], b: Sequence[Loss], c: Sequence[Loss], close: float
) -> str:
    """Which counts make the factor: those autograd has of each side's division, else a quotient of known ones."""
    known = _known_counts(answers, 0, max(len(b), len(c)))
    divisors = b[0].reading, c[0].reading
    if near(factors[0], divisors[0].divisor / divisors[1].divisor, close):
        here, there = (_product(each.counts, known) for each in reversed(divisors))
        return f": it is {here}, the baseline's {there}"
    for over in known:
        if near(factors[0], over.number, close):
            return f": the number of {over.name} ({counted(over.number)}), by which the baseline divides"
        if near(factors[0], 1 / over.number, close):
            return f": it is divided by the number of {over.name} ({counted(over.number)}), the baseline's is not"
    for over in known:
        for under in known:
            if over != under and near(factors[0], over.number / under.number, close):
                return (
                    f": divided by the number of {under.name} ({counted(under.number)}), the baseline's by that of "
                    f"{over.name} ({counted(over.number)})"
                )
    return ""


def _product(counts: Sequence[float], known: Iterable[_Count]) -> str:
    """What a loss is divided by and multiplied with, in words."""
    names = {each.number: each.name for each in known}
    counts = [count for count in counts if count != 1]
    divided = [f"{counted(n)} {names[n]}" if n in names else counted(n) for n in counts[:_COUNTS] if n >= 1]
    times = [counted(1 / n) for n in counts[:_COUNTS] if n < 1]
    told = [f"divided by {' and '.join(divided)}"] if divided else []
    told += [f"multiplied by {' and '.join(times)}"] if times else []
    return " and ".join(told) or "not divided"


def _as_cross_entropy(
    answers: Sequence[Answer], b: Sequence[Loss], c: Sequence[Loss], close: float
) -> TrainingCause | None:
    """Both losses are cross-entropies of the same scores, and are taken otherwise."""
    for answer, (x, y) in _in_pairs(answers, b, c):
        mine = cross_entropy.read(answer.outputs, answer.baseline)
        dim = None if mine is None else mine[1]
        other = cross_entropy.read(answer.outputs, answer.candidate, dim)
        if mine is not None and other is not None:
            told = [*_differences(mine[0], other[0], close)]
            if told and near(mine[0].value(), x, close) and near(other[0].value(), y, close):
                return _confirmed(told[0][0], "; ".join(text for _, text in told))
        elif mine is not None and near(mine[0].value(), x, close):
            found = _applied_to(mine[0], answer.candidate, y, mine[1], close)
            if found:
                return _confirmed(
                    "loss-input", f"the loss is taken of {found}, the baseline's of the outputs themselves"
                )
        elif other is not None and near(other[0].value(), y, close):
            found = _applied_to(other[0], answer.baseline, x, other[1], close)
            if found:
                return _confirmed(
                    "loss-input", f"the loss is taken of the outputs themselves, the baseline's of {found}"
                )
    return None


def _in_pairs(
    answers: Sequence[Answer], b: Sequence[Loss], c: Sequence[Loss]
) -> Iterable[tuple[Answer, tuple[float, float]]]:
    if len(answers) == len(b) == len(c):
        for answer, x, y in zip(answers, b, c, strict=True):
            yield answer, (x.value, y.value)


def _differences(b: CrossEntropy, c: CrossEntropy, close: float) -> Iterable[tuple[str, str]]:
    """In what two cross-entropies of the same scores differ, what weighs most first."""
    both = b.counted & c.counted
    elsewhere = int((b.labels[both] != c.labels[both]).sum())
    other_rows = not torch.equal(b.counted, c.counted)
    moved = _shifted(b, c) if elsewhere or other_rows else ""
    if moved:
        yield "labels-different", moved
    elif elsewhere:
        many = f"{elsewhere} of {int(both.sum())} positions"
        yield "labels-different", f"the loss is taken against other labels at {many}"
    counts = int(b.counted.sum()), int(c.counted.sum())
    if other_rows and not moved:
        yield (
            "labels-ignored",
            f"{counts[1]} of {len(c.counted)} labels count, the baseline's {counts[0]} (ignored labels)",
        )
    if not near(b.smoothing, c.smoothing, 100 * close):
        yield "label-smoothing", _smoothing(b, c)
    if b.uniform and c.uniform:
        factor = float(c.weights.max()) / float(b.weights.max())
        if not near(factor, 1.0, 100 * close):
            yield "loss-scaled", f"each counts {factor:.6g} times as much as the baseline's"
    elif fit(b.weights[both], c.weights[both], 100 * close) is None:
        yield "class-weights", f"labels weigh otherwise: {_weights(c)}, the baseline's {_weights(b)}"


def _shifted(b: CrossEntropy, c: CrossEntropy) -> str:
    """Whether one side's labels are the other's some positions on; the last positions may have none."""
    if len(b.shape) < 2:
        return ""
    one, other = (torch.where(each.counted, each.labels, -1).reshape(each.shape) for each in (b, c))
    for by in (1, 2):
        length = b.shape[-1] - 2 * by
        if length < 2:
            return ""
        told = f"{by} position{'s' if by > 1 else ''}"
        if torch.equal(other[..., :length], one[..., by : by + length]):
            return f"the labels are shifted: those {told} later than the baseline's"
        if torch.equal(one[..., :length], other[..., by : by + length]):
            return f"the labels are shifted: those {told} earlier than the baseline's"
    return ""


def _smoothing(b: CrossEntropy, c: CrossEntropy) -> str:
    """Smoothing e over all C classes is e (C - 1) / C over the others: the shorter number was meant."""

    def told(each: CrossEntropy) -> str:
        over = each.smoothing * (each.classes - 1) / each.classes
        if len(f"{over:.6g}") < len(f"{each.smoothing:.6g}"):
            return f"{over:.6g} spread over the other {each.classes - 1} classes"
        return f"{each.smoothing:.6g}"

    return f"label smoothing is {told(c)}, the baseline's {told(b)}: a label counts (1 - e) + e / {c.classes}"


def _weights(each: CrossEntropy) -> str:
    if each.uniform:
        return "all the same"
    labels, weights = each.labels[each.counted], each.weights[each.counted]
    first = [float(weights[labels == label][0]) for label in sorted({*labels.tolist()})]
    return numbers(*(weight / first[0] for weight in first)) + " relative to the first class's"


def _applied_to(known: CrossEntropy, gradient: Tensor, value: float, dim: int, close: float) -> str:
    """What the outputs go through first, on one side alone, so that its numbers come out; empty if nothing does."""
    wanted = cross_entropy.rows(gradient, dim)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "their softmax": lambda scores: scores.softmax(1),
        "their sigmoid": torch.sigmoid,
    }
    temperature = _temperature(known, wanted)
    if temperature is not None:
        ways[f"the outputs divided by {temperature:.6g} (a temperature)"] = lambda scores: (
            scores / temperature
        )
    for name, way in ways.items():
        with torch.enable_grad(), torch.inference_mode(mode=False):
            scores = known.scores.clone().requires_grad_()
            loss = known.of(way(scores))
            (made,) = torch.autograd.grad(loss, scores)
        factor = fit(made, wanted, close)
        if factor is not None and near(factor * float(loss.detach()), value, close):
            return name
    return ""


def _temperature(known: CrossEntropy, wanted: Tensor) -> float | None:
    """The number T by which scores are divided: away from the label, log gradients differ as scores do, by 1 / T."""
    row = int(known.counted.to(torch.int8).argmax())
    others = torch.arange(known.classes) != known.labels[row]
    slopes, scores = wanted[row][others], known.scores[row][others]
    if len(scores) < 2 or not bool((slopes > 0).all()):
        return None
    low, high = int(scores.argmin()), int(scores.argmax())
    apart = float((slopes[high] / slopes[low]).log())
    return float(scores[high] - scores[low]) / apart if apart else None


def _penalty(evidence: Evidence, more: float) -> TrainingCause | None:
    """The gradients by the outputs agree: what differs is added to the loss, and a function of the weights."""
    ways: tuple[tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], float]], ...] = (
        ("l / 2 times their squares", lambda w: w, lambda w: float(w.square().sum()) / 2),
        ("l times their absolute values", torch.sign, lambda w: float(w.abs().sum())),
    )
    for name, gradient, value in ways:
        factors, total = [], 0.0
        for key, (b, c) in evidence.gradients.items():
            apart = c.double() - b.double()
            if key not in evidence.weights or not float(apart.abs().max()) > 0:
                continue
            weight = evidence.weights[key].double()
            factors.append(fit(gradient(weight), apart))
            total += value(weight)
        some = [each for each in factors if each is not None]
        if not some or len(some) < len(factors) or not all(near(each, some[0]) for each in some):
            continue
        if near(more, some[0] * total, 1e-6):
            verb = "added to the loss" if some[0] > 0 else "missing in the loss"
            return _confirmed(
                "loss-penalty",
                f"a penalty on {len(some)} weight tensors, {name} with l = {abs(some[0]):.6g}, is {verb}",
            )
    return None
