"""In which dtype an ONNX file is judged: the one that its nodes compute in, whatever its weights are kept in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from verifier import verify
from verifier.errors import CannotRunError
from verifier.forms.onnx.plan import Plan
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


class Net(nn.Module):
    """(N, 16) to (N, 8); `rounded` says which layers' weights are numbers of half precision."""

    def __init__(self, rounded: Collection[str] = "ab") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(16, 32)
        self.b = nn.Linear(32, 8)
        for name, each in self.named_parameters():
            if name[0] in rounded:
                each.data = each.data.half().float()

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.b(torch.relu(self.a(x)))
        return made


X = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))


def file(kept: str, computed: str, *, given: int = SINGLE, wrong: bool = False, rounded: str = "ab") -> Any:
    """The network as a file.

    Args:
        kept: The layers whose weights are kept in half precision.
        computed: Those that are computed in it.
        given: The dtype of what it takes and returns.
        wrong: Whether it lacks its activation.
        rounded: As `Net` has it.
    """
    nodes, held = [], []
    value, kind = "x", given
    for layer in "ab":
        wanted = HALF if layer in computed else SINGLE
        own = HALF if layer in kept else SINGLE
        if kind != wanted:
            nodes.append(helper.make_node("Cast", [value], [f"{layer}.x"], f"{layer}.in", to=wanted))
            value, kind = f"{layer}.x", wanted
        names = []
        for name, tensor in Net(rounded).get_submodule(layer).named_parameters():
            array = tensor.detach().numpy().astype(np.float16 if own == HALF else np.float32)
            held.append(numpy_helper.from_array(array, f"{layer}.{name}"))
            names.append(f"{layer}.{name}")
            if own != wanted:
                nodes.append(helper.make_node("Cast", names[-1:], [f"{names[-1]}.cast"], to=wanted))
                names[-1] += ".cast"
        nodes.append(helper.make_node("Gemm", [value, *names], [f"{layer}.y"], layer, transB=1))
        value = f"{layer}.y"
        if layer == "a" and not wrong:
            nodes.append(helper.make_node("Relu", [value], ["relu"], "relu"))
            value = "relu"
    if kind != given:
        nodes.append(helper.make_node("Cast", [value], ["y"], "out", to=given))
    else:
        nodes.append(helper.make_node("Identity", [value], ["y"], "out"))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", given, [None, 16])], [info("y", given, [None, 8])], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_weights_that_are_only_kept_in_half_precision_are_judged_in_single() -> None:
    found = verify(Net(), file(kept="ab", computed=""), X)
    assert (found.verdict, [cell.name for cell in found.cells]) == (
        Verdict.MATCH,
        ["cpu/float64", "cpu/float32"],
    )
    (stage,) = found.stages
    assert {kernel.dtype for kernel in stage.kernels} == {"float32"}
    with pytest.raises(CannotRunError, match="an ONNX model in float32 on the CPU: ask for --dtype float32"):
        verify(Net(), file(kept="ab", computed=""), X, cells=("cpu/float16",))


def test_what_computes_in_half_precision_is_judged_in_it_whatever_it_takes() -> None:
    for given in (SINGLE, HALF):
        found = verify(Net(), file(kept="ab", computed="ab", given=given), X, cells=("cpu/float16",))
        assert (found.verdict, found.reason) == (Verdict.MATCH, "")
        with pytest.raises(CannotRunError, match="ask for --dtype float16"):
            verify(Net(), file(kept="ab", computed="ab", given=given), X)


@pytest.mark.parametrize("half", ["a", "b"])
def test_what_computes_in_both_is_judged_in_half_precision_and_says_so(half: str) -> None:
    found = verify(Net(half), file(kept=half, computed=half, rounded=half), X, cells=("cpu/float16",))
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    assert found.notes[0] == (
        "the ONNX model computes in float16 and in other dtypes: it is judged by the rounding of float16"
    )
    assert [cell.verdict for cell in found.cells] == [Verdict.MATCH, Verdict.MATCH]


@pytest.mark.parametrize(("kept", "computed", "cell"), [
    ("ab", "", "cpu/float32"), ("ab", "ab", "cpu/float16"), ("a", "a", "cpu/float16"), ("b", "b", "cpu/float16"),
])  # fmt: skip
def test_a_fault_shows_in_each_of_them(kept: str, computed: str, cell: str) -> None:
    found = verify(Net(kept), file(kept, computed, wrong=True, rounded=kept), X, cells=(cell,))
    assert found.verdict is Verdict.DIVERGED


def test_a_weight_that_half_precision_has_rounded_is_told() -> None:
    found = verify(Net(rounded=""), file(kept="ab", computed="", rounded=""), X)
    assert found.verdict is Verdict.DIVERGED
    assert {row.cause.code for row in found.culprits if row.cause} == {"weight-rounded"}


def test_a_table_in_half_precision_that_is_only_looked_up_narrows_nothing() -> None:
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["row"]),
        helper.make_node("Cast", ["row"], ["wide"], to=SINGLE),
        helper.make_node("MatMul", ["wide", "w"], ["y"]),
    ]
    random = np.random.default_rng(0)
    table, weight = random.standard_normal((10, 4)), random.standard_normal((4, 3))
    held = [
        numpy_helper.from_array(table.astype(np.float16), "table"),
        numpy_helper.from_array(weight.astype(np.float32), "w"),
    ]
    graph = helper.make_graph(
        nodes, "g", [info("i", TensorProto.INT64, [5])], [info("y", SINGLE, [5, 3])], held
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert (Plan(model, "net.onnx").native, Plan(model, "net.onnx").mixed) == (torch.float32, False)

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.from_numpy(table).half().float())
            self.w = nn.Parameter(torch.from_numpy(weight).float())

        def forward(self, i: Tensor) -> Tensor:
            return nn.functional.embedding(i, self.table) @ self.w

    found = verify(Lookup(), model, torch.tensor([1, 4, 0, 9, 2]))
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    assert [stage.verdict for stage in found.stages] == [Verdict.MATCH]


def test_what_takes_half_precision_is_judged_in_it_whatever_it_computes_in() -> None:
    found = verify(
        Net(rounded=""), file(kept="", computed="", given=HALF, rounded=""), X, cells=("cpu/float16",)
    )
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    with pytest.raises(CannotRunError, match="ask for --dtype float16"):
        verify(Net(rounded=""), file(kept="", computed="", given=HALF, rounded=""), X)


def test_a_constant_that_is_returned_or_read_by_others_stays() -> None:
    array = numpy_helper.from_array(np.ones(3, dtype=np.float16), "c")
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["c"], ["wide"], to=SINGLE),
        helper.make_node("Add", ["x", "wide"], ["y"]),
    ]
    outputs = [info("y", SINGLE, [3]), info("wide", SINGLE, [3])]
    graph = helper.make_graph(nodes, "g", [info("x", SINGLE, [3])], outputs, [array])
    plan = Plan(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "net.onnx")
    assert [planned.step.node.op for planned in plan.steps] == ["Cast", "Add"]
    assert onnx.TensorProto.FLOAT16 in plan.floats
