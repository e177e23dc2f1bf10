"""Three questions kept apart: the same program, as accurate as the baseline, in every cell of the matrix."""

from __future__ import annotations

import copy
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests.cuda import MARKS
from tests.mutants.benign import BENIGN, applies, variant
from tests.mutants.networks import build, images
from tests.sweeps import swept
from verifier import verify
from verifier.bench import numerics, oracle
from verifier.lockstep import passes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from verifier.records import CellResult
    from verifier.storage.saving import Verification

CELLS = ("cpu/float32", "cpu/float32/channels_last", "cpu/bfloat16", "cpu/bfloat16/autocast", "cpu/float16")
HALVES = ("cpu/bfloat16", "cpu/float16")
DEVICES = ["cpu", pytest.param("cuda", marks=MARKS)]


def on(device: str, cells: Sequence[str]) -> list[str]:
    """The cells on another device, which TF32 cells come with."""
    there = [cell.replace("cpu", device) for cell in cells]
    return [*there, "cuda/tf32"] if device == "cuda" and len(cells) > 1 else there


def per_channel(vector: Tensor) -> Tensor:
    return vector[None, :, None, None]


class FoldedInOwnDtype(nn.BatchNorm2d):
    """Scale and shift are kept in the dtype of the buffers."""

    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight / torch.sqrt(self.running_var + self.eps)
        return x * per_channel(scale) + per_channel(self.bias - self.running_mean * scale)


class ScaledInOwnDtype(nn.BatchNorm2d):
    """Only the scale is; all that is done with it is done in a wider one."""

    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.float64 if x.dtype is torch.float64 else torch.float32
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        centred = x.to(wide) - per_channel(self.running_mean.to(wide))
        return (centred * per_channel(scale.to(wide)) + per_channel(self.bias.to(wide))).to(x.dtype)


class SummedInOwnDtype(nn.AdaptiveAvgPool2d):
    def forward(self, x: Tensor) -> Tensor:
        every = x.flatten(2)
        total = torch.zeros_like(every[..., 0])
        for k in range(every.shape[-1]):
            total = total + every[..., k]
        return (total / every.shape[-1])[..., None, None]


class SoftmaxWithoutMaximum(nn.Softmax):
    def forward(self, x: Tensor) -> Tensor:
        powers = torch.exp(x)
        return powers / powers.sum(self.dim, keepdim=True)


