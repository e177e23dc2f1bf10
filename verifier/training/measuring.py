"""How far apart two tensors of a training are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from torch import Tensor

    from verifier.metrics import Moments

# A tensor may be 0 but for rounding, as the gradient of a bias before a batch norm is. Errors are relative to the
# tensor's own size, or to this part of the size its kind has in the whole network, whichever is larger.
_FLOOR = 2.0**-10


def error_of(moments: Moments, kind: float) -> float:
    """The relative error that moments of two tensors show; `kind` is the size of all tensors of the kind."""
    if moments.identical or moments.elements == 0:
        return 0.0
    if moments.nonfinite_mismatched or not moments.finite:
        return math.inf
    scale = max(math.sqrt(moments.raw_aa / moments.finite), _FLOOR * kind)
    return math.sqrt(moments.sum_dd / moments.finite) / scale if scale > 0 else math.inf


def size(tensors: Iterable[Tensor]) -> float:
    """Root of the mean square over all elements that are finite."""
    total, count = 0.0, 0
    for tensor in tensors:
        if tensor.is_floating_point():
            finite = tensor[torch.isfinite(tensor)].double()
            total += float(finite.square().sum())
            count += finite.numel()
    return math.sqrt(total / count) if count else 0.0


def norm(tensors: Collection[Tensor]) -> float:
    """The Euclidean norm of all elements."""
    return math.sqrt(math.fsum(float(tensor.double().square().sum()) for tensor in tensors))


def relative(baseline: float, candidate: float) -> float:
    """How far a number is from the baseline's, relative to that."""
    if baseline == candidate or (math.isnan(baseline) and math.isnan(candidate)):
        return 0.0
    if not (math.isfinite(baseline) and math.isfinite(candidate)) or baseline == 0:
        return math.inf
    return abs(candidate - baseline) / abs(baseline)


def overlaps(tensor: Tensor) -> bool:
    """Whether elements share memory, as after `expand`; their source was forced before."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
