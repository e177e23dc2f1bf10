"""Strides, dtypes and sizes change neither the numbers nor the coordinate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from verifier.metrics import compare, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    a = draw(*shape)
    return a, a + 1e-2 * draw(*shape, seed=1)


def gapped(x: Tensor) -> Tensor:
    return torch.stack((x, torch.full_like(x, 7e7)), dim=-1)[..., 0]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
    "reversed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "with gaps": gapped,
    "offset": lambda x: torch.cat((torch.full((3,), 5e5), x.reshape(-1)))[3:].view(x.shape),
    "requiring grad": lambda x: x.clone().requires_grad_(),
}


@pytest.mark.parametrize("first", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("second", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts_change_nothing(first: Any, second: Any, reduce: Any) -> None:
    a, b = pair(3, 5, 17, 31)
    expected, comparison = compare(reduce(a, b)), compare(reduce(first(a), second(b)))
    for name in ("mse", "one_minus_pearson", "nrmse", "cosine"):
        # Only the order of summation differs.
        assert getattr(comparison, name) == pytest.approx(getattr(expected, name), rel=1e-12), name
    for name in ("max_abs", "max_abs_index", "max_rel", "elements"):
        assert getattr(comparison, name) == getattr(expected, name), name


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 70, 40, 41), (1, 300_000, 1, 2)])
def test_the_coordinate_is_the_first_of_the_largest(layout: Any, shape: tuple[int, ...], reduce: Any) -> None:
    a = draw(*shape)
    b = a.round().clone()
    a = a.round()
    b += torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(2))  # many ties
    gap = (b.double() - a.double()).abs().numpy()
    moments = reduce(layout(a), layout(b), 10)
    place = list(np.unravel_index(gap.argmax(), shape))
    place[0] += 10
    assert moments.max_abs == gap.max()
    assert moments.max_abs_index == tuple(place)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_first_mismatch_is_the_first_in_logical_order(layout: Any, reduce: Any) -> None:
    a, b = pair(2, 4, 60, 50)
    b[0, 3, 1, 1] = b[1, 0, 0, 0] = b[0, 3, 1, 2] = float("nan")
    assert compare(reduce(layout(a), layout(b))).max_abs_index == (0, 3, 1, 1)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_identical_tensors_point_at_their_first_finite_element(layout: Any, reduce: Any) -> None:
    a = draw(2, 4, 60, 50)
    a[0, 0] = a[0, 1, 0, :3] = float("nan")
    assert reduce(layout(a), layout(a.clone())).max_abs_index == (0, 1, 0, 3)


@pytest.mark.parametrize("expand", [(1, 4000, 1), (50, 1, 3)])
def test_expanded_tensors_are_read_as_often_as_they_repeat(expand: tuple[int, ...], reduce: Any) -> None:
    a, b = pair(50, 4000, 3)
    a = a[tuple(slice(0, size) for size in expand)].expand(50, 4000, 3)
    expected, comparison = compare(reduce(a.contiguous(), b)), compare(reduce(a, b))
    assert comparison.mse == pytest.approx(expected.mse, rel=1e-12)
    assert comparison.max_abs_index == expected.max_abs_index


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.bool,
]


@pytest.mark.parametrize("second", DTYPES, ids=str)
@pytest.mark.parametrize("first", DTYPES, ids=str)
def test_any_two_dtypes_are_compared_in_float64(first: torch.dtype, second: torch.dtype, reduce: Any) -> None:
    a = (3 * draw(70, 41)).relu().to(first)
    b = (3 * draw(70, 41, seed=1)).relu().to(second)
    x, y = a.double().numpy(), b.double().numpy()
    comparison = compare(reduce(a, b))
    assert comparison.mse == pytest.approx(((y - x) ** 2).mean(), rel=1e-12)
    assert comparison.pearson == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1], rel=1e-9, abs=1e-14)
    assert comparison.max_abs == abs(y - x).max()
    assert comparison.max_abs_index == tuple(np.unravel_index(abs(y - x).argmax(), x.shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_bit_pattern_of_a_half_is_widened_exactly(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    for wide in (torch.float32, torch.float64):
        moments = measure(every.to(wide), every).moments
        assert moments is not None
        assert moments.identical
        assert moments.elements == 2**16
        assert moments.finite == int(every.isfinite().sum())


@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float32])
def test_complex_tensors_count_as_their_parts(dtype: torch.dtype, conjugate: bool, reduce: Any) -> None:
    a = torch.complex(draw(40, 999), draw(40, 999, seed=1))
    b = a + 0.1 * torch.complex(draw(40, 999, seed=2), draw(40, 999, seed=3))
    b = b.real.clone() if dtype == torch.float32 else b.to(dtype)
    if conjugate:
        a, b = a.conj(), b.conj()
    x = torch.view_as_real(a.resolve_conj()).double()
    y = torch.view_as_real(b.to(torch.complex128).resolve_conj())
    gap = (y - x).abs().amax(dim=-1)
    moments = reduce(a, b)
    assert moments.elements == 2 * 40 * 999
    assert compare(moments).mse == pytest.approx(float(((y - x) ** 2).mean()), rel=1e-12)
    assert moments.max_abs_index == tuple(np.unravel_index(int(gap.argmax()), gap.shape))


def test_transposed_complex_tensors_keep_their_coordinates(reduce: Any) -> None:
    a = torch.complex(draw(40, 99), draw(40, 99, seed=1))
    b = a.clone()
    b[7, 13] += 2j
    assert reduce(a.t().contiguous().t(), b.t().contiguous().t()).max_abs_index == (7, 13)


def test_unequal_integers_beyond_float64_stay_unequal(reduce: Any) -> None:
    a = torch.full((9,), 2**60 + 3)
    b = a.clone()
    assert reduce(a, b).identical
    b[4] += 1
    moments = reduce(a, b)
    assert not moments.identical
    assert moments.max_abs_index == (4,)
    assert moments.finite == 9


def test_shapes_must_be_equal() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        measure(torch.zeros(2, 3), torch.zeros(3, 2))


def test_sparse_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="strided"):
        measure(torch.zeros(2, 3).to_sparse(), torch.zeros(2, 3))