def replaced(model: nn.Module, name: str, kind: type[nn.Module]) -> nn.Module:
    candidate: nn.Module = copy.deepcopy(model)
    module: Any = candidate.get_submodule(name)
    module.__class__ = kind
    return candidate


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """Of each stage one block, of the second two, behind a small stem: half precision is slow on a CPU."""
    torch.manual_seed(0)
    block = torchvision.models.resnet.BasicBlock
    model: Any = torchvision.models.ResNet(block, [1, 2, 1, 1], num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
    return model.eval()  # type: ignore[no-any-return]


def pictures(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def by_name(result: Verification) -> dict[str, CellResult]:
    return {cell.name: cell for cell in result.cells}


def assert_called_out(
    result: Verification, site: str, cells: Sequence[str], code: str = "precision-lost"
) -> None:
    found = by_name(result)
    assert found["cpu/float64"].verdict == "match"
    for cell in cells:
        assert [row.baseline for row in found[cell].culprits] == [site]
        cause = found[cell].culprits[0].cause
        assert cause is not None
        assert (cause.code, cause.confirmed) == (code, True)
        assert [each.index for each in found[cell].exhibits] == [row.index for row in found[cell].culprits]
        assert found[cell].exhibits[0].histogram is not None
    for name, each in found.items():
        assert each.verdict == ("diverged" if name in cells else "match")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("kind", "name"),
    swept(
        itertools.product([FoldedInOwnDtype, ScaledInOwnDtype], ["bn1", "layer2.1.bn1", "layer4.0.bn1"]),
        [(FoldedInOwnDtype, "layer2.1.bn1"), (ScaledInOwnDtype, "layer4.0.bn1")],
    ),
)
def test_a_batch_norm_that_scales_in_half_precision_is_called_out_in_the_half_cells(
    resnet: nn.Module, kind: type[nn.Module], name: str, device: str
) -> None:
    candidate = replaced(resnet, name, kind)
    cells = on(device, ("cpu/float32", *HALVES))
    result = verify(resnet, candidate, pictures(), weights="calibrated", cells=cells)
    assert_called_out(result, name, [cell for cell in cells if cell.endswith("float16")])


@pytest.mark.thorough  # sums are long in large pictures
@pytest.mark.parametrize("device", DEVICES)
def test_a_sum_in_half_precision_is_called_out(resnet: nn.Module, device: str) -> None:
    candidate = replaced(resnet, "avgpool", SummedInOwnDtype)
    cells = on(device, ("cpu/float32", "cpu/bfloat16"))
    result = verify(resnet, candidate, pictures(224), weights="calibrated", cells=cells)
    assert_called_out(result, "avgpool", [f"{device}/bfloat16"])


@pytest.mark.parametrize("device", DEVICES)
def test_a_softmax_without_the_maximum_is_called_out_where_it_overflows(device: str) -> None:
    baseline = build("mixed", 0)
    candidate = replaced(baseline, "attention.softmax", SoftmaxWithoutMaximum)
    cells = on(device, ("cpu/float32", "cpu/bfloat16", "cpu/float16"))
    result = verify(baseline, candidate, images("mixed", 2, 1), weights="as-is", cells=cells)
    assert_called_out(result, "attention.softmax", [f"{device}/float16"], "precision-overflow")


def test_without_the_float64_cell_it_is_not_claimed_that_the_program_is_the_same(resnet: nn.Module) -> None:
    candidate = replaced(resnet, "bn1", FoldedInOwnDtype)
    result = verify(resnet, candidate, pictures(), weights="calibrated", cells=HALVES[:1], semantics=False)
    (culprit,) = result.culprits
    assert culprit.cause is not None
    assert not culprit.cause.confirmed
    assert "same program" not in culprit.cause.summary


def faults() -> dict[str, Callable[[nn.Module], str]]:
    def edit(name: str, **attributes: Any) -> Callable[[nn.Module], str]:
        def plant(model: nn.Module) -> str:
            for attribute, value in attributes.items():
                setattr(model.get_submodule(name), attribute, value)
            return name

        return plant

    def scaled(name: str) -> Callable[[nn.Module], str]:
        def plant(model: nn.Module) -> str:
            with torch.no_grad():
                model.get_parameter(f"{name}.weight").mul_(1.0001)
            return name

        return plant

    def swapped(name: str, module: nn.Module) -> Callable[[nn.Module], str]:
        def plant(model: nn.Module) -> str:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module)
            return name

        return plant

    return {
        "eps-slightly": edit("layer2.1.bn1", eps=2e-5),
        "eps": edit("bn1", eps=1e-3),
        "circular": edit("layer1.0.conv2", padding_mode="circular"),
        "maximum-pool": edit("maxpool", ceil_mode=True, padding=0),
        "dilation": edit("layer4.0.conv1", dilation=(2, 2), padding=(2, 2)),
        "weight": scaled("layer2.0.downsample.0"),
        "gain": scaled("layer3.0.bn2"),
        "classifier": scaled("fc"),
        "pooling": swapped("avgpool", nn.AdaptiveMaxPool2d((1, 1))),
        "activation": swapped("layer1.0.relu", nn.LeakyReLU(0.001)),
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fault", swept(faults(), ["eps-slightly"]))
def test_semantics_blames_a_planted_fault_whatever_the_other_cells_see(
    resnet: nn.Module, fault: str, device: str
) -> None:
    baseline = copy.deepcopy(resnet)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # so that no gain is 1 and no shift 0
        for module in baseline.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
    candidate = copy.deepcopy(baseline)
    name = faults()[fault](candidate)
    result = verify(baseline, candidate, pictures(32), weights="as-is", cells=on(device, CELLS))
    semantics = by_name(result)["cpu/float64"]
    assert result.verdict == semantics.verdict == "diverged"
    assert result.first_divergence == semantics.first_divergence
    assert {str(row.baseline or row.candidate).removesuffix("_1") for row in semantics.culprits} == {name}
    if fault == "eps-slightly":  # below what bfloat16 can tell
        assert by_name(result)[f"{device}/bfloat16"].verdict == "match"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("network", "every"),
    swept(itertools.product(["mixed", "plain", "training"], [1, 9]), [("plain", 9)]),
)
def test_no_benign_rewrite_is_flagged_in_any_cell(network: str, every: int, device: str) -> None:
    baseline = build(network, 0)
    names = [name for name in sorted(BENIGN) if applies(name, baseline)]
    for k, name in enumerate(names[::every]):
        made = variant(baseline, images(network, 2, 1), [name], random.Random(k))
        with made.around():
            options = {"weights": "as-is", **made.options, "cells": on(device, ("cpu/float32", *HALVES))}
            result = verify(copy.deepcopy(baseline), made.candidate, made.inputs, **options)
        assert {cell.name: cell.verdict for cell in result.cells if cell.verdict != "match"} == {}, name


def test_distances_are_measured_for_every_pair_and_equal_for_an_equal_candidate(resnet: nn.Module) -> None:
    result = verify(resnet, copy.deepcopy(resnet), pictures(), cells=HALVES[:1])
    found = [(row.op, row.accuracy) for row in by_name(result)["cpu/bfloat16"].layers]
    errors = [(op, each, (each.baseline_intrinsic or 0) / 2**-8) for op, each in found if each is not None]
    assert len(errors) == len(found)
    assert all(each.candidate_total == each.baseline_total for _, each, _ in errors)
    assert all(each.candidate_intrinsic == each.baseline_intrinsic for _, each, _ in errors)
    assert all(0.38 < own < 0.47 for op, _, own in errors if op == "conv2d")  # one rounding: 0.42
    assert {own for op, _, own in errors if op == "relu"} == {0}


