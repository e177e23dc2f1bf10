"""What changes nothing about a form: how it was exported, how it is written, what it is run on."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from tests.mutants.forms.networks import build, exported_onnx, exported_program, inputs, to_onnx

if TYPE_CHECKING:
    import random

    from torch import Tensor


@dataclass
class Variant:
    """A form that is right, and what it is verified on.

    `options` are further ones of `verify`; `keep` is whatever must live as long, such as a folder of files.
    """

    candidate: Any
    inputs: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    keep: Any = None


Make = Callable[[str, "random.Random"], Variant]
BENIGN: dict[str, Make] = {}


def benign(function: Make) -> Make:
    """Register a kind of variant."""
    BENIGN[function.__name__] = function
    return function


def _model(name: str, rng: random.Random) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(exported_onnx(name, rng.choice(["dynamo", "script"])))
    return made


@benign
def as_exported(name: str, rng: random.Random) -> Variant:
    return Variant(_model(name, rng), inputs(name))


@benign
def exported_without_folding(name: str, _: random.Random) -> Variant:
    return Variant(to_onnx(build(name), inputs(name), "script", do_constant_folding=False), inputs(name))


@benign
def exported_without_optimising(name: str, _: random.Random) -> Variant:
    return Variant(to_onnx(build(name), inputs(name), "dynamo", optimize=False), inputs(name))


@benign
def of_an_older_opset(name: str, rng: random.Random) -> Variant:
    return Variant(
        to_onnx(build(name), inputs(name), "script", opset_version=rng.choice([13, 14, 16, 17])), inputs(name)
    )


@benign
def optimised_by_the_runtime(name: str, rng: random.Random) -> Variant:
    """The file that the runtime writes at one of its levels."""
    model = _model(name, rng)
    with tempfile.TemporaryDirectory() as directory:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = rng.choice(
            [
                onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
                onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
            ]
        )
        options.optimized_model_filepath = str(Path(directory) / "optimised.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Variant(onnx.load(options.optimized_model_filepath), inputs(name))


@benign
def nodes_in_another_order(name: str, rng: random.Random) -> Variant:
    """Any order in which each node comes behind what it reads."""
    model = _model(name, rng)
    left, ordered = list(model.graph.node), []
    known = {each.name for each in (*model.graph.input, *model.graph.initializer)} | {""}
    while left:
        ready = [node for node in left if known.issuperset(node.input)]
        node = rng.choice(ready)
        left.remove(node)
        ordered.append(node)
        known |= {*node.output}
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    return Variant(model, inputs(name))


@benign
def renamed(name: str, rng: random.Random) -> Variant:
    """Every value and node has a name that says nothing."""
    model = _model(name, rng)
    graph = model.graph
    kept = {each.name for each in (*graph.input, *graph.output)} | {""}
    values = {value for node in graph.node for value in (*node.input, *node.output)} - kept
    names = {value: f"t{k}" for k, value in enumerate(sorted(values))}
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for k, node in enumerate(graph.node):
        node.name = f"n{k}"
        del node.metadata_props[:]
        node.input[:] = [names.get(each, each) for each in node.input]
        node.output[:] = [names.get(each, each) for each in node.output]
    del graph.value_info[:]
    return Variant(model, inputs(name))


@benign
def weights_as_constants(name: str, rng: random.Random) -> Variant:
    """Initialisers are nodes without inputs."""
    model = _model(name, rng)
    graph = model.graph
    constants = [
        helper.make_node("Constant", [], [tensor.name], f"constant_{tensor.name}", value=tensor)
        for tensor in graph.initializer
    ]
    rest = list(graph.node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend([*constants, *rest])
    return Variant(model, inputs(name))


@benign
def constants_as_weights(name: str, rng: random.Random) -> Variant:
    """And the other way round."""
    model = _model(name, rng)
    graph = model.graph
    for node in [
        each for each in graph.node if each.op_type == "Constant" and each.attribute[0].name == "value"
    ]:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)
    return Variant(model, inputs(name))


@benign
def weights_among_the_inputs(name: str, rng: random.Random) -> Variant:
    """As files were written up to version 3 of the format."""
    model = _model(name, rng)
    model.graph.input.extend(
        helper.make_tensor_value_info(each.name, each.data_type, list(each.dims))
        for each in model.graph.initializer
    )
    return Variant(model, inputs(name))


@benign
def in_a_file_with_weights_beside_it(name: str, rng: random.Random) -> Variant:
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "net.onnx"
    onnx.save(
        _model(name, rng), str(file), save_as_external_data=True, location="net.data", size_threshold=256
    )
    return Variant(str(file), inputs(name), keep=folder)


@benign
def with_nodes_that_do_nothing(name: str, rng: random.Random) -> Variant:
    """Identities, dropouts and casts to what it is."""
    model = _model(name, rng)
    graph = model.graph
    floats = {each.name for each in graph.output}
    made: list[onnx.NodeProto] = []
    for k, node in enumerate(graph.node):
        made.append(node)
        if (
            node.op_type in ("Conv", "Gemm", "MatMul", "Add", "Mul")
            and node.output[0] not in floats
            and rng.random() < 0.3
        ):
            value = node.output[0]
            node.output[0] = f"{value}_before"
            op = rng.choice(["Identity", "Cast", "Dropout"])
            op = "Identity" if op == "Cast" and _is_whole(graph, node) else op
            nothing = helper.make_node(op, [node.output[0]], [value], f"nothing_{k}")
            if op == "Cast":
                nothing.attribute.append(helper.make_attribute("to", onnx.TensorProto.FLOAT))
            made.append(nothing)
    rest = list(made)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(rest)
    return Variant(model, inputs(name))


def _is_whole(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Whether a sum or product may be one of sizes."""
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    return not any(
        name in held and held[name].dtype == np.float32 and held[name].size > 1 for name in node.input
    )


