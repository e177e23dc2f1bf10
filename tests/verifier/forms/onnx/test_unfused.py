"""What the runtime joins is taken apart again: the parts give what the whole gives, and are compared one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from verifier import Verdict, verify
from verifier.cells import ORACLE
from verifier.forms.onnx.plan import Plan
from verifier.forms.onnx.program import OnnxProgram
from verifier.graph import record
from verifier.models.casting import running

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = np.random.default_rng(0)


def drawn(*shape: int) -> np.ndarray:
    return NUMBERS.standard_normal(shape).astype(np.float32)


IMAGE, ROWS, KERNEL = drawn(1, 2, 5, 5), drawn(2, 3, 4), drawn(3, 2, 3, 3)
CASES: dict[str, tuple[str, list[np.ndarray], dict[str, Any], list[str]]] = {
    "convolution and relu": (
        "FusedConv",
        [IMAGE, KERNEL, drawn(3)],
        {"activation": "Relu"},
        ["conv2d", "relu"],
    ),
    "convolution and a slope": (
        "FusedConv",
        [IMAGE, KERNEL],
        {"activation": "LeakyRelu", "activation_params": [0.2], "pads": [1, 1, 1, 1]},
        ["conv2d", "leaky_relu"],
    ),
    "convolution and bounds": (
        "FusedConv",
        [IMAGE, KERNEL, drawn(3)],
        {"activation": "Clip", "activation_params": [-0.5, 0.7], "strides": [2, 2]},
        ["conv2d", "clamp"],
    ),
    "convolution, sum and relu": (
        "FusedConv",
        [IMAGE, KERNEL, drawn(3), drawn(1, 3, 3, 3)],
        {"activation": "Relu"},
        ["conv2d", "add", "relu"],
    ),
    "matrix and tanh": (
        "FusedGemm",
        [drawn(3, 4), drawn(5, 4), drawn(5)],
        {"transB": 1, "activation": "Tanh"},
        ["linear", "tanh"],
    ),
    "product of turned matrices": (
        "FusedMatMul",
        [ROWS, ROWS],
        {"alpha": 0.25, "transB": 1},
        ["matmul"],
    ),
    "sum and norm": (
        "SkipLayerNormalization",
        [ROWS, drawn(2, 3, 4), drawn(4), drawn(4)],
        {},
        ["add", "layer_norm"],
    ),
    "sum of three and norm": (
        "SkipLayerNormalization",
        [ROWS, drawn(2, 3, 4), drawn(4), drawn(4), drawn(4)],
        {"epsilon": 1e-3},
        ["add", "add", "layer_norm"],
    ),
    "sum and norm of squares": (
        "SkipSimplifiedLayerNormalization",
        [ROWS, drawn(2, 3, 4), drawn(4)],
        {"epsilon": 1e-3},
        ["add", "rms_norm"],
    ),
    "bias and gelu": ("BiasGelu", [ROWS, drawn(4)], {}, ["add", "gelu"]),
    "bias and fast gelu": ("FastGelu", [ROWS, drawn(4)], {}, ["add", "gelu"]),
    "fast gelu": ("FastGelu", [ROWS], {}, ["gelu"]),
    "quick gelu": ("QuickGelu", [ROWS], {"alpha": 1.7}, ["mul", "sigmoid", "mul"]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_parts_give_what_the_whole_does(case: str) -> None:
    op, given, attributes, ops = CASES[case]
    names = [f"x{k}" for k in range(len(given))]
    node = helper.make_node(op, names, ["y"], "joined", domain="com.microsoft", **attributes)
    inputs = [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, list(given[0].shape))]
    held = [numpy_helper.from_array(value, name) for name, value in zip(names[1:], given[1:], strict=True)]
    made = helper.make_graph([node], "joined", inputs, [onnx.ValueInfoProto(name="y")], held)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=imports, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [wanted] = session.run(None, {names[0]: given[0]})
    x = torch.from_numpy(given[0])
    program = OnnxProgram(Plan(model, "model.onnx"))
    assert [site.op for site in record(program, (x,), {}).sites] == ops
    np.testing.assert_allclose(program(x).numpy(), wanted, rtol=1e-5, atol=1e-6)
    with torch.no_grad(), running(ORACLE):
        exact = program.double()(x.double())
    np.testing.assert_allclose(exact.numpy(), wanted, rtol=1e-5, atol=1e-6)


class Rooted(nn.Module):
    """A norm by the root of the mean square, an operator that the runtime takes for one of ONNX's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.gain = nn.Linear(4, 4), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) to the same shape."""
        y = self.layer(x)
        made: Tensor = self.gain * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6))
        return made


@pytest.mark.filterwarnings("ignore")  # the exporter warns of much
def test_a_file_with_operators_that_the_runtime_alone_knows_is_read(tmp_path: Path) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.onnx.export(Rooted(), (x,), tmp_path / "net.onnx", dynamo=False, verbose=False)
    file = optimised(tmp_path / "net.onnx")
    assert "SimplifiedLayerNormalization" in [node.op_type for node in onnx.load(file).graph.node]
    assert verify(Rooted(), file, x).verdict is Verdict.MATCH


def optimised(file: Path) -> str:
    """The file that the runtime makes of another."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    made = str(file.parent / "optimised.onnx")
    options.optimized_model_filepath = made
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return made


class Net(nn.Module):
    """A convolution whose activation the runtime joins with it, and a norm of a sum."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.slope = nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm(4), slope

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 4, 4) to (N, 16, 4)."""
        y = F.leaky_relu(self.conv(x), self.slope).flatten(2).mT
        made: Tensor = self.norm(y + y.roll(1, 1)).sigmoid()
        return made


@pytest.mark.filterwarnings("ignore")  # the exporter warns of much
@pytest.mark.parametrize(("slope", "verdict"), [(0.1, Verdict.MATCH), (0.11, Verdict.DIVERGED)])
def test_a_file_that_the_runtime_has_optimised_is_compared_part_by_part(
    slope: float, verdict: Verdict, tmp_path: Path
) -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.onnx.export(Net(slope), (x,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    found = verify(Net(0.1), optimised(tmp_path / "net.onnx"), x)
    assert found.verdict is verdict
    assert [row.baseline for row in found.culprits] == (["leaky_relu"] if verdict is Verdict.DIVERGED else [])
