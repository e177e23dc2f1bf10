"""Public networks as three libraries write them: the same function is a match, one fault is blamed alone."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.zoo.networks import ALL, ATTENDING, CONVOLUTIONAL
from verifier import Verdict, Verification, verify
from verifier.align import Assembly

if TYPE_CHECKING:
    from collections.abc import Callable

# Swin's shifted windows: timm keeps their mask in a buffer, the others compute it. It is no weight.
MASK = ".attn_mask"


@cache
def healthy(name: str) -> Verification:
    twins = ALL[name]
    return verify(*twins.models(), twins.images())


def scores(result: Any) -> Tensor:
    """The class scores in whatever a model returns."""
    found: Tensor = getattr(result, "logits", result)
    return found


@pytest.mark.parametrize("name", ALL)
def test_the_parameter_map_makes_them_one_function_without_the_verifier(name: str) -> None:
    twins = ALL[name]
    baseline, candidate = (model.double() for model in twins.models())
    images = twins.images().double()
    ours, theirs = dict(baseline.state_dict()), dict(candidate.state_dict())
    with torch.no_grad():
        for tensor, text in healthy(name).weights.parameter_map.items():
            if tensor in theirs:  # what is not saved is no weight
                theirs[tensor].copy_(Assembly.parsed(text, ours).make(ours, theirs[tensor].shape))
        expected, found = scores(baseline(images)), scores(candidate(images))
    assert float(expected.std()) > 1e-3
    # Both add the same numbers in float64, in another order at most.
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ALL)
def test_they_match_and_every_tensor_finds_its_twin(name: str) -> None:
    found = healthy(name)
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    assert not [each for each in found.weights.unmapped_baseline if not each.endswith(MASK)]
    assert not [each for each in found.weights.unmapped_candidate if not each.endswith(MASK)]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_nearly_all_sites_with_weights_are_paired(name: str) -> None:
    covered = healthy(name).coverage
    assert covered.parameterised_compared >= 0.95 * covered.parameterised


class Planted(NamedTuple):
    """The candidate's module that was made wrong, and whether its site is still there."""

    module: str
    stays: bool = True


def module_in(model: nn.Module, kinds: Any, share: float) -> tuple[str, Any]:
    """The module of these kinds that stands at this share of them."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    return found[int(len(found) * share)]


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def eps_times_three(model: nn.Module) -> Planted:
    name, norm = module_in(model, nn.BatchNorm2d | nn.LayerNorm, 0.5)
    norm.eps *= 3
    return Planted(name)


def another_activation(model: nn.Module) -> Planted:
    kinds = {type(module) for module in model.modules() if type(module).__name__ in {"ReLU", "SiLU", "GELU"}}
    name, _ = module_in(model, tuple(kinds), 0.4)  # timm has a GELU of its own
    replace(model, name, nn.LeakyReLU(0.02))
    return Planted(name)


def circular_padding(model: nn.Module) -> Planted:
    convolutions = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.padding == (1, 1)
    ]
    name, convolution = convolutions[len(convolutions) // 2]
    convolution.padding_mode = "circular"
    convolution._reversed_padding_repeated_twice = [1, 1, 1, 1]
    return Planted(name)


def removed_norm(model: nn.Module) -> Planted:
    name, _ = module_in(model, nn.BatchNorm2d | nn.LayerNorm, 0.7)
    replace(model, name, nn.Identity())
    return Planted(name, stays=False)


def blamed(name: str, plant: Callable[[nn.Module], Planted]) -> tuple[Verification, Planted]:
    twins = ALL[name]
    baseline, candidate = twins.models()
    planted = plant(candidate)
    return verify(baseline, candidate, twins.images()), planted


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("resnet18", removed_norm),
        ("resnet50", eps_times_three),
        ("resnext50_32x4d", circular_padding),
        ("wide_resnet50_2", another_activation),
        ("densenet121", eps_times_three),
        ("vgg16_bn", another_activation),
        ("efficientnet_b0", eps_times_three),
        ("regnet_y_400mf", another_activation),
        ("resnet34-transformers", circular_padding),
        ("resnet50-transformers", removed_norm),
        ("convnext-torchvision-timm", another_activation),
        ("convnext-torchvision-transformers", eps_times_three),
        ("convnext-timm-transformers", eps_times_three),
    ],
)
def test_one_fault_is_blamed_on_its_module_alone(name: str, plant: Callable[[nn.Module], Planted]) -> None:
    found, planted = blamed(name, plant)
    assert found.verdict is Verdict.DIVERGED
    (culprit,) = found.culprits
    if planted.stays:
        assert culprit.candidate is not None
        assert f"{culprit.candidate}.".startswith(f"{planted.module}.")
    else:
        assert culprit.candidate is None
    weight = f"{planted.module}.weight"
    if weight in healthy(name).weights.parameter_map:
        twin = str(healthy(name).weights.parameter_map[weight]).removesuffix(".weight")
        assert culprit.baseline is not None
        assert f"{culprit.baseline}.".startswith(f"{twin}.")


def wrong_scale(model: nn.Module, which: int) -> str:
    """Scores of one attention that are half too large; that attention's name."""
    found: list[tuple[str, Any]] = [
        (name, module)
        for name, module in model.named_modules()
        if hasattr(module, "scale") or hasattr(module, "scaling")
    ]
    name, attention = found[which]
    if hasattr(attention, "scaling"):
        attention.scaling *= 1.5
    else:
        attention.scale *= 1.5
        attention.fused_attn = False  # the one operator would take no scale
    return name


def check_that_a_wrong_scale_is_blamed_alone(name: str, which: int) -> None:
    twins = ALL[name]
    baseline, candidate = twins.models()
    where = wrong_scale(candidate, which)
    found = verify(baseline, candidate, twins.images())
    assert found.verdict is Verdict.DIVERGED
    (culprit,) = found.culprits
    assert culprit.candidate is not None
    assert culprit.candidate.startswith(f"{where}.")


@pytest.mark.parametrize(
    "name", ["vit-torchvision-timm", "vit-torchvision-transformers", "vit-timm-transformers"]
)
def test_a_wrong_scale_in_the_last_attention_is_blamed_on_it_alone(name: str) -> None:
    check_that_a_wrong_scale_is_blamed_alone(name, -1)


@pytest.mark.parametrize("which", [-2, -1], ids=["last but one", "last"])
@pytest.mark.parametrize("name", ATTENDING)
def test_a_wrong_scale_in_any_attention_is_blamed_on_it_alone(name: str, which: int) -> None:
    check_that_a_wrong_scale_is_blamed_alone(name, which)
