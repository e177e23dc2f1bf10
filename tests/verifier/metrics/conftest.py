"""Both ways of reducing a pair, and an oracle that knows nothing of either."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Protocol

import mpmath
import numpy as np
import pytest
import torch

from verifier.metrics import collect, kernel_torch, measure

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.metrics import Moments


class Reduce(Protocol):
    def __call__(self, baseline: Tensor, candidate: Tensor, offset: int = 0) -> Moments: ...


class Oracle(Protocol):
    def __call__(self, baseline: Tensor, candidate: Tensor, digits: int = 60) -> dict[str, float]: ...


def reduce_compiled(baseline: Tensor, candidate: Tensor, offset: int = 0) -> Moments:
    (moments,) = collect([measure(baseline, candidate, offset)])
    return moments


def reduce_with_torch(baseline: Tensor, candidate: Tensor, offset: int = 0) -> Moments:
    return kernel_torch.reduce_now(baseline.detach(), candidate.detach(), offset)


@pytest.fixture(params=[reduce_compiled, reduce_with_torch], ids=["compiled", "torch"], scope="session")
def reduce(request: pytest.FixtureRequest) -> Reduce:
    """The compiled reduction and the one made of torch operations."""
    chosen: Reduce = request.param
    return chosen


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """Every metric of a pair of finite tensors, from its textbook definition with many digits."""
    return textbook


def textbook(baseline: Tensor, candidate: Tensor, digits: int = 60) -> dict[str, float]:
    a64 = tuple(baseline.detach().to(torch.float64).reshape(-1).tolist())
    b64 = tuple(candidate.detach().to(torch.float64).reshape(-1).tolist())
    return dict(_textbook(a64, b64, digits))


@functools.lru_cache(maxsize=64)
def _textbook(a64: tuple[float, ...], b64: tuple[float, ...], digits: int) -> dict[str, float]:
    assert np.isfinite(a64).all()
    assert np.isfinite(b64).all()
    with mpmath.workdps(digits):
        a, b = [mpmath.mpf(x) for x in a64], [mpmath.mpf(x) for x in b64]
        n = len(a)
        d = [y - x for x, y in zip(a, b, strict=True)]
        sum_aa, sum_bb = mpmath.fdot(a, a), mpmath.fdot(b, b)
        mean_a, mean_b = mpmath.fsum(a) / n, mpmath.fsum(b) / n
        u, v = [x - mean_a for x in a], [y - mean_b for y in b]
        spread = mpmath.sqrt(mpmath.fdot(u, u) * mpmath.fdot(v, v))
        size = mpmath.sqrt(sum_aa * sum_bb)
        error = mpmath.fdot(d, d)
        nrmse = mpmath.sqrt(error / sum_aa) if sum_aa else mpmath.mpf("inf" if error else 0)
        r = mpmath.fdot(u, v) / spread if spread else mpmath.nan
        return {
            "mse": float(error / n),
            "pearson": float(r),
            "one_minus_pearson": float(1 - r),
            "cosine": float(mpmath.fdot(a, b) / size) if size else math.nan,
            "nrmse": float(nrmse),
            "sqnr_db": float(-20 * mpmath.log10(nrmse)) if nrmse else math.inf,
            "max_abs": float(max(abs(x) for x in d)),
            "max_rel": float(max((abs(x / y) for x, y in zip(d, a, strict=True) if y), default=0.0)),
        }
