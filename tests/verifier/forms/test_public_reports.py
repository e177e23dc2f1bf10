"""Public reports of exported and compiled models that differ, rebuilt small: verdict, stage, site and cause.

What later releases of the exporters mended is put back into the graph as it was reported.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from verifier import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PYTORCH = "https://github.com/pytorch/pytorch/issues/"


class Behind(nn.Module):
    """An operator behind a convolution."""

    def __init__(self, operator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return self.operator(self.conv(x))


def exported(model: nn.Module, x: Tensor, path: Path, opset: int = 20) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(model, (x,), path / "net.onnx", dynamo=True, verbose=False, opset_version=opset)
    return onnx.load(path / "net.onnx")


def changed(model: onnx.ModelProto, op: str, **attributes: object) -> onnx.ModelProto:
    """The model with other attributes at its nodes of an operator; None leaves one out."""
    for node in model.graph.node:
        if node.op_type == op:
            kept = [each for each in node.attribute if each.name not in attributes]
            del node.attribute[:]
            node.attribute.extend(kept)
            for name, value in attributes.items():
                if value is not None:
                    node.attribute.append(helper.make_attribute(name, value))
    return model


def of_opset(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    for each in model.opset_import:
        if each.domain == "":
            each.version = version
    return model


REPORTED: dict[str, tuple[Callable[[Tensor], Tensor], str, dict[str, Any], str, str]] = {
    f"{PYTORCH}183523": (
        lambda x: F.interpolate(x, size=(1, 1), mode="bilinear", align_corners=False),
        "Resize",
        {"coordinate_transformation_mode": "pytorch_half_pixel"},
        "interpolate",
        "interpolate-coordinate-transformation-mode",
    ),
    "https://github.com/microsoft/onnxruntime/issues/28310": (
        lambda x: F.interpolate(x, size=(16, 16), mode="nearest"),
        "Resize",
        {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"},
        "interpolate",
        "interpolate-settings",
    ),
    f"{PYTORCH}13934": (
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        "AveragePool",
        {"count_include_pad": None},
        "avg_pool2d",
        "avgpool-count-include-pad",
    ),
    f"{PYTORCH}99424": (
        lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
        "AveragePool",
        {"ceil_mode": None},
        "avg_pool2d",
        "avgpool-ceil-mode",
    ),
    "https://github.com/apache/tvm/issues/18750": (
        lambda x: F.gelu(x, approximate="tanh"),
        "Gelu",
        {"approximate": None},
        "gelu",
        "gelu-approximate",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("link", REPORTED)
def test_a_setting_that_the_translation_gets_wrong_is_told(link: str, tmp_path: Path) -> None:
    operator, op, attributes, site, code = REPORTED[link]
    torch.manual_seed(0)
    model, x = Behind(operator).eval(), torch.randn(2, 3, 10, 10)
    found = verify(model, changed(exported(model, x, tmp_path), op, **attributes), x)
    (culprit,) = found.culprits
    assert culprit.cause is not None
    assert (culprit.baseline, culprit.stage) == (site, "translation")
    assert (culprit.cause.code, culprit.cause.status) == (code, "confirmed")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_operator_that_meant_something_else_in_an_older_opset_is_told(tmp_path: Path) -> None:
    """https://github.com/apache/tvm/issues/19420: Softmax over all dimensions from its axis on, before opset 13."""
    torch.manual_seed(0)
    model, x = Behind(lambda y: torch.softmax(y, 1)).eval(), torch.randn(2, 3, 4, 4)
    older = of_opset(changed(exported(model, x, tmp_path, 18), "Softmax", axis=1), 11)
    (culprit,) = verify(model, older, x).culprits
    assert (culprit.baseline, culprit.stage) == ("softmax", "translation")


class Divided(nn.Module):
    """A layer whose result is multiplied by a quotient of integers, rounded down."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, number: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) * torch.div(number, 3, rounding_mode="floor").to(x.dtype)
        return out


def test_a_division_of_integers_that_rounds_to_zero_is_told() -> None:
    """https://github.com/pytorch/pytorch/issues/78442: floor division was exported as ONNX's Div."""
    torch.manual_seed(0)
    model = Divided().eval()
    tensors = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "layer.weight", "layer.bias"], ["product"], transB=1),
            helper.make_node("Div", ["number", "three"], ["quotient"]),
            helper.make_node("Cast", ["quotient"], ["factor"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["product", "factor"], ["out"]),
        ],
        "divided",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, [3, 4]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [3, 4])],
        [numpy_helper.from_array(np.array(3), "three")]
        + [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    program = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (culprit,) = verify(model, program, (torch.arange(-6, 6).reshape(3, 4), torch.randn(3, 4))).culprits
    assert (culprit.baseline, culprit.stage) == ("div", "translation")
    assert culprit.cause is not None
    assert culprit.cause.status == "confirmed"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_the_runtime_has_mended_since_matches(tmp_path: Path) -> None:
    """https://github.com/pytorch/pytorch/issues/183528: windows beyond the padding, in a mean that counts it."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    model = Behind(lambda y: F.avg_pool2d(y, 3, 2, 1, ceil_mode=True, count_include_pad=True)).eval()
    plain = Behind(lambda y: F.avg_pool2d(y, 3, 2, 1)).eval()
    plain.load_state_dict(model.state_dict())
    reported = changed(exported(plain, x, tmp_path), "AveragePool", ceil_mode=1, count_include_pad=1)
    assert verify(model, reported, x).verdict == "match"


class Inverse(nn.Module):
    """https://github.com/pytorch/pytorch/issues/150165: what compiled code computes is nearer to float64."""

    def forward(self, x: Tensor) -> Tensor:
        wide = F.interpolate(x, size=(16, 16), mode="bilinear", align_corners=True)
        return torch.inverse(wide + 3 * torch.eye(16))


class Stacked(nn.Module):
    """https://github.com/pytorch/pytorch/issues/185702: slices that are stacked, in compiled code."""

    def forward(self, wide: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
        x = wide[..., 16]
        rate = F.softplus(x) + 1e-4
        parts = (
            torch.special.gammaln(rate + alpha),
            torch.special.erf(x * alpha),
            torch.special.xlogy(rate, y),
        )
        return torch.stack(parts, dim=-1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "shapes"), [(Inverse, [(1, 3, 8, 8)]), (Stacked, [(4, 8, 32), (4, 8), (8,)])]
)
def test_compiled_code_that_other_tools_alarm_for_matches(
    model: type[nn.Module], shapes: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    inputs = tuple(torch.rand(shape) for shape in shapes)
    found = verify(model().eval(), torch.compile(model().eval()), inputs, batch_dim=None)  # type: ignore[arg-type]
    assert (found.verdict, found.reason) == ("match", "")
    assert [each.name for each in found.stages] == ["inductor"]
