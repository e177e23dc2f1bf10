"""Norms that exporters fold into convolutions: none is a difference, and a fault in one has its cause."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import onnx
import openvino
import pytest
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional as F

from verifier import verify
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*legacy TorchScript-based ONNX.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

# The convolution whose norm is folded, and of how many dimensions what it reads is.
KINDS: dict[str, tuple[Callable[[], Any], int]] = {
    "dense": (lambda: nn.Conv2d(8, 8, 3, padding=1, bias=False), 2),
    "grouped": (lambda: nn.Conv2d(8, 16, 3, padding=1, groups=4), 2),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), 2),
    "transposed": (lambda: nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, bias=False), 2),
    "transposed, grouped": (lambda: nn.ConvTranspose2d(8, 16, 3, padding=1, groups=4, bias=False), 2),
    "1d": (lambda: nn.Conv1d(8, 8, 3, padding=1, groups=2, bias=False), 1),
    "3d": (lambda: nn.Conv3d(8, 8, 3, padding=1, bias=False), 3),
}
ENDS = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}
MANY = [  # some of a kind always run
    pytest.param(kind, marks=() if kind in ("grouped", "transposed, grouped") else pytest.mark.thorough)
    for kind in KINDS
]
EXPORTERS = ("dynamo", "torchscript", "openvino", "openvino in float16")
CONVOLUTION, NORM = "2", "3"


def settled(norm: Any) -> Any:
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias, 0, 0.2)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def network(kind: str) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    make, dimensions = KINDS[kind]
    layer, norm = ENDS[dimensions]
    folded = make()
    model = nn.Sequential(
        layer(3, 8, 1),
        nn.ReLU(),
        folded,
        settled(norm(folded.out_channels)),
        nn.ReLU(),
        layer(folded.out_channels, 4, 1),
    )
    return model.eval(), torch.randn(2, 3, *[7] * dimensions)


def exported(model: nn.Module, x: Tensor, exporter: str, folder: Path) -> Any:
    if exporter.startswith("openvino"):
        path = folder / "net.xml"
        converted = openvino.convert_model(model, example_input=x)
        openvino.save_model(converted, path, compress_to_fp16=exporter.endswith("float16"))
        return str(path)
    path = folder / "net.onnx"
    torch.onnx.export(model, (x,), path, dynamo=exporter == "dynamo", verbose=False)
    return onnx.load(path)


def told(model: nn.Module, candidate: Any, x: Tensor) -> list[tuple[str | None, tuple[str, ...], bool]]:
    """Where the culprits are, with the codes of their causes and whether those were confirmed."""
    found = verify(model, candidate, x)
    return [
        (row.baseline, (row.cause.code, *row.cause.also), row.cause.confirmed)
        for row in found.culprits
        if row.cause is not None
    ]


@pytest.mark.parametrize("exporter", EXPORTERS[:3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folded_norm_is_no_difference(kind: str, exporter: str, tmp_path: Path) -> None:
    model, x = network(kind)
    found = verify(model, exported(model, x, exporter, tmp_path), x)
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")


def row(convolution: Any, norm: Any, channel: int = 1) -> None:
    convolution.weight.data[channel] *= 1.05


def shift(convolution: Any, norm: Any) -> None:
    norm.bias.data[3] += 0.1


def epsilon(convolution: Any, norm: Any) -> None:
    norm.eps = 1e-3


def dilation(convolution: Any, norm: Any) -> None:
    convolution.dilation = convolution.padding = (2,) * len(convolution.kernel_size)


def stride(convolution: Any, norm: Any) -> None:
    convolution.stride = (3,) * len(convolution.kernel_size)


FAULTS: dict[Callable[[Any, Any], None], tuple[str, ...]] = {
    row: ("weight-perturbed",),
    shift: ("bias-perturbed",),
    epsilon: ("weight-perturbed", "bias-perturbed"),
    dilation: ("{}-padding", "{}-dilation"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", MANY)
def test_a_fault_in_a_fold_has_its_cause(
    kind: str, fault: Callable[[Any, Any], None], tmp_path: Path
) -> None:
    model, x = network(kind)
    wrong = copy.deepcopy(model)
    fault(wrong[2], wrong[3])
    family = "conv-transpose" if kind.startswith("transposed") else "conv"
    codes = tuple(code.format(family) for code in FAULTS[fault])
    assert told(model, exported(wrong, x, "dynamo", tmp_path), x) == [(NORM, codes, True)]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", MANY)
def test_it_has_it_where_the_fold_is_the_baseline(
    kind: str, fault: Callable[[Any, Any], None], tmp_path: Path
) -> None:
    model, x = network(kind)
    wrong = copy.deepcopy(model)
    fault(wrong[2], wrong[3])
    baseline = exported(model, x, "dynamo", tmp_path)
    assert verify(baseline, model, x).verdict is Verdict.MATCH
    (culprit,) = verify(baseline, wrong, x).culprits
    assert culprit.cause is not None
    family = "conv-transpose" if kind.startswith("transposed") else "conv"
    codes = tuple(code.format(family) for code in FAULTS[fault])
    assert (culprit.candidate, (culprit.cause.code, *culprit.cause.also)) == (NORM, codes)
    assert culprit.cause.confirmed
    assert (
        fault is dilation
    ) or culprit.cause.remedy == "load the tensors that were folded into the baseline's"


@pytest.mark.parametrize("kind", MANY)
def test_another_stride_of_a_folded_convolution_is_told(kind: str, tmp_path: Path) -> None:
    model, x = network(kind)
    wrong = copy.deepcopy(model)
    stride(wrong[2], wrong[3])
    family = "conv-transpose" if kind.startswith("transposed") else "conv"
    candidate = exported(wrong, x, "dynamo", tmp_path)
    (culprit,) = told(model, candidate, x)
    assert culprit[0] in (CONVOLUTION, NORM)
    assert culprit[1:] == ((f"{family}-stride",), True)


@pytest.mark.parametrize("kind", ["dense", "grouped", "depthwise", "transposed, grouped"])
@pytest.mark.parametrize("exporter", EXPORTERS[1:3])
def test_other_exporters_folds_are_looked_into_alike(kind: str, exporter: str, tmp_path: Path) -> None:
    model, x = network(kind)
    wrong = copy.deepcopy(model)
    row(wrong[2], wrong[3])
    site = (
        CONVOLUTION if (exporter, kind) == ("torchscript", "transposed, grouped") else NORM
    )  # not folded there
    assert told(model, exported(wrong, x, exporter, tmp_path), x) == [(site, ("weight-perturbed",), True)]


@pytest.mark.parametrize("kind", ["dense", "grouped", "depthwise", "transposed, grouped"])
def test_folds_that_are_kept_in_float16_are_told_as_rounded(kind: str, tmp_path: Path) -> None:
    model, x = network(kind)
    rounded = [(site, ("weight-rounded", "bias-rounded"), True) for site in ("0", NORM, "5")]
    assert told(model, exported(model, x, "openvino in float16", tmp_path), x) == rounded


def test_a_channel_that_is_wrong_besides_is_told_among_rounded_ones(tmp_path: Path) -> None:
    model, x = network("grouped")
    wrong = copy.deepcopy(model)
    row(wrong[2], wrong[3], 5)
    found = verify(model, exported(wrong, x, "openvino in float16", tmp_path), x)
    (cause,) = (each.cause for each in found.culprits if each.baseline == NORM)
    assert cause is not None
    assert (cause.code, cause.confirmed) == ("weight-perturbed", True)
    assert "is rounded to float16 and differs in 1 of 16 output channels only (5)" in cause.summary


def test_a_bias_that_is_missing_is_the_cause_before_what_is_rounded(tmp_path: Path) -> None:
    model, x = network("dense")
    wrong: Any = copy.deepcopy(model)
    wrong[5].bias = None
    assert told(model, exported(wrong, x, "openvino in float16", tmp_path), x) == [
        ("0", ("weight-rounded", "bias-rounded"), True),
        (NORM, ("weight-rounded", "bias-rounded"), True),
        ("5", ("bias-missing", "weight-rounded"), True),
    ]


@pytest.mark.parametrize("kind", ["dense", "grouped"])
def test_padding_on_one_side_of_a_folded_convolution_is_told(kind: str, tmp_path: Path) -> None:
    model, x = network(kind)
    candidate = exported(model, x, "dynamo", tmp_path)
    node = [each for each in candidate.graph.node if each.op_type == "Conv"][1]
    kept = [each for each in node.attribute if each.name != "pads"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("pads", [0, 0, 2, 2])])
    assert told(model, candidate, x) == [(NORM, ("conv-padding",), True)]


def test_a_norm_that_was_not_folded_in_is_missing(tmp_path: Path) -> None:
    model, x = network("grouped")
    wrong = copy.deepcopy(model)
    wrong[3] = nn.Identity()
    assert told(model, exported(wrong, x, "dynamo", tmp_path), x) == [(NORM, ("batchnorm-missing",), True)]


class Squeezed(nn.Module):
    """A block that weighs its channels by what they hold in the mean, behind a folded norm."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = settled(nn.BatchNorm2d(8))
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)
        self.bn2 = settled(nn.BatchNorm2d(8))
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures, (N, 3, H, W), to (N, 5)."""
        x = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        y = y * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1)))))
        found: Tensor = self.fc(F.relu(y + x).mean((2, 3)))
        return found


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("groups", [1, 4, 8])
def test_a_wire_that_was_moved_behind_a_fold_is_told_where_it_is_read(
    groups: int, exporter: str, tmp_path: Path
) -> None:
    model, x = Squeezed(groups).eval(), torch.randn(4, 3, 8, 8)
    candidate = exported(model, x, exporter, tmp_path)
    assert verify(model, candidate, x).verdict is Verdict.MATCH
    mean = next(each for each in candidate.graph.node if each.op_type in ("ReduceMean", "GlobalAveragePool"))
    mean.input[0] = next(each for each in candidate.graph.node if each.op_type == "Relu").output[0]
    found = verify(model, candidate, x)
    (culprit,) = found.culprits
    assert culprit.baseline == "adaptive_avg_pool2d"
    assert culprit.cause is not None
    assert (culprit.cause.code, culprit.cause.confirmed) == ("wiring-different", True)
    assert re.search(r"reads relu where (bn2|conv2) is right", culprit.cause.summary)


def test_another_operator_behind_a_fold_is_not_told_as_weights(tmp_path: Path) -> None:
    model, x = Squeezed(4).eval(), torch.randn(4, 3, 8, 8)
    candidate = exported(model, x, "dynamo", tmp_path)
    (added,) = (each for each in candidate.graph.node if each.op_type == "Add")
    added.op_type = "Sub"
    assert told(model, candidate, x) == [("add", ("operator-different",), True)]
