"""Sites that differ as written where the given inputs do not reach: found where they matter, and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from verifier import Policy, Verdict, verify
from verifier.judge import judge_again

if TYPE_CHECKING:
    from verifier.storage.saving import Verification

Step = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """A convolution, a norm and a linear layer; `before` and `step` stand between them."""

    def __init__(self, step: Step, before: Step) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)
        self.step, self.before = step, before

    def forward(self, x: Tensor) -> Tensor:
        x = self.step(self.before(self.bn(self.conv(x))))
        out: Tensor = self.fc(x.flatten(2).mean(2))
        return out


def compared(baseline: Step, candidate: Step, before: Step = lambda x: x) -> Verification:
    """On numbers that stay below 1 behind the norm, unless `before` says otherwise."""
    x = 0.1 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return verify(Net(baseline, before).eval(), Net(candidate, before).eval(), x, weights="as-is")


def far(x: Tensor) -> Tensor:
    return x + 100


def positive(x: Tensor) -> Tensor:
    return x.abs() + 0.1


PLANTED: dict[str, tuple[Step, Step, Step, str]] = {
    "relu6-as-relu": (F.relu6, F.relu, lambda x: x, "activation-different"),
    "relu-as-relu6": (F.relu, F.relu6, lambda x: x, "activation-different"),
    "relu6-as-clamp-min": (F.relu6, lambda x: x.clamp(min=0), lambda x: x, "activation-different"),
    "relu6-as-product": (F.relu6, lambda x: x * (x > 0), lambda x: x, "region-different"),
    "relu6-as-relu-below-7": (
        F.relu6,
        lambda x: F.relu(x).clamp(max=7),
        lambda x: x,
        "region-different",
    ),
    "hardtanh-bounds": (
        lambda x: F.hardtanh(x, -5, 5),
        lambda x: F.hardtanh(x, -5, 6),
        lambda x: x,
        "hardtanh-max-val",
    ),
    "clamp-max": (lambda x: x.clamp(max=20), lambda x: x.clamp(max=30), lambda x: x, "clamp-max"),
    "leaky-slope": (
        lambda x: F.leaky_relu(x, 0.1),
        lambda x: F.leaky_relu(x, 0.2),
        far,
        "leaky-relu-negative-slope",
    ),
    "elu-alpha": (F.elu, lambda x: F.elu(x, 0.5), far, "elu-alpha"),
    "hardshrink": (lambda x: F.hardshrink(x, 0.5), lambda x: F.hardshrink(x, 0.6), far, "hardshrink-lambd"),
    "softplus-threshold": (F.softplus, lambda x: F.softplus(x, threshold=30), lambda x: x, "softplus-threshold"),
    "hardswish-by-relu": (F.hardswish, lambda x: x * F.relu(x + 3) / 6, lambda x: x, "region-different"),
    "hardsigmoid-by-relu": (F.hardsigmoid, lambda x: F.relu(x + 3) / 6, lambda x: x, "region-different"),
    "where": (
        lambda x: torch.where(x > -9, x, torch.ones_like(x)),
        lambda x: torch.where(x > -10, x, torch.ones_like(x)),
        lambda x: x,
        "gt-other",
    ),
    "any-as-all": (
        lambda x: x * (x > -50).any(3, keepdim=True),
        lambda x: x * (x > -50).all(3, keepdim=True),
        lambda x: x,
        "region-different",
    ),
    "nan": (torch.nan_to_num, lambda x: torch.nan_to_num(x, nan=1.0), lambda x: x, "nan-to-num-nan"),
    "log-floor": (
        lambda x: x.clamp(min=1e-8).log(),
        lambda x: x.clamp(min=1e-12).log(),
        far,
        "clamp-min",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_difference_that_no_given_number_reaches_is_a_divergence_at_its_site(name: str) -> None:
    baseline, candidate, before, code = PLANTED[name]
    found = compared(baseline, candidate, before)
    assert found.output is not None
    assert found.output.mse == 0 or found.output.mse < 1e-20  # nothing given shows it
    assert found.verdict is Verdict.DIVERGED
    assert [each.cause.code for each in found.culprits if each.cause] == [code]
    (culprit,) = found.culprits
    assert culprit.cause is not None
    assert culprit.cause.confirmed == (code != "region-different")
    assert "which the given inputs do not reach" in culprit.cause.summary
    assert culprit.excited is not None
    assert culprit.excited.inputs in culprit.cause.evidence[0]
    assert "the given inputs do not reach" in found.reason


def test_a_region_behind_anything_but_weights_is_told_alone() -> None:
    """What it reads may be bound in ways nobody can read off the operators, as zeros around what is never below 0."""
    found = compared(
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2),
        lambda x: x * x,
    )
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    assert found.exercise is not None
    (told,) = found.exercise.unexercised
    assert "alone the two part" in told.why
    assert "before it the candidate has pad, the baseline nothing" in told.summary


SAME: dict[str, tuple[Step, Step, Step]] = {
    "relu6-as-hardtanh": (F.relu6, lambda x: F.hardtanh(x, 0, 6), lambda x: x),
    "relu6-as-clamp": (F.relu6, lambda x: x.clamp(0, 6), lambda x: x),
    "relu6-in-two-steps": (F.relu6, lambda x: F.relu(x).clamp(max=6), lambda x: x),
    "relu6-from-above": (F.relu6, lambda x: F.relu(x.clamp(max=6)), lambda x: x),
    "relu6-as-minimum": (
        F.relu6,
        lambda x: torch.minimum(F.relu(x), torch.full_like(x, 6.0)),
        lambda x: x,
    ),
    "relu6-behind-sigmoid": (F.relu6, F.relu, torch.sigmoid),
    "leaky-behind-relu": (lambda x: F.leaky_relu(x, 0.1), F.relu, F.relu),
    "max-pool-of-zeros-around-what-is-positive": (
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2),
        F.relu,
    ),
    "hardswish-in-steps": (F.hardswish, lambda x: x * F.relu6(x + 3) / 6, lambda x: x),
    "silu-in-steps": (F.silu, lambda x: x * torch.sigmoid(x), lambda x: x),
    "mish-in-steps": (F.mish, lambda x: x * torch.tanh(F.softplus(x)), lambda x: x),
    "gelu-in-steps": (F.gelu, lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), lambda x: x),
    "logsigmoid-in-steps": (F.logsigmoid, lambda x: -F.softplus(-x), lambda x: x),
    "softmax-in-steps": (
        lambda x: x.softmax(3),
        lambda x: x.exp() / x.exp().sum(3, keepdim=True),
        lambda x: x,
    ),
    "attention-in-steps": (
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x: (x @ x.mT / 4).softmax(-1) @ x,
        lambda x: x,
    ),
    "relu-by-choice": (F.relu, lambda x: torch.where(x > 0, x, torch.zeros_like(x)), lambda x: x),
    "zero-on-either-side": (lambda x: x * (x > 0), lambda x: x * (x >= 0), lambda x: x),
    "reciprocal-root": (torch.rsqrt, lambda x: 1 / torch.sqrt(x), positive),
    "a-window-as-large-as-the-map": (
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.avg_pool2d(x, 16),
        lambda x: x,
    ),
    "a-size-in-place-of-a-factor": (
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, size=(32, 32)),
        lambda x: x,
    ),
    "an-axis-from-the-end": (lambda x: F.softmax(x, 3), lambda x: F.softmax(x, -1), lambda x: x),
    "random-slope-in-evaluation": (
        lambda x: F.rrelu(x, 0.1, 0.3),
        lambda x: F.leaky_relu(x, 0.2),
        lambda x: x,
    ),
    "norm-divided-out": (F.normalize, lambda x: x / x.norm(dim=1, keepdim=True), lambda x: x),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_what_is_the_same_function_stays_a_match(name: str) -> None:
    found = compared(*SAME[name])
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")


def test_mobilenets_first_relu6_is_blamed_where_nothing_exceeds_6() -> None:
    torch.manual_seed(0)
    few = [[1, 16, 1, 1], [6, 24, 2, 2]]  # blocks, of the kinds that all others are of
    baseline = torchvision.models.mobilenet_v2(inverted_residual_setting=few).eval()
    candidate = copy.deepcopy(baseline)
    candidate.features[0][2] = nn.ReLU()
    x = torch.randn(2, 3, 32, 32)
    healthy = verify(baseline, copy.deepcopy(baseline), x, weights="calibrated")
    found = verify(baseline, candidate, x, weights="calibrated")
    assert healthy.verdict is Verdict.MATCH
    assert found.verdict is Verdict.DIVERGED
    assert [each.baseline for each in found.culprits] == ["features.0.2"]
    assert found.first_divergence is not None
    assert found.first_divergence.baseline == "features.0.2"


def test_a_fault_that_shows_does_not_hide_one_that_no_input_reaches() -> None:
    baseline, candidate = (Net(step, lambda x: x).eval() for step in (F.relu6, F.relu))
    candidate.bn.eps = 1e-3
    found = verify(baseline, candidate, 0.1 * torch.randn(2, 3, 16, 16), weights="as-is")
    assert [each.baseline for each in found.culprits] == ["bn", "relu6"]
    assert [each.excited is None for each in found.culprits] == [True, False]


def test_judging_again_keeps_what_other_inputs_showed() -> None:
    found = compared(F.relu6, F.relu)
    again = judge_again(found, Policy(name="own"))
    assert (again.verdict, again.culprits) == (found.verdict, found.culprits)


def test_by_the_published_criteria_only_the_given_inputs_count() -> None:
    found = compared(F.relu6, F.relu)
    assert judge_again(found, Policy(name="criteria", criteria_decide=True)).verdict is Verdict.MATCH


def test_regions_written_alike_are_each_tried_where_their_numbers_are_of_another_size() -> None:
    def net(eps: float) -> nn.Sequential:
        torch.manual_seed(0)
        blocks = [nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64, eps=eps)) for _ in range(3)]
        with torch.no_grad():  # the first is given so large numbers that no eps matters
            for block, size in zip(blocks, (1e3, 2.0, 2.0), strict=True):
                linear = block[0]
                assert isinstance(linear, nn.Linear)
                linear.weight.mul_(size)
                linear.bias.mul_(size)
        return nn.Sequential(*blocks, nn.Linear(64, 4))

    found = verify(net(1e-12), net(1e-13), torch.randn(4, 64), weights="as-is")
    assert found.verdict == "diverged"
    assert {"1.1", "2.1"} <= {each.baseline for each in found.culprits}


def test_masks_whose_square_overflows_have_a_size_all_the_same() -> None:
    class Attending(nn.Module):
        fused = True

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
            mask = torch.full((x.shape[1],) * 2, torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
            if self.fused:
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            else:
                y = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5 + mask, -1) @ v
            found: Tensor = self.out(y.transpose(1, 2).flatten(2))
            return found

    class Written(Attending):
        fused = False

    torch.manual_seed(0)
    baseline, candidate = Attending(), Written()
    candidate.load_state_dict(baseline.state_dict())
    assert verify(baseline, candidate, torch.randn(2, 5, 16)).verdict is Verdict.MATCH
