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
_ROUNDS = 8


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
    chances = scores.softmax(1)
    read = _smoothed(chances, slopes, counted, close, 9 if exact else 4) or _weighted(
        chances, slopes, counted, close
    )
    if read is None:
        return None
    labels, weights, smoothing = read
    shape = tuple(outputs.movedim(dim, -1).shape[:-1])
    return CrossEntropy(scores, counted, labels, smoothing, torch.where(counted, weights, 0.0), shape)


def _smoothed(
    chances: Tensor, slopes: Tensor, counted: Tensor, close: float, digits: int
) -> tuple[Tensor, Tensor, float] | None:
    """Labels, the one weight of all rows and their smoothing, if they give the gradient.

    The label is where s (p - q) lies lowest below s p; s is fitted to what is no label, as it is known so far.
    """
    weight = 0.0
    for _ in range(_ROUNDS):
        labels = torch.where(counted, (slopes - weight * chances).argmin(1), 0)
        others = _others(slopes, labels, counted)
        x, y = chances[others], slopes[others]
        spread = x - x.mean()
        size = float(spread.square().sum())
        if not size:
            return None
        weight = float((spread * y).sum()) / size
        if not weight:
            return None
        smoothing = (weight * float(x.mean()) - float(y.mean())) * chances.shape[1] / weight
        smoothing = 0.0 if abs(smoothing) < 10.0**-digits else float(f"{smoothing:.{digits}g}")
        weights = torch.full(counted.shape, weight, dtype=torch.float64)
        if _agrees(chances, slopes, labels, counted, weights, smoothing, close):
            return labels, weights, smoothing
    return None


def _weighted(
    chances: Tensor, slopes: Tensor, counted: Tensor, close: float
) -> tuple[Tensor, Tensor, float] | None:
    """Labels and a weight for each row, without smoothing: only the label's gradient is below 0 then."""
    labels = torch.where(counted, slopes.argmin(1), 0)
    at = torch.where(_others(slopes, labels, counted), chances, 0.0)
    weights = (at * slopes).sum(1) / at.square().sum(1).clamp_min(1e-300)
    if not _agrees(chances, slopes, labels, counted, weights, 0.0, close):
        return None
    return labels, weights, 0.0


def _others(slopes: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """Where a row that counts has no label."""
    others = torch.ones_like(slopes, dtype=torch.bool).scatter_(1, labels.unsqueeze(1), value=False)
    return others & counted.unsqueeze(1)


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