@benign
def of_another_batch_size(name: str, rng: random.Random) -> Variant:
    batch = rng.choice([1, 3, 5])
    return Variant(_model(name, rng), inputs(name, batch), {"batch_size": rng.choice([None, 2])})


@benign
def on_channels_last(name: str, rng: random.Random) -> Variant:
    x = inputs(name)
    return Variant(_model(name, rng), x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x)


@benign
def on_other_numbers(name: str, rng: random.Random) -> Variant:
    return Variant(_model(name, rng), inputs(name, seed=rng.randrange(1, 100)))


@benign
def as_a_program(name: str, _: random.Random) -> Variant:
    return Variant(copy.deepcopy(exported_program(name)), inputs(name))


@benign
def as_a_decomposed_program(name: str, _: random.Random) -> Variant:
    return Variant(exported_program(name).run_decompositions(), inputs(name))


@benign
def as_a_saved_program(name: str, _: random.Random) -> Variant:
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "net.pt2"
    torch.export.save(exported_program(name), file)
    return Variant(str(file), inputs(name), keep=folder)


@benign
def as_a_program_of_free_batches(name: str, rng: random.Random) -> Variant:
    free = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(
        build(name), (inputs(name),), dynamic_shapes=free, strict=rng.random() < 0.5
    )
    return Variant(program, inputs(name, rng.choice([2, 4])))


@benign
def as_a_program_with_dead_code(name: str, _: random.Random) -> Variant:
    """Nodes that nobody reads, and copies."""
    program = copy.deepcopy(exported_program(name))
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor):
            with graph.inserting_after(node):
                unread = graph.call_function(torch.ops.aten.neg.default, (node,))
                unread.meta = dict(node.meta)
    program.graph_module.recompile()
    return Variant(program, inputs(name))


@benign
def on_several_threads(name: str, rng: random.Random) -> Variant:
    return Variant(_model(name, rng), inputs(name), {"threads": 2})
