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


def only_single(x: Tensor) -> Tensor:
    if x.dtype == torch.float64:
        raise NotImplementedError("\"only_single\" not implemented for 'Double'")
    return x * 3
