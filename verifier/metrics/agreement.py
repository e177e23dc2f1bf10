"""How well the final outputs of two models agree, and what their difference does to the task."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.metrics import Moments, collect, compare, measure
from verifier.metrics.bits import same_bits
from verifier.records import OutputAgreement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Below this, exp(t) - 1 - t is summed as a series: its own terms would cancel.
SMALL = 1e-2


def agreement(
    baseline: Sequence[Tensor], candidate: Sequence[Tensor], *, samples: int | None = None
) -> OutputAgreement | None:
    """Agreement of two models' output tensors; None if no two share a position and a shape.

    `mse` and `bit_exact` are over all such tensors. The first that is floating point, of shape (rows, classes) with
    at least two classes, is read as class scores, in float64: `OutputAgreement` tells what is made of them.

    Args:
        baseline: What one returns.
        candidate: What the other does.
        samples: How many went in. Rows that are not as many, and each of which has a whole number of its own in
            another output, are what was found in a picture (boxes with their labels), and no class scores.
    """
    shared = [(a, b) for a, b in zip(baseline, candidate, strict=False) if a.shape == b.shape]
    if not shared:
        return None
    pooled = reduce(Moments.merge, collect([measure(a, b) for a, b in shared]))
    labelled = {len(a) for a, _ in shared if a.dim() == 1 and not (a.is_floating_point() or a.is_complex())}
    scores = next(
        (
            (a.detach().double(), b.detach().to(a.device, torch.float64))
            for a, b in shared
            if a.is_floating_point() and not b.is_complex() and a.dim() == 2 and a.shape[1] > 1
            if samples in (None, a.shape[0]) or a.shape[0] not in labelled
        ),
        None,
    )
    told: dict[str, Any] = {"pearson_probabilities": None, "top1_agreement": None}
    if scores is not None:
        a, b = (torch.softmax(side, dim=1) for side in scores)
        (probabilities,) = collect([measure(a, b)])
        defined = not (probabilities.nonfinite_mismatched == 0 and _constant(a) and _constant(b))
        pearson = compare(probabilities).pearson if defined else None
        told = {"pearson_probabilities": pearson, **_impact(*scores)}
    return OutputAgreement(
        mse=compare(pooled).mse, bit_exact=_bit_exact(shared), worst_channel=_worst_channel(shared), **told
    )


def _constant(tensor: Tensor) -> bool:
    """Whether all finite numbers are one, or there are none: what has no correlation with anything."""
    finite = tensor[tensor.isfinite()]
    return finite.numel() == 0 or bool(finite.amin() == finite.amax())


def _worst_channel(shared: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """The largest relative L2 error of any slice along a last axis, which no large slice beside it hides."""
    worst: list[float] = []
    for baseline, candidate in shared:
        if not baseline.is_floating_point() or candidate.is_complex() or baseline.dim() < 2:
            continue
        if not baseline.shape[-1]:
            continue
        a, b = (side.detach().to(baseline.device).flatten(0, -2) for side in (baseline, candidate))
        if a.dtype == b.dtype and torch.equal(a, b):
            worst.append(0.0)
            continue
        error, size = (torch.zeros(a.shape[1], dtype=torch.float64, device=a.device) for _ in range(2))
        for some, others in zip(_parts(a), _parts(b), strict=True):
            one, two = some.double(), others.double()
            finite = one.isfinite()  # what is not finite is judged by itself
            difference = torch.where((one == two) | ~(finite & two.isfinite()), 0.0, two - one)
            error += difference.square_().sum(0)
            size += one.masked_fill(~finite, 0.0).square_().sum(0)
        worst.append(float((error.sqrt() / size.sqrt()).masked_fill(error == 0, 0.0).amax()))
    return max(worst, default=None)


_AT_ONCE = 1 << 20  # elements that are widened at once


def _parts(rows: Tensor) -> Iterable[Tensor]:
    return torch.split(rows, max(1, _AT_ONCE // rows.shape[1]))


def _bit_exact(shared: Sequence[tuple[Tensor, Tensor]]) -> bool | None:
    if any(a.dtype != b.dtype for a, b in shared):
        return None
    return all(bool(same_bits(a, b)) for a, b in shared)


def _impact(a: Tensor, b: Tensor) -> dict[str, Any]:
    """What is said of class scores `a` and `b` (float64, samples x classes); shares and extremes of none are NaN."""
    samples, classes = a.shape
    ranked = ~(a.isnan() | b.isnan()).any(dim=1)
    divergences = kl_divergence(a, b)
    columns = {
        "top1_agreement": (ranked & (a.argmax(dim=1) == b.argmax(dim=1))).double(),
        "top5_agreement": (ranked & (_highest(a, 5) == _highest(b, 5)).all(dim=1)).double(),
        "kl_mean": divergences,
        "kl_max": divergences,
        "smallest_margin": _margins(a),
        "largest_logit_error": torch.where(a == b, 0.0, (b - a).abs()).amax(dim=1),
    }
    reductions = {"kl_max": torch.amax, "smallest_margin": torch.amin, "largest_logit_error": torch.amax}
    # Maxima and minima of torch hand NaN on, and so do these figures.
    figures = torch.stack(
        [
            reductions.get(name, torch.mean)(column, dim=0) if samples else column.new_tensor(torch.nan)
            for name, column in columns.items()
        ]
    ).tolist()
    told: dict[str, Any] = dict(zip(columns, figures, strict=True))
    if classes < 6:
        told["top5_agreement"] = None
    return told | {
        "samples": samples,
        "top1_safe": told["smallest_margin"] > 2 * told["largest_logit_error"],
    }


def _highest(scores: Tensor, count: int) -> Tensor:
    """Each sample's `count` highest classes, in the order of their numbers; the lower number wins a tie."""
    order = (scores + 0.0).sort(dim=1, descending=True, stable=True).indices  # + 0.0: the two zeros are a tie
    return order[:, :count].sort(dim=1).values


