"""Torch's own team of threads: the same answers as one thread, and no need of it."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import pytest
import torch

from verifier.metrics import reduce_cpu, team
from verifier.metrics.measure import measure

if TYPE_CHECKING:
    from verifier.metrics.moments import Moments

SIZE = 300_001  # several pieces and a rest


def moments(a: torch.Tensor, b: torch.Tensor) -> Moments:
    found = measure(a, b).moments
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["close", "equal", "equal at first", "holed"])
def test_figures_do_not_depend_on_who_computes_them(
    dtype: torch.dtype, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(SIZE, generator=generator, dtype=dtype) + 5
    b = a.clone()
    if kind != "equal":
        changed = slice(200_000, None) if kind == "equal at first" else slice(None)
        b[changed] *= 1 + 1e-5 * torch.randn(b[changed].shape, generator=generator, dtype=dtype)
    if kind == "holed":
        a[7], b[100_000], a[250_000], b[250_000] = float("nan"), float("inf"), float("inf"), float("inf")
    together = moments(a, b)
    monkeypatch.setattr(reduce_cpu, "reduce_pieces", lambda *_: None)
    assert moments(a, b) == together
    assert together.identical == (kind == "equal")
    assert together.nonfinite_mismatched == (2 if kind == "holed" else 0)


def test_without_gnu_openmp_there_is_no_team(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("not found")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    team.team.cache_clear()
    try:
        assert team.team() is None
        a = torch.arange(SIZE, dtype=torch.float64)
        assert moments(a, a + 1).max_abs == 1
    finally:
        team.team.cache_clear()


@pytest.mark.skipif(team.team() is None, reason="torch brings no GNU OpenMP runtime here")
def test_blocks_that_are_equal_about_the_mean_of_others_count_in_full() -> None:
    a = torch.cat([torch.full((SIZE,), 1e6), torch.full((SIZE,), -1e6)]).double()
    found = moments(a, a.clone())
    assert found.identical
    assert found.finite == 2 * SIZE
    assert found.raw_aa == pytest.approx(2e12 * SIZE, rel=1e-12)
    assert found.raw_ab == found.raw_aa == found.raw_bb
