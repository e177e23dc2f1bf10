"""Reading a cross-entropy off its gradient: which labels it was taken against, how smoothed, how weighted.

The gradient of a cross-entropy by the scores z of one sample is s (p - q), with p = softmax(z), q the label's
distribution, (1 - e) at the label and e / C everywhere besides for labels smoothed by e over C classes, and s the
weight of the sample. So what is no label tells s and e, and what remains is the label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

# Relative to the largest gradient: a cross-entropy is read exactly or not at all.
_CLOSE = 1e-8
_CLOSE_IN_SINGLE = 1e-5


@dataclass(frozen=True)
class CrossEntropy:
    """What a cross-entropy is taken against, row by row (R): a row is a sample, a pixel or a token.

    Attributes:
        scores: (R, C), float64.
        counted: Which rows count.
        labels: Of the rows that count, else 0.
        smoothing: Share of a label that is spread over all classes.
        weights: The weight of each row.
        shape: Of the rows, as the outputs have them.
    """

    scores: Tensor
    counted: Tensor
    labels: Tensor
    smoothing: float
    weights: Tensor
    shape: tuple[int, ...]

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self.scores.shape[1]

    @property
    def uniform(self) -> bool:
        """Whether all rows that count weigh the same."""
        return _same(self.weights[self.counted])

    def value(self) -> float:
        """The loss."""
        return float(self.of(self.scores))

    def of(self, scores: Tensor) -> Tensor:
        """The loss of other scores against the same labels, as a tensor that has a gradient if they have."""
        logs = scores.log_softmax(1)
        at_label = logs.gather(1, self.labels.unsqueeze(1))[:, 0]
        rows = -(1 - self.smoothing) * at_label - self.smoothing * logs.mean(1)
        return (self.weights * rows * self.counted).sum()


def rows(tensor: Tensor, dim: int) -> Tensor:
    """A tensor with classes along `dim` as (R, C), float64."""
    return tensor.double().movedim(dim, -1).reshape(-1, tensor.shape[dim])


def read(outputs: Tensor, gradient: Tensor, dim: int | None = None) -> tuple[CrossEntropy, int] | None:
    """The cross-entropy with this gradient by the outputs, and along which dimension; None if it is none.

    Args:
        outputs: The scores: (N, C), (N, C, ...) or (N, ..., C).
        gradient: Of the loss by them.
        dim: The dimension of the classes, if it is known.
    """
    for each in _dimensions(outputs) if dim is None else (dim,):
        found = _read(outputs, gradient, each)
        if found is not None:
            return found, each
    return None


def _dimensions(outputs: Tensor) -> Iterator[int]:
    if outputs.dim() >= 2:
        yield 1
    if outputs.dim() >= 3:
        yield outputs.dim() - 1


def _read(outputs: Tensor, gradient: Tensor, dim: int) -> CrossEntropy | None:
    if outputs.shape[dim] < 2:
        return None
    scores, slopes = rows(outputs, dim), rows(gradient, dim)
    largest = float(slopes.abs().max())
    if not 0 < largest < float("inf"):
        return None
    exact = gradient.dtype == torch.float64
    close = (_CLOSE if exact else _CLOSE_IN_SINGLE) * largest
    counted = slopes.abs().amax(1) > 1e-12 * largest
    if float(slopes.sum(1).abs().max()) > close:
        return None
    labels = torch.where(counted, slopes.argmin(1), 0)
    chances = scores.softmax(1)
    others = torch.ones_like(slopes, dtype=torch.bool).scatter_(1, labels.unsqueeze(1), value=False)
    others &= counted.unsqueeze(1)
    weights, smoothing = _uniform(chances, slopes, others, counted)
    smoothing = 0.0 if abs(smoothing) < (1e-9 if exact else 1e-5) else smoothing
    smoothing = float(f"{smoothing:.{9 if exact else 4}g}")
    if weights is None or not _agrees(chances, slopes, labels, counted, weights, smoothing, close):
        smoothing = 0.0
        at = torch.where(others, chances, 0.0)
        weights = (torch.where(others, slopes, 0.0) * at).sum(1) / at.square().sum(1).clamp_min(1e-300)
        if not _agrees(chances, slopes, labels, counted, weights, smoothing, close):
            return None
    shape = tuple(outputs.movedim(dim, -1).shape[:-1])
    return CrossEntropy(scores, counted, labels, smoothing, torch.where(counted, weights, 0.0), shape)


def _uniform(chances: Tensor, slopes: Tensor, others: Tensor, counted: Tensor) -> tuple[Tensor | None, float]:
    """The one weight and smoothing that fit all rows best."""
    x, y = chances[others], slopes[others]
    spread = x - x.mean()
    size = float(spread.square().sum())
    if not size:
        return None, 0.0
    weight = float((spread * y).sum()) / size
    smoothing = (weight * float(x.mean()) - float(y.mean())) * chances.shape[1] / weight if weight else 0.0
    return torch.full(counted.shape, weight, dtype=torch.float64), smoothing


def _agrees(
    chances: Tensor,
    slopes: Tensor,
    labels: Tensor,
    counted: Tensor,
    weights: Tensor,
    smoothing: float,
    close: float,
) -> bool:
    wanted = torch.full_like(chances, smoothing / chances.shape[1])
    wanted.scatter_add_(1, labels.unsqueeze(1), torch.full_like(chances[:, :1], 1 - smoothing))
    made = weights.unsqueeze(1) * (chances - wanted) * counted.unsqueeze(1)
    return float((made - slopes).abs().max()) <= close


def _same(weights: Tensor) -> bool:
    return not weights.numel() or float((weights - weights[0]).abs().max()) <= 1e-7 * float(weights[0].abs())
