"""Threads share the pieces of two tensors and change no bit of what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from verifier.metrics import pieces_cpu, reduce_cpu
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
    monkeypatch.setattr(reduce_cpu, "ALONE", 0)  # several threads, however small the tensor
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert moments(a, b) == together
    assert together.identical == (kind == "equal")
    assert together.nonfinite_mismatched == (2 if kind == "holed" else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", ["dense", "with gaps"])
def test_figures_have_the_same_bits_with_one_two_and_three_threads(dtype: torch.dtype, layout: str) -> None:
    generator = torch.Generator().manual_seed(5)
    shape = (2, reduce_cpu.ALONE * pieces_cpu.PIECE + 12_345)  # more than one thread takes alone
    a = torch.randn(shape, generator=generator).to(dtype)
    b = (a.double() * (1 + 1e-3 * torch.randn(shape, generator=generator))).to(dtype)
    a, b = (side[:1] if layout == "dense" else side[:, ::2] for side in (a, b))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(moments(a, b))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_the_largest_ratio_is_that_of_all_quotients_whoever_divides_first() -> None:
    generator = torch.Generator().manual_seed(6)
    a = 1 + torch.rand(SIZE, generator=generator, dtype=torch.float64)
    b = a * (1 + 2.0**-3 * (1 + 2.0**-51 * torch.rand(SIZE, generator=generator, dtype=torch.float64)))
    assert moments(a, b).max_rel == float(((b - a).abs() / a).amax())


def test_blocks_that_are_equal_about_the_mean_of_others_count_in_full() -> None:
    a = torch.cat([torch.full((SIZE,), 1e6), torch.full((SIZE,), -1e6)]).double()
    found = moments(a, a.clone())
    assert found.identical
    assert found.finite == 2 * SIZE
    assert found.raw_aa == pytest.approx(2e12 * SIZE, rel=1e-12)
    assert found.raw_ab == found.raw_aa == found.raw_bb
