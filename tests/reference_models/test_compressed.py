"""Pruned and eight-bit layers against oracles in numpy: sorting, and arithmetic in whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import reference_models
from reference_models.compressed import (
    PRUNED,
    PrunedConv2d,
    QuantisedConv2d,
    QuantisedLinear,
    prune,
    quantise_activation,
    quantise_weight,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_smallest_weights_fall_and_the_others_stay(share: float) -> None:
    weight = drawn(8, 3, 3, 3)
    order = np.argsort(np.abs(weight.numpy()).ravel())
    fallen = order[: int(share * weight.numel())]
    expected = weight.numpy().copy().ravel()
    expected[fallen] = 0

    assert np.array_equal(prune(weight, share).numpy().ravel(), expected)


def test_weights_get_a_scale_for_each_channel_and_whole_numbers_of_eight_bits() -> None:
    weight = drawn(4, 3, 3, 3) * torch.tensor([1.0, 10.0, 0.1, 0.0])[:, None, None, None]

    quantised = quantise_weight(weight).numpy()

    for own, theirs in zip(weight.numpy(), quantised, strict=True):
        scale = np.abs(own).max() / 127
        if scale == 0:
            assert not theirs.any()
            continue
        whole = theirs / scale
        assert np.allclose(whole, np.rint(whole), atol=1e-9)
        assert np.abs(whole).max() <= 127 + 1e-9
        assert np.abs(theirs - own).max() <= scale / 2 + 1e-12


@pytest.mark.parametrize("shift", [-10.0, 0.0, 0.3, 10.0])
def test_activations_get_one_scale_that_keeps_zero_and_has_at_most_256_values(shift: float) -> None:
    x = drawn(2, 3, 16, 16) + shift
    x[0, 0, 0, 0] = 0

    quantised = quantise_activation(x).numpy()

    low, high = min(x.min().item(), 0), max(x.max().item(), 0)
    assert quantised[0, 0, 0, 0] == 0
    assert len(np.unique(quantised)) <= 256
    assert np.abs(quantised - x.numpy()).max() <= (high - low) / 255 * 1.01


def test_an_eight_bit_convolution_is_what_whole_numbers_give() -> None:
    layer = QuantisedConv2d(3, 4, 3, bias=False).double()
    x = drawn(1, 3, 6, 6).clamp(min=0)
    x[0, 0, 0, 0] = 0
    weight = layer.weight.detach().numpy()
    scales = np.abs(weight).reshape(4, -1).max(axis=1) / 127
    integers = np.rint(weight / scales[:, None, None, None]).astype(np.int64)
    scale = x.numpy().max() / 255
    inputs = np.rint(x.numpy() / scale).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(inputs[0], (3, 3), axis=(1, 2))

    sums = np.einsum("ochw,cyxhw->oyx", integers.reshape(4, 3, 3, 3), windows)

    expected = sums * scales[:, None, None] * scale
    assert np.allclose(layer(x).detach().numpy()[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("resnet18_pruned", {PrunedConv2d: 20, nn.Linear: 1}),
        ("resnet18_int8", {QuantisedConv2d: 20, QuantisedLinear: 1}),
    ],
)
def test_all_convolutions_are_compressed(name: str, kinds: dict[type[nn.Module], int]) -> None:
    with torch.device("meta"):
        model = reference_models.get(name)()

    layers = [type(module) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert {kind: layers.count(kind) for kind in set(layers)} == kinds
    assert model.state_dict().keys() == reference_models.get("resnet18")().state_dict().keys()


def test_a_tenth_of_the_weights_is_pruned() -> None:
    assert PRUNED == 0.1
    assert (prune(drawn(10, 10)) == 0).sum() == 10
