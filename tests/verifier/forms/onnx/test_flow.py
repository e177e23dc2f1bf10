"""Branches, loops and sequences run as Python runs them: what is inside is met operator by operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from verifier.errors import CannotRunError
from verifier.forms.onnx.plan import Plan
from verifier.forms.onnx.program import OnnxProgram
from verifier.graph import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

FLOAT = TensorProto.FLOAT


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[str | onnx.ValueInfoProto] = (),
    outputs: Sequence[str | onnx.ValueInfoProto] = ("y",),
    held: dict[str, Any] | None = None,
) -> onnx.GraphProto:
    """A graph of floats, but for inputs that say what else they are."""
    return helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info(each, FLOAT, None) if isinstance(each, str) else each
            for each in inputs
        ],
        [onnx.ValueInfoProto(name=each) if isinstance(each, str) else each for each in outputs],
        [numpy_helper.from_array(np.array(value), name) for name, value in (held or {}).items()],
    )


def model(made: onnx.GraphProto) -> onnx.ModelProto:
    """A model of a graph."""
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def both(given: onnx.ModelProto, *inputs: Tensor) -> tuple[list[Tensor], list[np.ndarray]]:
    """What the program gives, and what the runtime gives for the whole model."""
    found = OnnxProgram(Plan(given, "model.onnx"))(*inputs)
    session = onnxruntime.InferenceSession(given.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    wanted = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    return list(found) if isinstance(found, tuple) else [found], wanted


def branching() -> onnx.ModelProto:
    """Twice x where its sum is positive, else its exponential times a table of the branch."""
    then = graph([helper.make_node("Mul", ["x", "two"], ["a"])], outputs=("a",), held={"two": np.float32(2)})
    other = graph(
        [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("Mul", ["e", "table"], ["b"])],
        outputs=("b",),
        held={"table": np.arange(3, dtype=np.float32)},
    )
    return model(
        graph(
            [
                helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
                helper.make_node("Greater", ["sum", "zero"], ["positive"]),
                helper.make_node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
            ],
            ["x"],
            held={"zero": np.float32(0)},
        )
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_branch_that_is_taken_runs(sign: float) -> None:
    found, wanted = both(branching(), sign * torch.arange(1.0, 4.0))
    np.testing.assert_array_equal(found[0].numpy(), wanted[0])


def test_what_a_branch_computes_is_met_node_by_node() -> None:
    program = OnnxProgram(Plan(branching(), "model.onnx"))
    assert [name for name, _ in program.named_parameters()] == ["table"]
    ops = [site.op for site in record(program, (-torch.ones(3),), {}).sites]
    assert ops == ["sum", "gt", "exp", "mul"]
    assert [site.op for site in record(program, (torch.ones(3),), {}).sites] == ["sum", "gt", "mul"]


def test_nodes_inside_have_numbers_of_their_own() -> None:
    program = OnnxProgram(Plan(branching(), "model.onnx"))
    sites = record(program, (-torch.ones(3),), {}).sites
    lines = [site.source.line for site in sites if site.source is not None]
    assert len(set(lines)) == len(lines) == 4


def looping() -> onnx.ModelProto:
    """Four times x is multiplied by a step and the number of the turn is added, until the sum is large."""
    body = graph(
        [
            helper.make_node("Mul", ["state", "step"], ["scaled"]),
            helper.make_node("Cast", ["turn"], ["number"], to=FLOAT),
            helper.make_node("Add", ["scaled", "number"], ["next"]),
            helper.make_node("ReduceSum", ["next"], ["sum"], keepdims=0),
            helper.make_node("Less", ["sum", "large"], ["go"]),
            helper.make_node("Identity", ["next"], ["seen"]),
        ],
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            "state",
        ],
        ("go", "next", "seen"),
        {"large": np.float32(60)},
    )
    loop = helper.make_node("Loop", ["count", "", "x"], ["last", "all"], body=body)
    held = {"count": np.array(4), "step": np.full(3, 1.5, dtype=np.float32)}
    return model(graph([loop], ["x"], ("last", "all"), held))


@pytest.mark.parametrize(("start", "turns"), [(1.0, 4), (10.0, 2)])
def test_a_loop_runs_until_it_is_told_to_end(start: float, turns: int) -> None:
    x = torch.full((3,), start)
    found, wanted = both(looping(), x)
    assert len(found[1]) == turns
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.numpy(), other)
    ops = [site.op for site in record(OnnxProgram(Plan(looping(), "model.onnx")), (x,), {}).sites]
    assert ops.count("mul") == turns


def scanning(**attributes: Any) -> onnx.ModelProto:
    """A running sum along x, and each sum twice."""
    body = graph(
        [
            helper.make_node("Add", ["sum", "row"], ["next"]),
            helper.make_node("Mul", ["next", "two"], ["out"]),
        ],
        ["sum", "row"],
        [helper.make_tensor_value_info(name, FLOAT, [3]) for name in ("next", "out")],
        {"two": np.float32(2)},
    )
    scan = helper.make_node("Scan", ["start", "x"], ["end", "y"], body=body, num_scan_inputs=1, **attributes)
    return model(graph([scan], ["start", "x"], ("end", "y")))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scan_input_axes": [1], "scan_output_axes": [1]},
        {"scan_input_directions": [1]},
        {"scan_output_directions": [1]},
    ],
)
def test_a_scan_goes_the_way_it_is_told(attributes: dict[str, Any]) -> None:
    x = torch.arange(9.0).reshape(3, 3)
    found, wanted = both(scanning(**attributes), torch.ones(3), x)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.numpy(), other)


def test_lists_are_put_together_and_taken_apart() -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], axis=0),
        helper.make_node("SequenceInsert", ["parts", "x", "first"], ["more"]),
        helper.make_node("SequenceErase", ["more", "last"], ["fewer"]),
        helper.make_node("SequenceAt", ["fewer", "last"], ["part"]),
        helper.make_node("ConcatFromSequence", ["more"], ["whole"], axis=0),
        helper.make_node("SequenceLength", ["more"], ["count"]),
    ]
    held = {"sizes": np.array([2, 1, 1]), "first": np.array(0), "last": np.array(-1)}
    made = model(graph(nodes, ["x"], ("part", "whole", "count"), held))
    found, wanted = both(made, torch.arange(4.0))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.numpy(), other)


def test_a_list_is_returned_as_one() -> None:
    nodes = [helper.make_node("SequenceConstruct", ["x", "x"], ["y"])]
    [found] = both(model(graph(nodes, ["x"])), torch.ones(2))[0]
    assert len(found) == 2


def test_other_uses_of_lists_are_told() -> None:
    body = graph([helper.make_node("Neg", ["each"], ["minus"])], ["each"], ("minus",))
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["all"]),
        helper.make_node("SequenceMap", ["all"], ["y"], body=body, name="over_all"),
    ]
    with pytest.raises(CannotRunError, match=r"a sequence of tensors in over_all \(SequenceMap\)"):
        OnnxProgram(Plan(model(graph(nodes, ["x"])), "model.onnx"))(torch.ones(2))
