"""How far each sample of an output is off: a sketch of the distribution and the worst one; those of batches merge."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from ddsketch import DDSketch

from verifier.records import SampleErrors

if TYPE_CHECKING:
    from torch import Tensor

ACCURACY = 0.01
"""Relative, of a quantile. Counts of logarithmic bins add up, so merging in any order gives the same."""

_AT_ONCE = 1 << 20  # elements

_ROUNDING = 1e-12  # of a share times a number of samples that is whole

QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Spread:
    """The relative L2 error of each of some samples.

    `undefined` counts samples without a finite one, which are beyond all others. `worst` is the largest error with
    the lowest number that has it.
    """

    samples: int = 0
    undefined: int = 0
    worst: tuple[float, int] | None = None
    sketch: DDSketch = field(default_factory=lambda: DDSketch(ACCURACY), compare=False)

    @classmethod
    def of(cls, baseline: Tensor, candidate: Tensor, offset: int = 0) -> Spread:
        """Of floating-point tensors of one shape that hold samples along the first dimension."""
        a = baseline.detach().flatten(1) if baseline.dim() > 1 else baseline.detach()[:, None]
        b = candidate.detach().to(a.device).reshape(a.shape)
        errors = [a.new_zeros(0, dtype=torch.float64)]
        at_once = max(1, _AT_ONCE // max(1, a.shape[1]))
        for one, two in zip(
            torch.split(a, at_once), torch.split(b, at_once), strict=True
        ):  # widened a few at a time
            difference = torch.where(one == two, 0.0, two.double() - one.double())
            size, distance = (torch.linalg.vector_norm(each, dim=1) for each in (one.double(), difference))
            errors.append(torch.where(distance == 0, 0.0, distance / size))
        found: list[float] = torch.cat(errors).tolist()
        sketch, undefined = DDSketch(ACCURACY), 0
        for error in found:
            if math.isfinite(error):
                sketch.add(error)
            else:
                undefined += 1
        ranks = [(error if math.isfinite(error) else math.inf, -number) for number, error in enumerate(found)]
        worst = max(ranks, default=None)
        return cls(len(found), undefined, None if worst is None else (worst[0], offset - worst[1]), sketch)

    def merge(self, other: Spread) -> Spread:
        """The errors of both sets of samples."""
        sketch = DDSketch(ACCURACY)
        sketch.merge(self.sketch)
        sketch.merge(other.sketch)
        worst = [each for each in (self.worst, other.worst) if each is not None]
        return Spread(
            self.samples + other.samples,
            self.undefined + other.undefined,
            max(worst, key=lambda each: (each[0], -each[1]), default=None),
            sketch,
        )

    def told(self) -> SampleErrors | None:
        """The record; None of no samples."""
        if self.worst is None:
            return None
        return SampleErrors(
            samples=self.samples,
            undefined=self.undefined,
            quantiles=tuple((share, self._quantile(share)) for share in QUANTILES),
            largest=self.worst[0],
            worst=self.worst[1],
        )

    def _quantile(self, share: float) -> float:
        """What a share of the samples does not exceed: the error of the first with which there are so many."""
        rank = math.ceil(share * self.samples * (1 - _ROUNDING)) - 1
        last = self.samples - self.undefined - 1
        if rank > last:
            return math.inf
        # A little more than the rank, which the sketch rounds down.
        return float(self.sketch.get_quantile_value(min(1.0, (rank + 0.5) / max(1, last))) or 0.0)
