"""A tensor by what is in it, however it is laid out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

# Sums over tensors that are equal but for rounding agree far better than this in float64.
_CLOSE = 1e-9


class Content(NamedTuple):
    """A tensor by what is in it, in whatever order: its size, sum, sum of squares and of cubes, and extremes."""

    elements: int
    squares: float
    total: float
    cubes: float
    least: float
    most: float

    @classmethod
    def of(cls, tensor: Tensor) -> Content | None:
        """The content of a real tensor; None where it is constant, not finite or empty, and tells nothing."""
        if tensor.is_complex() or not tensor.numel():
            return None
        from verifier.metrics.content import sums  # noqa: PLC0415 - compiled code, which not every comparison needs

        found = sums(tensor)
        if not math.isfinite(found.squares) or found.least == found.most:
            return None
        return cls(tensor.numel(), found.squares, found.total, found.cubes, found.least, found.most)

    def fits(self, other: Content) -> bool:
        """Whether both may hold the same numbers, but for rounding."""
        return self.distance(other) <= _CLOSE

    def distance(self, other: Content) -> float:
        """How far two are apart, relative to their size; infinite where they hold other counts of numbers."""
        if self.elements != other.elements:
            return math.inf
        size = max(abs(self.least), abs(self.most))
        if not min(
            self.squares, other.squares, self.squares * size
        ):  # so small that squares of it are nothing
            return 0.0 if self == other else math.inf
        return max(
            abs(self.squares - other.squares) / max(self.squares, other.squares),
            abs(self.total - other.total) / math.sqrt(self.squares * self.elements),
            abs(self.cubes - other.cubes) / (self.squares * size),
            abs(self.least - other.least) / size,
            abs(self.most - other.most) / size,
        )
