"""What ONNX Runtime has fused at each level is told with the program's sites that it makes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from verifier import verify
from verifier.forms.onnx.kernels import made_of
from verifier.forms.onnx.plan import Plan
from verifier.forms.onnx.runtime import Level, of
from verifier.graph.recording import record
from verifier.records import StageKernel

if TYPE_CHECKING:
    from pathlib import Path

    Kernels = list[StageKernel]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.one(x))
        x = torch.relu(x + self.two(x))
        found: torch.Tensor = self.head(x.mean((2, 3)))
        return found


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kernels]:
    torch.manual_seed(0)
    model, x = Residual().eval(), torch.randn(2, 3, 8, 8)
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
    form = of(path)
    graph = record(form.program, (x,), {})
    return {
        stage.name: [
            StageKernel(
                name=each.name,
                operator=each.operator,
                sites=tuple(graph.sites[site].name for site in each.sites),
                dtype=each.dtype,
            )
            for each in stage.kernels(graph)
        ]
        for stage in form.stages
        if isinstance(stage, Level)
    }


def fused(kernels: Kernels) -> dict[str, tuple[str, ...]]:
    return {kernel.operator: kernel.sites for kernel in kernels if len(kernel.sites) > 1}


def test_a_verification_tells_the_kernels_of_what_is_shipped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Residual().eval(), torch.randn(2, 3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(model, (x,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    (stage,) = verify(model, str(tmp_path / "net.onnx"), x).stages
    assert stage.name == "all"
    assert stage.kernels[-1].sites == ("head",)


def test_without_optimisation_a_kernel_makes_one_site(stages: dict[str, Kernels]) -> None:
    assert fused(stages["disable_all"]) == {}
    assert [kernel.sites for kernel in stages["disable_all"]] == [
        ("one",), ("relu",), ("two",), ("add",), ("relu_1",), ("mean",), ("head",)
    ]  # fmt: skip


def test_what_extended_fuses_is_one_kernel(stages: dict[str, Kernels]) -> None:
    assert fused(stages["extended"]) == {"com.microsoft.FusedConv": ("one", "relu")}


def test_blocked_convolutions_make_what_they_add_and_activate(stages: dict[str, Kernels]) -> None:
    made = [k.sites for k in stages["all"] if k.operator.startswith("com.microsoft.nchwc.Conv")]
    if not made:
        pytest.skip("this CPU has no blocked layout")
    assert made == [("one", "relu"), ("two", "add", "relu_1")]


def test_no_site_is_made_twice_and_none_is_lost(stages: dict[str, Kernels]) -> None:
    every = {site for kernel in stages["disable_all"] for site in kernel.sites}
    for kernels in stages.values():
        sites = [site for kernel in kernels for site in kernel.sites]
        assert len(sites) == len(set(sites))
        assert set(sites) == every


def test_kernels_tell_the_dtype_that_they_compute_in(stages: dict[str, Kernels]) -> None:
    assert {kernel.dtype for kernels in stages.values() for kernel in kernels} == {"float32"}


def test_a_kernel_between_casts_computes_in_what_it_is_given(tmp_path: Path) -> None:
    """Where the runtime has no half-precision kernel it puts casts around, and leaves out those between."""
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float16)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
            helper.make_node("Softplus", ["y"], ["z"], "soft"),
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT16, [2, 4])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT16, [2, 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "half.onnx")

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.from_numpy(weight))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.softplus(x @ self.w)

    found = verify(Half(), str(tmp_path / "half.onnx"), torch.randn(2, 4).half(), cells=("cpu/float16",))
    (kernel,) = found.stages[0].kernels
    assert (kernel.dtype, len(kernel.sites)) == ("float32", 2)
    assert kernel.operator == "Cast + MatMul + Softplus + Cast"  # that of the weights is folded


def test_values_that_have_other_names_belong_to_the_next_that_is_known() -> None:
    info = helper.make_tensor_value_info
    shape = [2, 2]
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["c"]),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(nodes, "g", [info("x", kind, shape)], [info("c", kind, shape)])
    plan = Plan(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "net.onnx")
    optimised = [
        helper.make_node("Relu", ["x"], ["other"]),
        helper.make_node("ExpNeg", ["other"], ["c"], domain="mine"),
    ]
    (made,) = made_of(plan, optimised)
    assert (made.operator, made.lines) == ("Relu + mine.ExpNeg", (1, 2, 3))
