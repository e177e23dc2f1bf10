"""Class scores of two models: what their difference does to the classes; those of batches merge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.metrics.measure import collect, measure
from verifier.metrics.table import compare
from verifier.records import Flip

if TYPE_CHECKING:
    from verifier.metrics.moments import Moments

# Below this, exp(t) - 1 - t is summed as a series: its own terms would cancel.
SMALL = 1e-2

MOST_FLIPS = 100
"""Flips that are told one by one."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What remains of class scores a and b once both were read: sums, counts and extremes.

    `low` and `high` are the extremes of the finite probabilities of either side.
    """

    samples: int
    classes: int
    top1: int
    top5: int
    divergence: float
    largest_divergence: float
    margin: float
    error: float
    probabilities: Moments
    low: tuple[float, float]
    high: tuple[float, float]
    flips: tuple[Flip, ...]

    @classmethod
    def of(cls, a: Tensor, b: Tensor, offset: int = 0) -> Scores:
        """Of float64 scores of shape (samples, classes) on one device; the first sample has the number `offset`."""
        samples, classes = a.shape
        best = a.argmax(dim=1), b.argmax(dim=1)
        ranked = ~(a.isnan() | b.isnan()).any(dim=1)
        kept = ranked & (best[0] == best[1])
        divergences, margins = kl_divergence(a, b), _margins(a)
        errors = torch.where(a == b, 0.0, (b - a).abs()).amax(dim=1)
        p, q = torch.softmax(a, dim=1), torch.softmax(b, dim=1)
        (probabilities,) = collect([measure(p, q)])
        nothing = a.new_tensor(-torch.inf)
        # Maxima and minima of torch hand NaN on, and so do these figures.
        figures = torch.stack(
            [
                kept.sum().double(),
                (ranked & (_highest(a, 5) == _highest(b, 5)).all(dim=1)).sum().double(),
                divergences.sum(),
                divergences.amax() if samples else nothing,
                margins.amin() if samples else -nothing,
                errors.amax() if samples else nothing,
                *(
                    (side.masked_fill(~side.isfinite(), torch.inf).amin() if samples else -nothing)
                    for side in (p, q)
                ),
                *(
                    (side.masked_fill(~side.isfinite(), -torch.inf).amax() if samples else nothing)
                    for side in (p, q)
                ),
            ]
        ).tolist()
        top1, top5, divergence, largest, margin, error, *extremes = figures
        return cls(
            samples, classes, int(top1), int(top5), divergence, largest, margin, error, probabilities,
            (extremes[0], extremes[1]), (extremes[2], extremes[3]),
            _flips(kept, margins, errors, best, offset),
        )  # fmt: skip

    def merge(self, other: Scores) -> Scores:
        """The scores of both sets of samples together, which have as many classes."""
        flips = sorted((*self.flips, *other.flips), key=_gravity)
        return Scores(
            samples=self.samples + other.samples,
            classes=self.classes,
            top1=self.top1 + other.top1,
            top5=self.top5 + other.top5,
            divergence=self.divergence + other.divergence,
            largest_divergence=_highest_of(self.largest_divergence, other.largest_divergence),
            margin=-_highest_of(-self.margin, -other.margin),
            error=_highest_of(self.error, other.error),
            probabilities=self.probabilities.merge(other.probabilities),
            low=(min(self.low[0], other.low[0]), min(self.low[1], other.low[1])),
            high=(max(self.high[0], other.high[0]), max(self.high[1], other.high[1])),
            flips=tuple(flips[:MOST_FLIPS]),
        )

    def told(self) -> dict[str, Any]:
        """The fields of `OutputAgreement` that class scores have; shares and extremes of no samples are NaN."""
        n = self.samples
        constant = all(high <= low for low, high in zip(self.low, self.high, strict=True))
        defined = not (self.probabilities.nonfinite_mismatched == 0 and constant)
        margin, error = (self.margin, self.error) if n else (math.nan, math.nan)
        return {
            "pearson_probabilities": compare(self.probabilities).pearson if defined else None,
            "top1_agreement": self.top1 / n if n else math.nan,
            "top5_agreement": None if self.classes < 6 else self.top5 / n if n else math.nan,
            "kl_mean": self.divergence / n if n else math.nan,
            "kl_max": self.largest_divergence if n else math.nan,
            "smallest_margin": margin,
            "largest_logit_error": error,
            "top1_safe": margin > 2 * error,
            "samples": n,
            "flipped": n - self.top1,
            "flips": self.flips,
        }


def _flips(
    kept: Tensor, margins: Tensor, errors: Tensor, best: tuple[Tensor, Tensor], offset: int
) -> tuple[Flip, ...]:
    """The gravest of the samples that have another highest class, or none."""
    numbers = (~kept).nonzero().flatten()
    columns = [each[numbers].tolist() for each in (margins, errors, *best)]
    found = [
        Flip(sample=offset + number, margin=margin, error=error, baseline=one, candidate=two)
        for number, margin, error, one, two in zip(numbers.tolist(), *columns, strict=True)
    ]
    return tuple(sorted(found, key=_gravity)[:MOST_FLIPS])


def _gravity(flip: Flip) -> tuple[float, int]:
    """NaN first, then the widest margin, then the lowest number."""
    return (-math.inf if math.isnan(flip.margin) else -flip.margin, flip.sample)


def _highest_of(one: float, two: float) -> float:
    return math.nan if math.isnan(one) or math.isnan(two) else max(one, two)


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
