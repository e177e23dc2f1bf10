"""Casts to float32 inside a program give float64, and a step without a float64 kernel runs alone in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from verifier.graph.widening import Widening, default_dtype

THIRD = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)


@pytest.mark.parametrize(
    "cast",
    [
        lambda x: x.float(),
        lambda x: x.to(torch.float32),
        lambda x: x.to("cpu", torch.float32),
        lambda x: x.type("torch.FloatTensor"),
        lambda x: x.to(dtype=torch.float32),
        lambda x: x.type_as(torch.zeros(1, dtype=torch.float32)),
    ],
)
def test_a_cast_to_float32_keeps_every_digit(cast: Any) -> None:
    with Widening():
        assert cast(THIRD).equal(THIRD)


@pytest.mark.parametrize(
    "made",
    [
        lambda: torch.softmax(THIRD, 0, dtype=torch.float32),
        lambda: THIRD.sum(dtype=torch.float32),
        lambda: torch.arange(3, dtype=torch.float32),
        lambda: torch.zeros(2, dtype=torch.float32),
        lambda: torch.arange(3) / 3,
    ],
)
def test_what_is_made_in_float32_is_made_in_float64(made: Any) -> None:
    with Widening(), default_dtype(torch.float64):
        assert made().dtype == torch.float64


def test_narrower_casts_are_meant() -> None:
    with Widening():
        assert THIRD.half().dtype == torch.float16
        assert THIRD.to(torch.bfloat16).dtype == torch.bfloat16


def test_bits_read_as_float32_stay_what_they_are() -> None:
    one = torch.tensor([0x3F800000], dtype=torch.int32)
    with Widening():
        assert one.view(torch.float32).tolist() == [1.0]


@torch.library.custom_op("tests::only_single", mutates_args=())
def only_single(x: Tensor) -> Tensor:
    """Has no kernel for float64."""
    if x.dtype == torch.float64:
        raise RuntimeError("expected scalar type Float but found Double")
    return x * 3


@torch.library.custom_op("tests::checks_in_double", mutates_args=())
def checks_in_double(x: Tensor) -> Tensor:
    """Looks at sizes in float64 alone."""
    if x.dtype == torch.float64:
        raise RuntimeError("sizes 3 and 2 do not fit")
    return x * 3


def test_a_step_without_a_float64_kernel_runs_in_float32() -> None:
    with Widening():
        found = only_single(THIRD)
    assert found.dtype == torch.float64
    assert found.equal((THIRD.float() * 3).double())


def test_what_float64_refuses_for_another_reason_is_not_left_to_float32() -> None:
    with Widening(), pytest.raises(RuntimeError, match="do not fit"):
        checks_in_double(THIRD)
