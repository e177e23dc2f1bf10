"""Each shape of an error is planted and told, and none is told that does not hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.recognise.pattern import describe

SETTINGS = settings(max_examples=60, derandomize=True, deadline=None)
GENERATOR = torch.Generator().manual_seed(0)
BASELINE = torch.randn(4, 16, 14, 14, generator=GENERATOR, dtype=torch.float64)
NOISE = torch.randn(4, 16, 14, 14, generator=GENERATOR, dtype=torch.float64)
GAINS = 0.5 + torch.rand(1, 16, 1, 1, generator=GENERATOR, dtype=torch.float64)


def planted(*index: Any) -> torch.Tensor:
    candidate = BASELINE.clone()
    candidate[index] += NOISE[index]
    return candidate


def edges() -> torch.Tensor:
    candidate = planted(..., -1, slice(None))
    candidate[..., -1] += 1
    return candidate


def border() -> torch.Tensor:
    candidate = BASELINE + NOISE
    candidate[..., 1:-1, 1:-1] = BASELINE[..., 1:-1, 1:-1]
    return candidate


def test_nothing_is_said_of_equal_tensors() -> None:
    assert describe(BASELINE.clone(), BASELINE) == ()
    assert describe(torch.empty(0, 3), torch.empty(0, 3)) == ()
    assert describe(BASELINE * (1 + 1e-15), BASELINE) == ("equal but for rounding",)
    same = torch.tensor([math.nan, math.inf, 1.0])
    assert describe(same.clone(), same) == ()


@pytest.mark.parametrize(
    ("candidate", "baseline", "first"),
    [
        (0.98 * BASELINE + 0.01, BASELINE, "0.98 x baseline + 0.01 leaves"),
        (2 * BASELINE, BASELINE, "2 x baseline leaves"),
        (BASELINE + 1, BASELINE, "baseline + 1 leaves"),
        (BASELINE * GAINS + GAINS, BASELINE, "a gain of 0."),
        (0 * BASELINE, BASELINE, "is 0 everywhere"),
        (BASELINE.flip(1), BASELINE, "channels in another order: in reverse order"),
        (BASELINE.roll((1, -1), (-2, -1)), BASELINE, "is the baseline moved one pixel down and left"),
        (BASELINE.relu(), BASELINE, "differs only where the baseline is negative, and is 0 there"),
        (F.leaky_relu(BASELINE, 0.1), BASELINE, "differs only where the baseline is negative, and is 1/10 x"),
        (F.elu(BASELINE), BASELINE, "differs only where the baseline is negative"),
        (BASELINE, BASELINE.relu(), "falls below 0, the baseline's least value"),
        ((4 * BASELINE).clamp(max=6), 4 * BASELINE, "differs only where the baseline is above 6.0"),
        (4 * BASELINE, (4 * BASELINE).clamp(max=6), "exceeds 6, the baseline's largest value"),
        (BASELINE.tanh(), BASELINE, "the error depends on the baseline's value alone"),
        (F.hardswish(BASELINE), F.silu(BASELINE), "the error depends on the baseline's value alone"),
        (planted(slice(None), [3, 7]), BASELINE, "only in 2 of 16 channels (3, 7)"),
        (planted(2), BASELINE, "only in 1 of 4 samples (2)"),
        (planted(1, 2, 3, 4), BASELINE, "only at (1, 2, 3, 4)"),
        (
            planted(..., slice(1, None, 2), slice(0, None, 2)),
            BASELINE,
            "only in every second row, from 1 and every",
        ),
        (planted(..., [0, -1], [0, -1]), BASELINE, "only at the corners"),
        (border(), BASELINE, "only at the border"),
        (edges(), BASELINE, "only at the bottom and right edges"),
        (BASELINE + NOISE.abs(), BASELINE, "always above the baseline"),
        (BASELINE[0], BASELINE, "has shape (16, 14, 14) where the baseline has (4, 16, 14, 14)"),
        (torch.tensor(1.0), torch.tensor(2.0), "is 1 where the baseline is 2"),
    ],
)
def test_the_most_telling_comes_first(candidate: torch.Tensor, baseline: torch.Tensor, first: str) -> None:
    statements = describe(candidate, baseline)
    assert statements[0].startswith(first)
    assert len(statements) <= 5


def test_nothing_is_made_of_noise() -> None:
    assert describe(BASELINE + 0.1 * NOISE, BASELINE) == ("every element differs",)
    assert describe(NOISE, BASELINE) == ("every element differs",)


def test_the_share_is_told() -> None:
    assert describe(planted(2), BASELINE)[-1] == "3136 of 12544 elements differ (25 %)"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_told_first(value: float) -> None:
    candidate = BASELINE.clone()
    candidate[0, 0] = value
    assert (
        describe(candidate, BASELINE)[0] == "NaN or infinite in 196 of 12544 elements, the baseline nowhere"
    )
    assert describe(BASELINE, candidate)[0].startswith("finite where the baseline is NaN or infinite")


def test_a_wrong_token_is_named() -> None:
    tokens = BASELINE[:, :, 0].clone()
    tokens[:, 0] += NOISE[:, 0, 0]
    assert describe(tokens, BASELINE[:, :, 0])[0] == "only in 1 of 16 positions of dimension 1 (0)"


def test_large_batches_are_explained_by_their_samples() -> None:
    baseline = torch.randn(6, 1 << 20, generator=GENERATOR)
    candidate = baseline.clone()
    candidate[5] *= 3
    statements = describe(candidate, baseline)
    assert statements[0].startswith("a gain of 1 to 3")
    assert "only in 1 of 6 samples (5)" in statements


UGLY = st.sampled_from([0.0, 1.0, -1.0, 0.1, 1e-310, 1e-40, 3e38, -1e300, math.nan, math.inf, -math.inf])
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.bool,
    torch.complex64,
]


@SETTINGS
@given(
    data=st.data(),
    shape=st.sampled_from([(), (0,), (1,), (9,), (3, 0), (2, 9), (2, 3, 4), (2, 2, 6, 7), (1, 2, 1, 2, 3)]),
)
def test_no_tensor_is_too_ugly(data: Any, shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    pair = []
    for _ in range(2):
        dtype = data.draw(st.sampled_from(DTYPES))
        values = data.draw(st.lists(UGLY, min_size=size, max_size=size))
        plain = dtype.is_floating_point or dtype.is_complex
        kept = values if plain else [1.0 if x > 0 else 0.0 for x in values]
        pair.append(
            torch.tensor(kept, dtype=torch.float64).reshape(shape).to(dtype).mT
            if len(shape) > 1
            else torch.tensor(kept, dtype=torch.float64).reshape(shape).to(dtype)
        )
    statements = describe(*pair)
    assert len(statements) <= 5
    assert all(statements)
    assert describe(pair[0], pair[0].clone()) == ()
