"""Faults in small networks: each culprit with its cause, confirmed, and nothing else."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks import Block, images, network
from verifier import verify
from verifier.environment import flags

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verifier.storage.saving import Verification


def causes(verification: Verification) -> list[tuple[str | None, str | None, str, bool]]:
    return [
        (
            culprit.baseline,
            culprit.candidate,
            culprit.cause.code if culprit.cause else "",
            culprit.cause is not None and culprit.cause.confirmed,
        )
        for culprit in verification.culprits
    ]


def broken(plant: Callable[[Any], None]) -> nn.Module:
    model: nn.Module = copy.deepcopy(network())
    with torch.no_grad():
        plant(model)
    return model


class WithoutFirstRelu(Block):
    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        out += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out)
        return result


class OverwritingItsShortcut(Block):
    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        shortcut = out
        out = self.bn2(self.conv2(out))
        shortcut.mul_(0.5)
        result: Tensor = self.relu(out + x)
        return result


class Odd(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean((2, 3)) + 1e-3 * (1 - self.scale) * x.square().mean((2, 3)).cos()


def lose_relu(model: Any) -> None:
    model[1].__class__ = WithoutFirstRelu


def lose_relu_and_scale_what_reads_it(model: Any) -> None:
    lose_relu(model)
    model[1].conv2.weight *= 2


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        pytest.param(
            lambda m: setattr(m[1].bn2, "eps", 1e-3), [("1.bn2", "1.bn2", "batchnorm-eps", True)], id="eps"
        ),
        pytest.param(
            lambda m: m[3].conv1.weight.mul_(2), [("3.conv1", "3.conv1", "weight-scaled", True)], id="scaled"
        ),
        pytest.param(
            lambda m: m[2].downsample[1].running_mean.add_(0.1),
            [("2.downsample.1", "2.downsample.1", "running-mean", True)],
            id="running mean",
        ),
        pytest.param(
            lambda m: m[2].bn1.train(), [("2.bn1", "2.bn1", "batchnorm-training", True)], id="training"
        ),
        pytest.param(lose_relu, [("1.relu", None, "relu-missing", True)], id="no ReLU"),
        pytest.param(
            lose_relu_and_scale_what_reads_it,
            [("1.relu", None, "relu-missing", True), ("1.conv2", "1.conv2", "weight-scaled", True)],
            id="no ReLU, and a fault right behind it",
        ),
        pytest.param(
            lambda m: m.__setitem__(4, nn.AdaptiveMaxPool2d(1)),
            [("4", "4", "pooling-different", True)],
            id="another pooling",
        ),
    ],
)
def test_a_culprit_comes_with_its_cause(
    plant: Callable[[Any], None], expected: list[tuple[str, str, str, bool]]
) -> None:
    assert causes(verify(network(), broken(plant), images())) == expected


def test_what_only_follows_another_shape_is_not_blamed_but_what_is_wrong_behind_it_is() -> None:
    def plant(model: Any) -> None:
        model[2].conv1.stride = (2, 2)  # bn1 and relu get another shape ...
        model[2].bn1.eps = 1e-3  # ... but only bn1 is wrong as well
        model[2].downsample[0].stride = (2, 2)

    found = causes(verify(network(), broken(plant), images(size=16)))
    codes = {site: code for site, _, code, _ in found}
    assert codes == {
        "2.conv1": "conv-stride",
        "2.bn1": "batchnorm-eps",
        "2.downsample.0": "conv-stride",
    }
    assert all(confirmed for *_, confirmed in found)


def test_two_things_wrong_at_one_site_are_both_named() -> None:
    def plant(model: Any) -> None:
        model[1].bn1.eps = 1e-2
        model[1].bn1.running_mean += 0.5

    (culprit,) = verify(network(), broken(plant), images()).culprits
    assert culprit.cause is not None
    assert {culprit.cause.code, *culprit.cause.also} == {"batchnorm-eps", "running-mean"}
    assert culprit.cause.confirmed


def _unchanged(self: Any, input: tuple[Tensor], output: Tensor) -> Tensor:  # noqa: A002 - TorchScript asks for it
    return output * 1.0


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_what_nothing_explains_is_described() -> None:
    baseline, candidate = copy.deepcopy(network()), copy.deepcopy(network())
    parts = Odd(1.0), Odd(0.5)
    for part in parts:
        part.register_forward_hook(_unchanged)  # no scripted module with hooks can be looked into
    baseline[4], candidate[4] = map(torch.jit.script, parts)

    (culprit,) = verify(baseline, candidate, images()).culprits

    assert culprit.cause is not None
    assert (culprit.baseline, culprit.cause.code, culprit.cause.confirmed) == (
        "4.opaque:Odd",
        "unexplained",
        False,
    )
    assert culprit.cause.evidence[0].startswith("0.499964 x baseline + 0.0005021 leaves 1e-05")


def test_a_tensor_changed_behind_torchs_back_is_found_where_it_is_read() -> None:
    class Clipping(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            out.numpy().clip(max=0.0, out=out.numpy())
            return out

    found = causes(verify(network(), broken(lambda m: setattr(m[1].conv1, "__class__", Clipping)), images()))
    assert found == [("1.bn1", "1.bn1", "input-overwritten", True)]


def test_state_that_a_pass_leaves_is_compared() -> None:
    baseline = network().train()
    slow = copy.deepcopy(baseline)
    slow[1].bn2.momentum = 0.9

    found = causes(verify(baseline, slow, images(4)))

    assert found == [
        (f"1.bn2.{name}", f"1.bn2.{name}", "batchnorm-momentum", True)
        for name in ("running_mean", "running_var")
    ]
    assert verify(baseline, copy.deepcopy(baseline), images(4)).verdict == "match"


def test_state_is_blamed_in_a_numerics_cell_too() -> None:
    baseline = network().train()
    slow = copy.deepcopy(baseline)
    slow[1].bn2.momentum = 0.9

    found = causes(verify(baseline, slow, images(4), semantics=False))

    assert [(site, code) for site, _, code, _ in found] == [
        (f"1.bn2.{name}", "batchnorm-momentum") for name in ("running_mean", "running_var")
    ]


def test_statistics_of_the_models_given_are_left_alone() -> None:
    baseline = network().train()
    candidate = copy.deepcopy(baseline)
    before = copy.deepcopy(baseline.state_dict())

    verify(baseline, candidate, images(4))

    for model in (baseline, candidate):
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_input_prepared_otherwise_is_recognised_and_the_sites_are_not_blamed() -> None:
    x = images()

    result = verify(network(), network(), x, candidate_inputs=x.flip(1))

    assert causes(result) == [("input", "input", "input-channel-order", True)]
    assert [layer.status for layer in result.layers][1] == "carries"


def test_an_input_of_another_size_leaves_the_sites_judged() -> None:
    candidate = broken(lambda m: setattr(m[1].bn1, "eps", 1e-3))

    result = verify(network(), candidate, images(), candidate_inputs=images(size=12))

    assert [culprit.baseline for culprit in result.culprits] == ["input", "1.bn1"]


def test_a_model_that_prepares_its_own_input_is_recognised() -> None:
    class Scaled(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.model(x * 255)
            return result

    (found,) = causes(verify(network(), Scaled(network()), images()))
    assert found[2:] == ("input-scale", True)


def test_a_cast_inside_is_called_by_its_name() -> None:
    class Cast(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.module(x).half().to(x.dtype)
            return result

    (found,) = causes(verify(network(), broken(lambda m: m.__setitem__(6, Cast(m[6]))), images()))
    assert found[1:] == ("6.half", "internal-cast", True)


def test_the_static_comparison_says_what_differs_as_written() -> None:
    def plant(model: Any) -> None:
        model[1].bn2.eps = 1e-3
        model[3].conv1.weight *= 2
        lose_relu(model)

    static = verify(network(), broken(plant), images()).static

    assert {(each.kind, each.baseline) for each in static} == {
        ("operators", None),
        ("hyperparameter", "1.bn2"),
        ("tensor", "3.conv1.weight"),
    }
    assert not verify(network(), copy.deepcopy(network()), images()).static


def test_padding_on_its_own_is_part_of_the_convolution() -> None:
    class Padded(nn.Module):
        def __init__(self, conv: nn.Conv2d) -> None:
            super().__init__()
            self.conv = conv
            conv.padding = (0, 0)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.conv(F.pad(x, (0, 2, 0, 2)))
            return result

    (found,) = causes(
        verify(network(), broken(lambda m: setattr(m[1], "conv1", Padded(m[1].conv1))), images())
    )
    assert found == ("1.conv1", "1.conv1.conv", "conv-padding", True)


def test_a_flag_that_building_the_candidate_changes_is_told_and_put_back(tmp_path: Path) -> None:
    source = tmp_path / "nets.py"
    source.write_text(
        "import torch\n"
        "def plain(): return torch.nn.Linear(3, 3)\n"
        "def meddling():\n"
        "    torch.backends.cudnn.deterministic = not torch.backends.cudnn.deterministic\n"
        "    return plain()\n"
    )
    before = flags()

    static = verify(f"{source}:plain", f"{source}:meddling", torch.ones(2, 3)).static

    assert [each.kind for each in static] == ["flag"]
    assert "cudnn" in static[0].summary
    assert flags() == before


class Written(nn.Module):
    """A forward pass given as a function of the module, on parts with the same weights each time."""

    def __init__(self, run: Callable[..., Tensor], **parts: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, make in parts.items():
            setattr(self, name, make())
        self.run = run

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, *inputs)


def linear() -> nn.Module:
    return nn.Linear(8, 8)


def head(scale: float, fill: float) -> Callable[..., Tensor]:
    def run(self: Any, x: Tensor) -> Tensor:
        scores = self.a(x) @ self.b(x).transpose(-1, -2) * scale
        mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
        return scores.masked_fill(mask, fill).softmax(-1) @ x  # type: ignore[no-any-return]

    return run


@pytest.mark.parametrize("fill", [-torch.inf, torch.finfo(torch.float32).min, -1e9])
def test_a_mask_hides_nothing(fill: float) -> None:
    baseline, candidate = (Written(head(scale, fill), a=linear, b=linear) for scale in (0.5, 1.0))
    (found,) = causes(verify(baseline, candidate, torch.randn(4, 6, 8)))
    assert found[2:] == ("mul-other", True)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (lambda m, x: torch.cat([m.a(x), x], 1), lambda m, x: torch.cat([x, m.a(x)], 1)),
        (lambda m, x: m.a(x) - m.b(x), lambda m, x: m.b(x) - m.a(x)),
        (lambda m, x: torch.where(x > 0, m.a(x), m.b(x)), lambda m, x: torch.where(x > 0, m.b(x), m.a(x))),
    ],
)
def test_exchanged_operands_are_told_as_such(
    right: Callable[..., Tensor], wrong: Callable[..., Tensor]
) -> None:
    parts = {"a": linear, "b": linear}
    (found,) = causes(verify(Written(right, **parts), Written(wrong, **parts), torch.randn(4, 8)))
    assert found[2:] == ("operand-order", True)


def test_a_fault_is_found_though_all_that_reads_it_agrees_on_this_input() -> None:
    def leaky(slope: float) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(slope), nn.AdaptiveMaxPool2d(1), nn.Flatten()
        ).eval()

    found = causes(verify(leaky(0.01), leaky(0.5), images()))
    assert found == [("1", "1", "leaky-relu-negative-slope", True)]


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(random.random, id="Python"),
        pytest.param(np.random.rand, id="NumPy"),
        pytest.param(lambda: torch.rand(()), id="torch"),
    ],
)
def test_both_models_draw_the_same_random_numbers(draw: Callable[[], Any]) -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.a(x) * draw()  # type: ignore[no-any-return]

    assert verify(Written(run, a=linear), Written(run, a=linear), torch.randn(4, 8)).verdict == "match"


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda m, x: m.a(x).reshape(4, -1), id="a fixed batch size"),
        pytest.param(
            lambda m, x: torch.cat([m.a(each[None]) for each in x]).flatten(1), id="a loop over samples"
        ),
    ],
)
def test_a_candidate_that_depends_on_the_number_of_samples_is_compared_on_all(
    run: Callable[..., Tensor],
) -> None:
    baseline = Written(lambda m, x: m.a(x).flatten(1), a=linear)
    result = verify(baseline, Written(run, a=linear), torch.randn(4, 3, 8))
    assert not result.culprits
    assert result.verdict != "diverged"
