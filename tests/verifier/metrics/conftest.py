"""Every way of reducing a pair, and an oracle that knows nothing of any."""

from __future__ import annotations

import functools
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import mpmath
import numpy as np
import pytest
import torch

from verifier.metrics import Measurement, collect, kernel_torch, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from verifier.metrics import Moments
    from verifier.metrics.partials import Partials


class Reduce(Protocol):
    def __call__(self, baseline: Tensor, candidate: Tensor, offset: int = 0) -> Moments: ...


class Oracle(Protocol):
    def __call__(self, baseline: Tensor, candidate: Tensor, digits: int = 60) -> dict[str, float]: ...


def reduce_compiled(baseline: Tensor, candidate: Tensor, offset: int = 0) -> Moments:
    (moments,) = collect([measure(baseline, candidate, offset)])
    return moments


def reduce_with_torch(baseline: Tensor, candidate: Tensor, offset: int = 0) -> Moments:
    return kernel_torch.reduce_now(baseline.detach(), candidate.detach(), offset)


WAYS: dict[str, Reduce] = {"compiled": reduce_compiled, "torch": reduce_with_torch}
# What the fused kernel is interpreted for, at 30 milliseconds a pair: modules, and tests of others.
FUSED_TOO = ("test_accuracy", "test_definitions")
FUSED_IN_PROPERTIES = ("test_metrics_of_finite_tensors", "test_nonfinite_elements_are_counted_one_by_one")
FUSED_IN_PIECES = ("test_moments_of_uneven_pieces_merge_into_those_of_the_whole",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for `reduce` once for every way of reducing a pair."""
    if "reduce" in metafunc.fixturenames:
        fused = (
            metafunc.module.__name__.endswith(FUSED_TOO) or metafunc.function.__name__ in FUSED_IN_PROPERTIES
        )
        many = metafunc.function.__name__ in FUSED_IN_PROPERTIES + FUSED_IN_PIECES  # hundreds of pairs
        interpreted = pytest.param("fused", marks=[pytest.mark.thorough] if many else [])
        metafunc.parametrize("reduce", [*WAYS, *fused * [interpreted]], indirect=True, scope="session")


@pytest.fixture(scope="session")
def reduce(request: pytest.FixtureRequest) -> Reduce:
    """The compiled reduction, the one made of torch operations, or the fused kernel."""
    if request.param in WAYS:
        return WAYS[request.param]
    interpret: Callable[..., Partials | None] = request.getfixturevalue("interpret")

    def reduce_fused(baseline: Tensor, candidate: Tensor, offset: int = 0) -> Moments:
        queued = interpret(baseline.detach(), candidate.detach(), offset)
        if queued is None:
            return reduce_with_torch(baseline, candidate, offset)
        (moments,) = collect([Measurement(None, queued)])
        return moments

    return reduce_fused


INTERPRETER = """
import pickle, sys
from verifier.metrics import kernel_triton
while True:
    try:
        arguments = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    try:
        answer = kernel_triton.reduce(*arguments)
    except Exception as error:
        answer = repr(error)
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


@pytest.fixture(scope="session")
def interpret() -> Iterator[Callable[..., Partials | None]]:
    """`kernel_triton.reduce` on the CPU, in a process of its own: the interpreter is chosen on import.

    Three programs share a pair, so that each has several blocks of a tensor of a few thousand elements.
    """
    triton = pytest.importorskip("triton", reason="triton comes with torch on Linux alone")
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8) and np.lib.NumpyVersion(
        np.__version__
    ) >= np.lib.NumpyVersion("2.4.0"):
        pytest.skip("this Triton's interpreter runs no loops with NumPy 2.4 and later")
    process = subprocess.Popen(
        # NumPy warns of overflow and division by zero, as no device does.
        [sys.executable, "-W", "ignore::RuntimeWarning", "-c", INTERPRETER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, back = process.stdin, process.stdout

        def ask(
            baseline: Tensor, candidate: Tensor, offset: int = 0, programs: int = 3, *narrow_from: int
        ) -> Partials | None:
            pickle.dump((baseline, candidate, offset, programs, *narrow_from), to)
            to.flush()
            answer: Partials | str | None = pickle.load(back)
            assert not isinstance(answer, str), answer
            return answer

        yield ask


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
