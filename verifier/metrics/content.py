"""What a tensor holds in whatever order, in one pass over it: its sums of powers and its extremes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from verifier.graph.tensors import once
from verifier.metrics.jit import compiled

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Sums(NamedTuple):
    """Sums of a tensor's numbers, their squares and their cubes, and the least and the greatest of them."""

    total: float
    squares: float
    cubes: float
    least: float
    most: float


def sums(tensor: Tensor) -> Sums:
    """The sums of a real tensor, in float64; what is not finite makes its squares' sum so."""
    flat = once(tensor.detach()).cpu().double().reshape(-1)
    found = Sums(*_sums(flat.numpy()))
    times = tensor.numel() // max(1, flat.numel())
    return found._replace(total=times * found.total, squares=times * found.squares, cubes=times * found.cubes)


@compiled
def _sums(values: np.ndarray) -> tuple[float, float, float, float, float]:
    total = squares = cubes = 0.0
    least, most = math.inf, -math.inf
    for value in values:
        square = value * value
        total += value
        squares += square
        cubes += square * value
        least = min(least, value)
        most = max(most, value)
    return total, squares, cubes, least, most
