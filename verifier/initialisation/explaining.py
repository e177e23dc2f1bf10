"""What a tensor's values look like, where they are not what they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from verifier.initialisation.distributions import USUAL, Constant
from verifier.initialisation.hypotheses import combined, one_sample, thinned, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.initialisation.distributions import Array

MANY = 2**14  # values, of which 1 % in the spread still shows
PLAUSIBLE = 0.01  # the p-value above which values are said to look like draws from a distribution
CLOSE = 1e-5  # relative: a product in float32 is rounded to that


def explanation(values: Array, shape: Sequence[int], draw: tuple[Tensor, Tensor]) -> str:
    """A clause or two: the usual initialiser the values could be from, and how they relate to the baseline's.

    Args:
        values: All that was drawn, float64, one dimension.
        shape: What the fans are counted of.
        draw: The candidate's and the baseline's tensor from one seed.
    """
    said = []
    values = thinned(values, MANY)
    likely = [
        (combined(one_sample(values, distribution, unit_of(draw[0].dtype))), known.name)
        for known in USUAL
        if not isinstance(distribution := known.of(shape), Constant)
    ]
    p_value, name = max(likely, key=lambda each: each[0])
    if p_value >= PLAUSIBLE:
        said.append(f"it looks like {name}")
    factor = _factor(*draw)
    if factor is not None:
        said.append(f"it is the baseline's draw times {factor:.5g}")
    return "; ".join(said)


def _factor(tensor: Tensor, twin: Tensor) -> float | None:
    """The number the candidate's tensor is the baseline's times, if there is one."""
    c, b = (each.detach().cpu().to(torch.float64).reshape(-1) for each in (tensor, twin))
    square = float(b @ b)
    if not square:
        return None
    factor = float(c @ b) / square
    left = float((c - factor * b).abs().max())
    return factor if factor and left <= CLOSE * float(c.abs().max()) else None
