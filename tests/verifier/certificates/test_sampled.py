"""A part of a tensor stands for it: chosen by its size alone, spread over all of it, summed as the whole would be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from verifier.certificates.sampled import SAMPLE, Part, checksum, sampled
from verifier.certificates.summary import compared, summarise


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.complex64]
)
def test_a_small_tensor_is_summarised_as_a_certificate_does(dtype: torch.dtype) -> None:
    tensor = drawn(7, 131, dtype=dtype)
    found, known = Part(tensor, SAMPLE).summary(), summarise(tensor)
    assert (found.bits, found.mask) == (known.bits, known.mask)
    assert found.moments == pytest.approx(known.moments)
    assert found.sketch == pytest.approx(known.sketch)


def test_what_is_not_finite_is_masked_as_there() -> None:
    tensor = drawn(500)
    tensor[3], tensor[7] = float("nan"), float("-inf")
    found, known = Part(tensor, SAMPLE).summary(), summarise(tensor)
    assert (found.mask, found.moments) == (known.mask, known.moments)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_the_part_does_not_depend_on_strides_and_is_no_larger_than_asked_for(
    shape: list[int], most: int
) -> None:
    tensor = drawn(*shape)
    turned = (
        tensor.permute(*reversed(range(tensor.dim()))).contiguous().permute(*reversed(range(tensor.dim())))
    )
    one, two = Part(tensor, most).summary(), Part(turned, most).summary()
    assert (one.bits, one.moments) == (two.bits, two.moments)
    if sampled(shape, most):
        assert one.moments.numbers <= max(most, 16)
    else:
        assert one.bits == summarise(tensor).bits


def test_every_channel_and_every_row_is_read() -> None:
    for shape in ((64, 1024, 768), (8, 256, 56, 56), (4096, 4096)):
        where = torch.arange(torch.Size(shape).numel()).reshape(shape)
        values = where % shape[-1]
        part = Part(values, SAMPLE).summary().moments
        assert part.low == 0
        assert part.high == shape[-1] - 1
        assert part.total / part.numbers == pytest.approx((shape[-1] - 1) / 2, rel=0.05)


def test_a_relative_error_is_that_of_the_whole_but_for_chance() -> None:
    tensor = drawn(1 << 19)
    other = tensor + 1e-4 * torch.randn(1 << 19, generator=torch.Generator().manual_seed(4))
    exact = float((other - tensor).norm() / tensor.norm())
    assert compared(Part(tensor, SAMPLE).summary(), Part(other, SAMPLE).summary()).nrmse == pytest.approx(
        exact, rel=0.2
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool, torch.complex64])
def test_the_sum_of_all_bits_shows_a_change_anywhere_and_no_strides(dtype: torch.dtype) -> None:
    tensor = (
        drawn(13, 17, dtype=torch.float64).mul(50).to(dtype) if dtype is not torch.bool else drawn(13, 17) > 0
    )
    other = tensor.clone()
    other[5, 11] = ~other[5, 11] if dtype is torch.bool else other[5, 11] + 1
    assert int(checksum(tensor)) != int(checksum(other))
    assert int(checksum(tensor)) == int(checksum(tensor.clone()))


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int32, torch.float64, torch.float16, torch.complex64, torch.bool]
)
def test_one_element_is_read_whatever_its_stride(dtype: torch.dtype) -> None:
    strided = torch.arange(1, 9).to(dtype).view(2, 4).t()[:1, :1]  # contiguous, torch says, and four apart
    plain = strided.clone(memory_format=torch.contiguous_format).reshape(1)
    assert strided.reshape(-1).stride() == (4,)
    for most in (None, 1):
        assert Part(strided, most).summary().bits == Part(plain, most).summary().bits
    assert summarise(strided.reshape(-1)).bits == summarise(plain).bits
