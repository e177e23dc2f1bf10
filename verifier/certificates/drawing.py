"""Weights that need not be kept: large tensors as a function of their name, shape and seed.

What excites a network is drawn; only small tensors (gains, shifts, statistics) have to be stored. Numbers are even
ones from the raw bits of a counter-based generator, so that every platform and version draws the same.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from verifier.weights.calibration import varies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LARGE = 4096  # elements: smaller tensors are stored
_BITS = 24  # of a drawn number: float32 holds it as it is


def scale_of(tensor: Tensor, least: int = LARGE + 1) -> tuple[float, float] | None:
    """Mean and spread of what takes the place of a parameter of at least so many numbers; None if nothing does."""
    if not tensor.is_floating_point() or tensor.numel() < least:
        return None
    if varies(tensor):
        spread, mean = torch.std_mean(tensor.double(), correction=0)
        return (float(mean), float(spread)) if math.isfinite(float(spread)) else None
    if tensor.dim() > 1 and float(tensor.flatten()[0]) == 0:  # a zero head: Kaiming's scale for the fan-in
        return 0.0, 1 / math.sqrt(tensor[0].numel())
    return None


def drawn(
    name: str, shape: Sequence[int], dtype: torch.dtype, scale: tuple[float, float], seed: int
) -> Tensor:
    """Even numbers of a mean and a spread, in `dtype`; the same for the same arguments, anywhere."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogatepass")).digest()
    count = math.prod(shape)
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw((count + 1) // 2)
    halves = np.ascontiguousarray(words, "<u8").view("<u4")[:count] >> (32 - _BITS)
    mean, spread = scale
    step = 2 * math.sqrt(3) * spread / (1 << _BITS)
    made = np.empty(count)
    np.multiply(halves, step, out=made)
    made += mean - step * ((1 << _BITS) - 1) / 2
    return torch.from_numpy(made).to(dtype).reshape(tuple(shape))
