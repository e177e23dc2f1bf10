"""How well the final outputs of two models agree."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.metrics import Moments, collect, compare, measure
from verifier.result import OutputAgreement

if TYPE_CHECKING:
    from collections.abc import Sequence


def agreement(baseline: Sequence[Tensor], candidate: Sequence[Tensor]) -> OutputAgreement | None:
    """Agreement of two models' output tensors; None if no two share a position and a shape.

    `mse` is over all such tensors. The first that is floating point, of shape (samples, classes) with at least
    two classes, is read as class scores: `pearson_probabilities` compares their softmax (in float64), and
    `top1_agreement` is the share of samples (0..1) with the same highest class.
    """
    shared = [(a, b) for a, b in zip(baseline, candidate, strict=False) if a.shape == b.shape]
    if not shared:
        return None
    pooled = reduce(Moments.merge, collect([measure(a, b) for a, b in shared]))
    scores = next(
        ((a, b) for a, b in shared if a.is_floating_point() and a.dim() == 2 and a.shape[1] > 1), None
    )
    if scores is None:
        return OutputAgreement(mse=compare(pooled).mse, pearson_probabilities=None, top1_agreement=None)
    a, b = (torch.softmax(side.double(), dim=1) for side in scores)
    (probabilities,) = collect([measure(a, b)])
    same = (scores[0].argmax(dim=1) == scores[1].argmax(dim=1).to(scores[0].device)).double().mean()
    return OutputAgreement(
        mse=compare(pooled).mse,
        pearson_probabilities=compare(probabilities).pearson,
        top1_agreement=float(same),
    )