def _margins(scores: Tensor) -> Tensor:
    """Each sample's gap between the best and the second-best score: 0 for a tie, NaN where a score is."""
    best, second = scores.topk(2, dim=1).values.unbind(dim=1)
    return torch.where(best == second, 0.0, best - second)


def kl_divergence(a: Tensor, b: Tensor) -> Tensor:
    """KL(softmax(a) || softmax(b)) of each row in nats, for float64 logits of shape (samples, classes).

    With p and q the probabilities and t = log(q / p), the terms q - p - p t of all classes add up to it, for p and q
    both add up to 1; none is negative, and each is p (exp(t) - 1 - t), which is of second order in t. So nothing
    cancels where the models nearly agree, as it does in the sum of -p t. For t to keep its digits there, it is made
    from the difference of the logits: t = d - log(sum p exp(d)). The relative error is about 1e-13 as long as the
    logits themselves are of moderate size.

    A logit of -inf is a class of probability 0, which adds nothing if both sides have it and makes the divergence
    infinite if only `b` does. Rows without probabilities (a NaN, an infinite logit above all, -inf alone) are NaN.
    """
    log_p, log_q = torch.log_softmax(a, dim=1), torch.log_softmax(b, dim=1)
    p, q = log_p.exp(), log_q.exp()
    # A common shift of all logits changes no probability: the baseline's first choice is taken to stay as it is.
    d = torch.where(a == b, 0.0, b - a)
    d = d - d.gather(1, a.argmax(dim=1, keepdim=True))
    grown = (p * d.expm1()).sum(dim=1, keepdim=True)  # sum p exp(d) - 1
    near = grown.abs() < 0.5
    t = torch.where(near, d - torch.where(near, grown, 0.0).log1p(), log_q - log_p)
    series = t * t * (1 / 2 + t * (1 / 6 + t * (1 / 24 + t * (1 / 120 + t / 720))))
    curved = torch.where(t.abs() < SMALL, series, t.expm1() - t)
    terms = torch.where(t.abs() < 1, p * curved, q - p - p * t)
    undefined = (log_p.isnan() | log_q.isnan()).any(dim=1)
    return torch.where(p == 0, q, terms).sum(dim=1).clamp(min=0).masked_fill(undefined, torch.nan)
