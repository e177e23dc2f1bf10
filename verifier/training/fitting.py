"""One tensor as another times a number, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CLOSE = 1e-6  # relative: of fits to differences that are themselves small next to what they were taken from


def fit(basis: Tensor, tensor: Tensor, close: float = CLOSE) -> float | None:
    """The factor that makes `tensor` of `basis`; None where none does, or `tensor` is 0."""
    size = float(basis.square().sum())
    if not size:
        return None
    factor = float((basis * tensor).sum()) / size
    return factor if agree(tensor, factor * basis, close) and float(tensor.abs().max()) > 0 else None


def factor_between(baseline: Tensor, candidate: Tensor) -> float | None:
    """The factor that makes the candidate's of the baseline's and so explains all their difference; else None.

    What is left may be a millionth of the difference, or what rounding leaves of two sums.
    """
    size = float(baseline.square().sum())
    if not size:
        return None
    factor = float((baseline * candidate).sum()) / size
    left = float((candidate - factor * baseline).norm())
    apart = float((candidate - baseline).norm())
    return factor if left <= CLOSE * apart and left <= CLOSE * abs(factor) * size**0.5 else None


def agree(one: Tensor, other: Tensor, close: float = CLOSE) -> bool:
    """Whether two tensors are the same but for what fits may be off by."""
    return float((one - other).norm()) <= close * float(one.norm())


def near(one: float, other: float, close: float = CLOSE) -> bool:
    """The same of numbers."""
    return abs(one - other) <= close * max(abs(one), abs(other))
