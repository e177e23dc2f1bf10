"""The composed baselines: the function and the initial tensors of what they are the baseline of; faults are found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import reference_models
from reference_models.blocks import BasicBlock, SqueezeExcitation, ZeroChannels
from tests.sweeps import swept
from verifier import Verification, verify
from verifier.judge.policy import NAMED, STRICT
from verifier.judge.rejudging import judge_again
from verifier.models import composed_baselines, specs
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

OWN = [name for name in specs.architectures() if reference_models.get(name).baseline == f"baseline:{name}"]
# The deepest have the same code as the others, and cost more than all of them together.
DEEP = ("cifar_resnet110", "cifar_resnet110_b", "cifar_resnet1202", "cifar_resnet1202_b", "resnet152_cifar")


def images(name: str) -> torch.Tensor:
    entry = reference_models.get(name)
    size = 32 if entry.small_size == 64 else entry.small_size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def built(spec: str) -> nn.Module:
    return specs.load(spec, seed=0).model


def verified(
    name: str, change: Callable[[Any], object] = lambda _: None, *, localise: bool = True
) -> Verification:
    """The network against its baseline, in float64 alone, after `change` was done to the candidate."""
    ours, theirs = (built(spec) for spec in specs.arch(name))
    change(theirs)
    return verify(ours, theirs, images(name), weights="calibrated", cells=("cpu/float64",), localise=localise)


def test_each_baseline_belongs_to_a_network_of_its_name() -> None:
    assert sorted(composed_baselines.BUILDERS) == OWN


# Of each builder, block and shortcut one.
BUILT = {
    "cifar_resnet20",
    "cifar_resnet20_b",
    "resnet18_cifar",
    "resnet50_cifar",
    "se_resnet18",
    "small_resnet18",
}


@pytest.mark.parametrize("name", swept([name for name in OWN if name not in DEEP], BUILT))
def test_the_same_seed_draws_the_baselines_initial_tensors_bit_for_bit(name: str) -> None:
    ours, theirs = (built(spec).parameters() for spec in specs.arch(name))

    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def wrong_eps(at: str) -> Callable[[nn.Module], object]:
    return lambda model: setattr(model.get_submodule(at), "eps", 1e-3)


def dilated(model: nn.Module) -> None:
    layer = model.get_submodule("stages.2.0.second.conv")
    layer.dilation, layer.padding = (2, 2), (2, 2)  # type: ignore[assignment]


class InFront(ZeroChannels):
    """Zeros in front of the input's channels instead of behind."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(seen, (0, 0, 0, 0, self.added, 0))


class Odd(ZeroChannels):
    """The positions between those that should be taken."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = x[:, :, 1 :: self.stride, 1 :: self.stride]
        return nn.functional.pad(seen, (0, 0, 0, 0, 0, self.added))


class Ungated(SqueezeExcitation):
    """Gates that are twice the sigmoid."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * torch.tanh(self.excite(nn.functional.relu(self.squeeze(means))))


def turned(at: str, kind: type[nn.Module]) -> Callable[[nn.Module], object]:
    return lambda model: setattr(model.get_submodule(at), "__class__", kind)


def biased(model: nn.Module) -> None:
    nn.init.constant_(model.get_submodule("stages.1.1.first.conv").bias, 0.01)  # type: ignore[arg-type]


QUICK = {"cifar_resnet20", "cifar_resnet20_b", "se_resnet18", "small_resnet18"}


