"""Photographs prepared in every wrong way, recognised, and turned back where that can be done."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.recognise.prepared_inputs import Treatment, recognise

data = pytest.importorskip("skimage.data", reason="the photographs come with scikit-image")

SETTINGS = settings(max_examples=60, derandomize=True, deadline=None)
CODES = frozenset(
    f"input-{kind}"
    for kind in ("channel-order", "scale", "normalisation", "layout", "flip", "resize", "dtype", "different")
)


def triple(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)


MEAN, STD = triple(0.485, 0.456, 0.406), triple(0.229, 0.224, 0.225)
CIFAR_MEAN, CIFAR_STD = triple(0.4914, 0.4822, 0.4465), triple(0.2470, 0.2435, 0.2616)


def photograph(name: str, size: int) -> torch.Tensor:
    picture = torch.from_numpy(np.array(getattr(data, name)())).permute(2, 0, 1)[None, :, :300, :300]
    return F.interpolate(picture.double() / 255, size=(size, size), mode="bilinear", antialias=True)


@pytest.fixture(scope="module")
def large() -> torch.Tensor:
    """Three photographs of 80 x 80 pixels between 0 and 1."""
    return torch.cat([photograph(name, 80) for name in ("astronaut", "chelsea", "coffee")])


@pytest.fixture(scope="module")
def plain(large: torch.Tensor) -> torch.Tensor:
    """Their middle, of 64 x 64 pixels."""
    return large[..., 8:72, 8:72].contiguous()


@pytest.fixture(scope="module")
def normalised(plain: torch.Tensor) -> torch.Tensor:
    """The same, prepared as for ImageNet, in float32."""
    return ((plain - MEAN) / STD).float()


def found(candidate: torch.Tensor, baseline: torch.Tensor) -> Treatment:
    finding = recognise(candidate, baseline)
    assert finding is not None
    return finding


def said(finding: Treatment) -> str:
    return " ".join((finding.summary, *finding.evidence))


def assert_undone(finding: Treatment, candidate: torch.Tensor, baseline: torch.Tensor) -> None:
    assert finding.undo is not None
    back = finding.undo(candidate)
    assert back.dtype == baseline.dtype
    torch.testing.assert_close(back, baseline, rtol=1e-6, atol=1e-6 * float(baseline.abs().max()))


def test_the_same_input_is_nothing_to_find(normalised: torch.Tensor) -> None:
    assert recognise(normalised.clone(), normalised) is None
    assert recognise(normalised.double(), normalised) is None


@pytest.mark.parametrize("order", [p for p in itertools.permutations(range(3)) if p != (0, 1, 2)])
def test_any_channel_order_is_found(order: tuple[int, ...], normalised: torch.Tensor) -> None:
    candidate = normalised[:, list(order)]
    finding = found(candidate, normalised)
    assert finding.code == "input-channel-order"
    assert ("BGR" in finding.summary) == (order == (2, 1, 0))
    assert_undone(finding, candidate, normalised)


def test_channels_exchanged_before_normalising_are_told_from_after(
    plain: torch.Tensor, normalised: torch.Tensor
) -> None:
    candidate = ((plain.flip(1) - MEAN) / STD).float()
    finding = found(candidate, normalised)
    assert finding.code == "input-channel-order"
    assert "was normalised with ImageNet's mean and std in the other order" in said(finding)
    assert_undone(finding, candidate, normalised)


@pytest.mark.parametrize(
    ("gain", "offset", "summary"),
    [
        (255, 0, "is 255 x the baseline's"),
        (1 / 255, 0, "is 1/255 x the baseline's"),
        (2, -1, "is 2 x the baseline's - 1"),
        (-1, 1, "is -1 x the baseline's + 1"),
    ],
)
def test_one_factor_and_offset_is_a_scale(
    gain: float, offset: float, summary: str, plain: torch.Tensor
) -> None:
    candidate = (gain * plain + offset).float()
    finding = found(candidate, plain.float())
    assert (finding.code, finding.summary) == ("input-scale", summary)
    assert_undone(finding, candidate, plain.float())


def test_missing_repeated_and_other_normalisation_is_named(
    plain: torch.Tensor, normalised: torch.Tensor
) -> None:
    cases = [
        (plain, "is on a scale of 0 to 1, the baseline's is normalised with ImageNet's"),
        (255 * plain, "is on a scale of 0 to 255, the baseline's is normalised with ImageNet's"),
        ((normalised.double() - MEAN) / STD, "is normalised with ImageNet's mean and std once more"),
        ((plain - CIFAR_MEAN) / CIFAR_STD, "is normalised with CIFAR-10's mean and std, the baseline's"),
        (2 * plain - 1, "is normalised with 0.5 and 0.5, the baseline's"),
        (plain - MEAN, "is less ImageNet's mean only"),
        (plain / STD, "is divided by ImageNet's std only"),
        (
            (255 * plain - MEAN) / STD,
            "is bytes normalised with ImageNet's mean and std, which are for 0 to 1",
        ),
    ]
    for prepared, summary in cases:
        candidate = prepared.float()
        finding = found(candidate, normalised)
        assert finding.code == "input-normalisation", summary
        assert finding.summary.startswith(summary)
        assert_undone(finding, candidate, normalised)


def test_unknown_constants_are_given_as_numbers(normalised: torch.Tensor) -> None:
    finding = found((normalised * triple(1, 2, 3)).float(), normalised)
    assert finding.code == "input-normalisation"
    assert "gains 1, 2, 3" in finding.evidence


def test_channel_order_comes_before_normalisation(plain: torch.Tensor, normalised: torch.Tensor) -> None:
    candidate = (255 * plain.flip(1)).float()
    finding = found(candidate, normalised)
    assert finding.code == "input-channel-order"
    assert "also is on a scale of 0 to 255" in said(finding)
    assert_undone(finding, candidate, normalised)


def test_bytes_are_recognised_with_what_they_lost(plain: torch.Tensor, normalised: torch.Tensor) -> None:
    finding = found((255 * plain).round().to(torch.uint8), normalised)
    assert finding.code == "input-normalisation"
    assert "is on a scale of 0 to 255" in finding.summary
    assert "remains unexplained" in finding.evidence[-1]
    assert finding.undo is not None


def test_layouts_are_recognised(normalised: torch.Tensor) -> None:
    for candidate in (normalised.permute(0, 2, 3, 1), normalised.transpose(2, 3)):
        finding = found(candidate, normalised)
        assert finding.code == "input-layout"
        assert_undone(finding, candidate, normalised)
    finding = found(normalised, normalised.permute(0, 2, 3, 1))
    assert_undone(finding, normalised, normalised.permute(0, 2, 3, 1))


@pytest.mark.parametrize("axes", [(3,), (2,), (2, 3)])
def test_mirrored_pictures_are_recognised(axes: tuple[int, ...], normalised: torch.Tensor) -> None:
    for candidate in (normalised.flip(axes), normalised.flip((1, *axes))):
        finding = found(candidate, normalised)
        assert finding.code == "input-flip"
        assert_undone(finding, candidate, normalised)


def test_another_size_is_the_same_picture(normalised: torch.Tensor) -> None:
    finding = found(F.interpolate(normalised, size=(48, 56), mode="bilinear", antialias=True), normalised)
    assert (finding.code, finding.undo) == ("input-resize", None)
    assert "at 48 x 56 instead of 64 x 64" in finding.summary


def test_other_sampling_is_the_same_picture(normalised: torch.Tensor) -> None:
    finding = found(F.avg_pool2d(normalised, 3, 1, 1), normalised)
    assert (finding.code, finding.undo) == ("input-resize", None)
    assert "smoother" in finding.evidence[-1]


def test_other_crops_are_recognised_and_cut_where_they_hold_the_baseline(large: torch.Tensor) -> None:
    baseline = large[..., 8:72, 8:72]
    finding = found(large[..., 9:73, 6:70], baseline)
    assert (finding.code, finding.undo) == ("input-resize", None)
    assert "moved by (-1, 2) pixels" in said(finding)
    assert_undone(found(large, baseline), large, baseline)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_to_a_dtype_is_recognised(dtype: torch.dtype, normalised: torch.Tensor) -> None:
    for candidate in (normalised.to(dtype), normalised.to(dtype).float()):
        finding = found(candidate, normalised)
        assert (finding.code, finding.undo) == ("input-dtype", None)
        assert str(dtype).removeprefix("torch.") in finding.summary


def test_rounding_to_bytes_is_recognised_under_normalisation(
    plain: torch.Tensor, normalised: torch.Tensor
) -> None:
    coarse = (((255 * plain).round() / 255 - MEAN) / STD).float()
    assert found(coarse, normalised).summary == "is rounded to steps of 1/255"
    assert found(normalised, coarse).summary == "is not rounded to steps of 1/255 as the baseline's is"


def test_samples_in_another_order_are_put_back(normalised: torch.Tensor) -> None:
    candidate = normalised[[2, 0, 1]]
    finding = found(candidate, normalised)
    assert finding.code == "input-different"
    assert_undone(finding, candidate, normalised)


def test_other_inputs_are_just_different(normalised: torch.Tensor) -> None:
    noise = torch.randn(normalised.shape, generator=torch.Generator().manual_seed(0))
    for candidate in (
        noise,
        torch.zeros_like(normalised),
        normalised[:2],
        normalised * math.nan,
        normalised[0],
    ):
        finding = found(candidate, normalised)
        assert (finding.code, finding.undo) == ("input-different", None)
    assert found(normalised, torch.zeros_like(normalised)).code == "input-different"


def test_other_tensors_have_a_scale_too() -> None:
    tokens = torch.arange(20.0).view(2, 10)
    finding = found(2 * tokens, tokens)
    assert (finding.code, finding.summary) == ("input-scale", "is 2 x the baseline's")
    assert_undone(finding, 2 * tokens, tokens)


UGLY = st.sampled_from([0.0, 1.0, -1.0, 0.1, 1e-310, 3e38, -1e300, math.nan, math.inf])
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.uint8,
    torch.int64,
    torch.complex64,
]
SHAPES = [(), (0,), (7,), (2, 3), (0, 3, 2, 2), (1, 3, 1, 1), (2, 3, 2, 2), (1, 1, 4, 3), (2, 2, 3, 3)]


@SETTINGS
@given(draws=st.data(), shape=st.sampled_from(SHAPES), other=st.sampled_from(SHAPES), alike=st.booleans())
def test_no_tensor_is_too_ugly(
    draws: Any, shape: tuple[int, ...], other: tuple[int, ...], alike: bool
) -> None:
    pair = []
    for size in (shape, shape if alike else other):
        values = draws.draw(st.lists(UGLY, min_size=math.prod(size), max_size=math.prod(size)))
        dtype = draws.draw(st.sampled_from(DTYPES))
        plain = dtype.is_floating_point or dtype.is_complex
        kept = values if plain else [1.0 if x > 0 else 0.0 for x in values]
        pair.append(torch.tensor(kept, dtype=torch.float64).reshape(size).to(dtype))
    finding = recognise(*pair)
    assert finding is None or finding.code in CODES
    if finding is not None and finding.undo is not None:
        assert finding.undo(pair[0]).shape == pair[1].shape
