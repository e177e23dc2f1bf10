"""How well the final outputs of two models agree, and what their difference does to the task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.metrics.bits import same_bits
from verifier.metrics.measure import collect, measure
from verifier.metrics.moments import Moments
from verifier.metrics.sample_errors import Spread
from verifier.metrics.scores import Scores, kl_divergence
from verifier.metrics.table import compare
from verifier.records import OutputAgreement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Agreed", "agreement", "kl_divergence"]


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
    return Agreed.of(baseline, candidate, samples).told()


@dataclass(frozen=True, slots=True)
class Agreed:
    """What remains of all that two models return, by position; that of batches merges.

    `samples` is how many went in, None where nobody said.
    """

    outputs: tuple[_Output | None, ...] = ()
    samples: int | None = None

    @classmethod
    def of(
        cls, baseline: Sequence[Tensor], candidate: Sequence[Tensor], samples: int | None, offset: int = 0
    ) -> Agreed:
        """Of what both return for so many samples, of which the first has the number `offset`."""
        return cls(
            tuple(
                _Output.of(a, b, samples, offset) if a.shape == b.shape else None
                for a, b in zip(baseline, candidate, strict=False)
            ),
            samples,
        )

    def merge(self, later: Agreed) -> Agreed:
        """This and what both return for further samples; a position counts where the shapes agree in all batches."""
        return Agreed(
            tuple(
                None if one is None or two is None else one.merge(two)
                for one, two in zip_longest(self.outputs, later.outputs)
            ),
            None if self.samples is None or later.samples is None else self.samples + later.samples,
        )

    def told(self) -> OutputAgreement | None:
        """The record; None if nothing shares a position and a shape."""
        shared = [each for each in self.outputs if each is not None]
        if not shared:
            return None
        labelled = {each.rows for each in shared if each.labels}
        scores = next(
            (
                each.scores
                for each in shared
                if each.scores is not None
                if self.samples in (None, each.rows) or each.rows not in labelled
            ),
            None,
        )
        task: dict[str, Any] = {"pearson_probabilities": None, "top1_agreement": None}
        exact = [each.exact for each in shared]
        return OutputAgreement(
            mse=compare(reduce(Moments.merge, (each.moments for each in shared))).mse,
            bit_exact=None if None in exact else all(exact),
            worst_channel=max(
                (each.channels.worst for each in shared if each.channels is not None), default=None
            ),
            sample_errors=next((each.spread.told() for each in shared if each.spread is not None), None),
            **(task if scores is None else scores.told()),
        )


@dataclass(frozen=True, slots=True)
class _Output:
    """One output of both: `rows` along its first dimension, and `labels` if it is a list of whole numbers.

    `exact` is None where dtypes differ; `scores` and `spread` are None where it is read as neither.
    """

    rows: int
    labels: bool
    exact: bool | None
    moments: Moments
    channels: _Channels | None
    scores: Scores | None
    spread: Spread | None

    @classmethod
    def of(cls, a: Tensor, b: Tensor, samples: int | None, offset: int) -> _Output:
        (moments,) = collect([measure(a, b)])
        real = a.is_floating_point() and not b.is_complex()
        return cls(
            rows=a.shape[0] if a.dim() else 0,
            labels=a.dim() == 1 and not (a.is_floating_point() or a.is_complex()),
            exact=None if a.dtype != b.dtype else bool(same_bits(a, b)),
            moments=moments,
            channels=_Channels.of(a, b) if real and a.dim() > 1 and a.shape[-1] else None,
            scores=Scores.of(a.detach().double(), b.detach().to(a.device, torch.float64), offset)
            if real and a.dim() == 2 and a.shape[1] > 1
            else None,
            spread=Spread.of(a, b, offset) if real and a.dim() and a.shape[0] == samples else None,
        )

    def merge(self, later: _Output) -> _Output:
        scores, others = self.scores, later.scores
        return _Output(
            rows=self.rows + later.rows,
            labels=self.labels and later.labels,
            exact=None if self.exact is None or later.exact is None else self.exact and later.exact,
            moments=self.moments.merge(later.moments),
            channels=self.channels and later.channels and self.channels.merge(later.channels),
            scores=scores.merge(others)
            if scores is not None and others is not None and scores.classes == others.classes
            else None,
            spread=self.spread.merge(later.spread)
            if self.spread is not None and later.spread is not None
            else None,
        )


@dataclass(frozen=True, slots=True)
class _Channels:
    """Of each slice along a last axis the sum of squares of the error and of the baseline's finite numbers.

    `before` is the largest relative error of slices that another length came after.
    """

    error: Tensor
    size: Tensor
    before: float = 0.0

    @classmethod
    def of(cls, baseline: Tensor, candidate: Tensor) -> _Channels:
        a, b = (side.detach().to(baseline.device).flatten(0, -2) for side in (baseline, candidate))
        error, size = (torch.zeros(a.shape[1], dtype=torch.float64, device=a.device) for _ in range(2))
        equal = a.dtype == b.dtype and torch.equal(a, b)
        for some, others in zip(_parts(a), _parts(b), strict=True):
            one = some.double()
            finite = one.isfinite()  # what is not finite is judged by itself
            size += one.masked_fill(~finite, 0.0).square_().sum(0)
            if not equal:
                two = others.double()
                difference = torch.where((one == two) | ~(finite & two.isfinite()), 0.0, two - one)
                error += difference.square_().sum(0)
        return cls(error.cpu(), size.cpu())

    def merge(self, later: _Channels) -> _Channels:
        if self.error.shape != later.error.shape:
            return _Channels(later.error, later.size, max(self.worst, later.before))
        return _Channels(self.error + later.error, self.size + later.size, max(self.before, later.before))

    @property
    def worst(self) -> float:
        """The largest relative L2 error of any slice, which no large slice beside it hides."""
        now = (self.error.sqrt() / self.size.sqrt()).masked_fill(self.error == 0, 0.0).amax()
        return max(self.before, float(now))


_AT_ONCE = 1 << 20  # elements that are widened at once


def _parts(rows: Tensor) -> Iterable[Tensor]:
    return torch.split(rows, max(1, _AT_ONCE // rows.shape[1]))


PARTS = (Agreed, Scores, Spread, _Channels, _Output)
"""Of which what remains of outputs is made."""