@pytest.mark.parametrize(
    ("name", "change", "culprit"),
    swept(
        [
            ("cifar_resnet20", wrong_eps("stages.1.1.second.norm"), "layer2.1.bn2"),
            ("cifar_resnet20", turned("stages.1.0.shortcut", InFront), "layer2.0.downsample.pad"),
            ("cifar_resnet20", turned("stages.2.0.shortcut", Odd), "layer3.0.downsample.getitem"),
            ("cifar_resnet20_b", wrong_eps("stages.2.0.shortcut.norm"), "layer3.0.downsample.1"),
            ("cifar_resnet32", wrong_eps("stages.0.4.first.norm"), "layer1.4.bn1"),
            ("cifar_resnet32_b", wrong_eps("stages.1.0.shortcut.norm"), "layer2.0.downsample.1"),
            ("cifar_resnet44", wrong_eps("stages.1.6.first.norm"), "layer2.6.bn1"),
            ("cifar_resnet44_b", wrong_eps("stem.norm"), "bn1"),
            ("cifar_resnet56", wrong_eps("stages.2.8.second.norm"), "layer3.8.bn2"),
            ("cifar_resnet56_b", wrong_eps("stages.0.8.second.norm"), "layer1.8.bn2"),
            ("resnet18_cifar", dilated, "layer3.0.conv2"),
            ("resnet34_cifar", wrong_eps("stages.2.5.second.norm"), "layer3.5.bn2"),
            ("resnet50_cifar", wrong_eps("stages.1.3.expand.norm"), "layer2.3.bn3"),
            ("se_resnet18", turned("stages.2.1.attention", Ungated), "layer3.1.bn2.1.scale_activation"),
            ("se_resnet50", wrong_eps("stages.3.0.reduce.norm"), "layer4.0.bn1"),
            ("resnet18_biased", biased, "layer2.1.conv1"),
            ("small_resnet18", wrong_eps("blocks.2.second_norm"), "batch_norm_8"),
        ],
        lambda case: case[0] in QUICK and case[2] != "layer2.1.bn2",  # of its kind others are quicker
    ),
)
def test_a_planted_fault_is_found_and_nothing_else_is_blamed(
    name: str, change: Callable[[nn.Module], object], culprit: str
) -> None:
    result = verified(name, change)

    assert result.verdict is Verdict.DIVERGED
    assert [each.baseline for each in result.culprits] == [culprit]


@pytest.mark.parametrize("name", swept(["resnet18_cifar", "se_resnet18", "small_resnet18"], QUICK))
def test_without_a_fault_all_sites_agree_in_float64(name: str) -> None:
    result = verified(name)

    assert result.verdict is Verdict.MATCH
    assert result.coverage.compared == result.coverage.baseline_sites == result.coverage.candidate_sites


def test_extra_biases_of_zero_are_reported_as_a_harmless_difference_and_it_is_a_match() -> None:
    result = verified("resnet18_biased")

    assert result.verdict is Verdict.MATCH
    extra = [each for each in result.static if each.kind == "tensor"]
    assert len(extra) == 20
    assert extra[0].candidate == "stem.conv.bias"
    assert all(
        "that the baseline does not have: all are 0, which changes nothing" in e.summary for e in extra
    )
    assert any("harmless: the candidate has 20 tensors" in note for note in result.notes)


def test_an_extra_bias_that_is_not_zero_is_not_called_harmless() -> None:
    result = verified("resnet18_biased", biased, localise=False)

    said = [e.summary for e in result.static if e.candidate == "stages.1.1.first.conv.bias"]
    assert said == ["it is a bias of 128 numbers that the baseline does not have: from 0.01 to 0.01"]
    assert any("harmless: the candidate has 19 tensors" in note for note in result.notes)


class Unrectified(BasicBlock):
    """Without the ReLU at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main_path(x) + x


@pytest.mark.parametrize("name", swept(["resnet18_pruned", "resnet18_int8"], ["resnet18_pruned"]))
@pytest.mark.parametrize("wrong", [False, True], ids=["compressed", "compressed and wrong"])
def test_a_compressed_network_does_its_task_and_is_not_called_the_same_function(
    name: str, wrong: bool
) -> None:
    baseline, candidate = (built(spec) for spec in specs.arch(name))
    if wrong:
        turned("stages.2.1", Unrectified)(candidate)
    four = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))

    result = verify(
        baseline,
        candidate,
        four,
        weights="calibrated",
        policy=NAMED[reference_models.get(name).policy],
        semantics=False,
        localise=False,
    )

    assert result.verdict is (Verdict.DIVERGED if wrong else Verdict.MATCH)
    assert result.cells[0].verdict is Verdict.DIVERGED
    assert result.first_divergence is not None
    assert judge_again(result, STRICT).verdict is Verdict.DIVERGED
