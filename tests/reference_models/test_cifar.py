"""The paper's networks for CIFAR-10: size, shape, and the function of torchvision's blocks, composed."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import reference_models
from reference_models.blocks import ZeroChannels
from reference_models.cifar import CifarResNet, cifar_resnet
from tests.sweeps import swept
from verifier.models import composed_baselines

DEPTHS = (20, 32, 44, 56, 110, 1202)
PUBLISHED = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}  # millions, table 6 of the paper
NAMES = [f"cifar_resnet{depth}{option}" for depth in DEPTHS for option in ("", "_b")]
QUICK = {20, 32, 44, 56, 110}  # building 1,202 layers takes longer than all of these


@functools.cache
def on_meta(name: str) -> nn.Module:
    """Shapes without numbers. Shared between tests, none may change it."""
    with torch.device("meta"):
        return reference_models.get(name)().eval()


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("depth", swept(DEPTHS, QUICK))
def test_option_a_has_the_papers_parameter_count_to_its_last_digit(depth: int) -> None:
    millions = parameter_count(on_meta(f"cifar_resnet{depth}")) / 1e6

    assert round(millions, 2 if depth < 100 else 1) == PUBLISHED[depth]


@pytest.mark.parametrize("name", swept(NAMES, lambda name: "1202" not in name))
def test_the_registered_parameter_count_is_the_definitions(name: str) -> None:
    assert parameter_count(on_meta(name)) == reference_models.get(name).parameters


@pytest.mark.parametrize("depth", swept(DEPTHS, QUICK))
def test_depth_counts_the_layers_with_weights_on_the_main_path(depth: int) -> None:
    model = on_meta(f"cifar_resnet{depth}")

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth == reference_models.get(f"cifar_resnet{depth}").depth


def test_option_b_adds_two_projections_with_their_norms_and_nothing_else() -> None:
    plain, projected = (on_meta(f"cifar_resnet20{option}").state_dict() for option in ("", "_b"))

    assert plain.keys() < projected.keys()
    added = {name.rsplit(".", 2)[0] for name in projected.keys() - plain.keys()}
    assert added == {"stages.1.0.shortcut", "stages.2.0.shortcut"}
    # 16 to 32 and 32 to 64 channels through 1 x 1, and a gain and a shift for each new channel.
    assert parameter_count(on_meta("cifar_resnet20_b")) - parameter_count(on_meta("cifar_resnet20")) == (
        16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    )


def test_the_shortcut_without_parameters_takes_every_second_position_and_adds_zeros_behind() -> None:
    x = torch.arange(2 * 3 * 5 * 4, dtype=torch.float32).reshape(2, 3, 5, 4)

    y = ZeroChannels(3, 5, 2)(x)

    assert y.shape == (2, 5, 3, 2)
    assert all(
        y[b, c, i, j] == x[b, c, 2 * i, 2 * j]
        for b in range(2)
        for c in range(3)
        for i in range(3)
        for j in range(2)
    )
    assert not y[:, 3:].any()


def test_images_are_pooled_over_eight_by_eight_positions() -> None:
    model = on_meta("cifar_resnet20")
    assert isinstance(model, CifarResNet)
    shapes = []
    x = torch.empty(1, 16, 32, 32, device="meta")
    for stage in model.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))

    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet20_b"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_with_the_baselines_tensors_it_is_the_baselines_function(name: str, training: bool) -> None:
    torch.manual_seed(0)
    theirs = composed_baselines.BUILDERS[name]().double()
    for tensor in (*theirs.parameters(), *theirs.buffers()):
        # Initial values hide swapped and missing tensors: every one of them is moved off 0 and 1.
        if tensor.dim() == 1 and tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5)
    ours = reference_models.get(name)().double()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    ours.train(training)
    theirs.train(training)

    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet20_b"])
def test_the_same_seed_draws_the_baselines_initial_tensors_bit_for_bit(name: str) -> None:
    torch.manual_seed(1)
    theirs = composed_baselines.BUILDERS[name]().state_dict()
    torch.manual_seed(1)
    ours = reference_models.get(name)().state_dict()

    assert all(torch.equal(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))


@pytest.mark.parametrize("depth", [2, 21, 51])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"6n \\+ 2 layers.*not {depth}"):
        cifar_resnet(depth)