def test_under_autocast_batch_norms_keep_their_statistics_in_float32(resnet: nn.Module) -> None:
    seen = set()

    class Telling(nn.BatchNorm2d):
        running_mean: Tensor

        def forward(self, x: Tensor) -> Tensor:
            seen.add((x.dtype, self.running_mean.dtype, self.weight.dtype))
            return super().forward(x)

    candidate = replaced(resnet, "bn1", Telling)
    result = verify(
        resnet, candidate, pictures(), cells=("cpu/bfloat16/autocast", "cpu/bfloat16"), semantics=False
    )
    assert result.verdict == "match"
    wide, half = torch.float32, torch.bfloat16
    assert seen == {
        (wide, wide, wide),
        (half, wide, wide),
        (half, half, half),
    }  # as recorded, and in the cells


def test_a_cell_that_cannot_run_is_skipped_and_leaves_the_verdict_open(resnet: nn.Module) -> None:
    class OnlyWide(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            if x.dtype is torch.bfloat16:
                raise RuntimeError("\"wide\" not implemented for 'BFloat16'")
            return super().forward(x)

    baseline = replaced(resnet, "conv1", OnlyWide)
    result = verify(
        baseline, copy.deepcopy(resnet), pictures(), cells=("cpu/bfloat16", "cpu/float32", "cpu/tf32")
    )
    found = by_name(result)
    assert found["cpu/bfloat16"].verdict == found["cpu/tf32"].verdict == "skipped"
    assert "conv1" in found["cpu/bfloat16"].reason
    assert found["cpu/float32"].verdict == "match"
    assert result.verdict == "inconclusive"
    assert "cpu/bfloat16 was skipped" in result.reason


def test_out_of_memory_halves_the_batch_and_says_so(resnet: nn.Module) -> None:
    class Small(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return super().forward(x)

    baseline = replaced(resnet, "layer1.0.conv1", Small)
    result = verify(baseline, copy.deepcopy(resnet), torch.randn(5, 3, 32, 32), batch_size=5)
    (cell,) = [cell for cell in result.cells if cell.role == "numerics"]
    assert cell.verdict == result.verdict == "match"
    assert cell.batch_size == 5
    assert cell.notes == ("out of memory with batches of 5: ran in batches of 3",)


def test_a_forced_lane_is_overwritten_where_it_lies_not_in_a_copy_on_another_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Net(nn.Module):
        gain = 1.0

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(5))

        def forward(self, x: Tensor) -> Tensor:
            for k, layer in enumerate(self.layers):
                x = torch.tanh(layer(x)) * (self.gain if k == 1 else 1.0)
            return x

    class Wrong(Net):
        gain = 1.01

    def moved(tensors: list[Tensor]) -> list[Tensor]:
        return [tensor.clone() for tensor in tensors]

    monkeypatch.setattr(passes, "_together", moved)
    torch.manual_seed(0)
    baseline, candidate = Net(), Wrong()
    candidate.load_state_dict(baseline.state_dict())
    exactly = verify(baseline, candidate, torch.randn(2, 8)).cells[0]
    assert [row.baseline for row in exactly.culprits] == ["mul_1"]
    behind = [row for row in exactly.layers if row.index > exactly.culprits[0].index]
    assert all(row.intrinsic is not None and row.intrinsic.nrmse == 0 for row in behind)


class Flagged(nn.Module):
    """Rounds once more on samples whose first number is positive."""

    more = False

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        if self.more:
            y = torch.where(x[:, :1] > 0, y * 3 / 3, y)
        return torch.tanh(y)


class Rounding(Flagged):
    more = True


def test_steps_are_measured_everywhere_if_any_sample_differs_and_on_a_few_pairs_if_none_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(oracle, "_FIRST", 2)
    monkeypatch.setattr(numerics, "summed_up", lambda *_: True)
    torch.manual_seed(0)
    baseline, candidate = Flagged(), Rounding()
    candidate.load_state_dict(baseline.state_dict())
    x = torch.randn(6, 8)
    x[:, 0] = torch.tensor(
        [-1.0, 1.0, 1.0, 1.0, 1.0, -1.0]
    )  # the first and the last, on which float64 runs, agree

    def known(other: nn.Module) -> list[bool]:
        rows = verify(baseline, other, x).cells[1].layers
        pairs = [row for row in rows if row.kind == "site" and row.accuracy is not None]
        return [row.accuracy is not None and row.accuracy.baseline_intrinsic is not None for row in pairs]

    assert all(known(candidate))
    assert known(copy.deepcopy(baseline)) == [True] * 2 + [False] * 4
