"""Telling which tensors of two models are the same by what is in them, without holding both at once."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

    from verifier.bench.bench import Bench

# Sums in float64 over tensors that are equal but for rounding agree far better than this.
CLOSE = 1e-9


class Digest(NamedTuple):
    """A tensor in a few numbers: its shape, sum of squares, and its products with two fixed waves."""

    shape: tuple[int, ...]
    squares: float
    one: float
    two: float

    def fits(self, other: Digest, close: float = CLOSE) -> bool:
        """Whether both may be the same tensor, but for a relative error of `close`."""
        scale = close * math.sqrt(max(self.squares, other.squares) * max(1, math.prod(self.shape)))
        return (
            self.shape == other.shape
            and math.isclose(self.squares, other.squares, rel_tol=close)
            and abs(self.one - other.one) <= scale
            and abs(self.two - other.two) <= scale
        )

    @classmethod
    def of(cls, tensor: Tensor) -> Digest:
        """The digest of a tensor of any real dtype."""
        flat = tensor.detach().reshape(-1).double()
        place = torch.arange(flat.numel(), dtype=torch.float64, device=flat.device)
        return cls(
            tuple(tensor.shape),
            float(flat.square().sum()),
            float((flat * torch.sin(place + 1)).sum()),
            float((flat * torch.cos(place * 0.7)).sum()),
        )


def digests(bench: Bench, side: str, sites: Collection[int]) -> dict[int, Digest]:
    """The digests of some sites' tensors in a run of one model alone, by site."""
    lane = bench.lane(side, stops=sites)
    found = {}
    try:
        while (site := lane.advance()) is not None:
            if lane.tensor is not None and not lane.tensor.is_complex():
                found[site] = Digest.of(lane.tensor)
    finally:
        lane.close()
    return found


def twins(
    baseline: Mapping[int, Digest], candidate: Mapping[int, Digest], close: float = CLOSE
) -> dict[int, int]:
    """For each of the baseline's tensors the candidate's, where either is the only one that the other fits."""
    fits = {
        b: [c for c, other in candidate.items() if digest.fits(other, close)]
        for b, digest in baseline.items()
    }
    wanted = Counter(c for fitting in fits.values() for c in fitting)
    return {b: found[0] for b, found in fits.items() if len(found) == 1 and wanted[found[0]] == 1}
