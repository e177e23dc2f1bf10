"""OpenVINO models as its CPU plugin runs them: node by node, in single precision, and as they are shipped."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from verifier.forms.form import Form, Kernel, reading
from verifier.forms.openvino.alone import core
from verifier.forms.openvino.plan import plan_of
from verifier.forms.openvino.program import OpenvinoProgram
from verifier.forms.paths import numbered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from verifier.graph import Graph

_AT_ONCE = 64  # values that one run shows, so that not all of them are in memory
SINGLE, SHIPPED = "f32", "shipped"
_SINGLE = {"INFERENCE_PRECISION_HINT": "f32"}
_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_TOLD = "layerType", "originalLayersNames", "primitiveType", "runtimePrecision"
_NO_WORK = frozenset({"Const", "Input", "Output", "Reorder"})


class Compiled:
    """A model compiled for the CPU.

    Args:
        name: What it is called.
        model: The model.
        program: The same as a program.
        properties: Of the compilation; none for those that OpenVINO takes by itself.
    """

    def __init__(
        self, name: str, model: Any, program: OpenvinoProgram, properties: Mapping[str, str]
    ) -> None:
        self.name = name
        self._model = model
        self._program = program
        self._properties = dict(properties)

    @cached_property
    def compiled(self) -> Any:
        """The compiled model."""
        return core().compile_model(self._model, "CPU", self._properties)

    @property
    def dtype(self) -> str:
        """The dtype that it computes in, where a node can."""
        hint = self.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return str(_DTYPES.get(hint, hint))

    def share(self, dtype: str) -> float:
        """How many of the nodes that are left after its optimisation compute in a dtype."""
        found = [
            node.get_rt_info()["runtimePrecision"].astype(str)
            for node in self.compiled.get_runtime_model().get_ordered_ops()
            if node.get_rt_info()["layerType"].astype(str) not in _NO_WORK
        ]
        return sum(_DTYPES.get(each) == dtype for each in found) / max(1, len(found))

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What it returns: a tensor, or a tuple of its outputs in order."""
        found = self.compiled(self._feeds(args, kwargs))
        tensors = [torch.from_numpy(np.array(found[k])) for k in range(len(self.compiled.outputs))]
        return tensors[0] if len(tensors) == 1 else tuple(tensors)

    def values(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], graph: Graph
    ) -> Iterator[tuple[int, str, Tensor]]:
        """What a few nodes at a time give that are outputs as well, of a model that is compiled with these."""
        sites = {(line, site.output): site.index for line, site in numbered(graph)}
        wanted = [
            (sites[number, k], step.node, k)
            for number, (step, _, _) in enumerate(self._program.plan.steps, 1)
            for k in range(len(step.node.outputs))
            if (number, k) in sites
        ]
        feeds = self._feeds(args, kwargs)
        for first in range(0, len(wanted), _AT_ONCE):
            chunk = wanted[first : first + _AT_ONCE]
            model = self._model.clone()
            nodes = model.get_ordered_ops()
            model.add_outputs([nodes[node.place].output(k) for _, node, k in chunk])
            sources = [each.input(0).get_source_output() for each in model.get_results()]
            made = {
                (each.get_node().get_instance_id(), each.get_index()): k for k, each in enumerate(sources)
            }
            found = core().compile_model(model, "CPU", self._properties)(feeds)
            for index, node, k in chunk:
                array = found[made[nodes[node.place].get_instance_id(), k]]
                yield index, node.op, torch.from_numpy(np.array(array))

    def kernels(self, graph: Graph) -> Iterator[Kernel]:
        """What each node that is left after the optimisation makes, as OpenVINO tells it by the nodes' names."""
        sites: dict[int, list[int]] = {}
        for line, site in numbered(graph):
            sites.setdefault(line, []).append(site.index)
        lines = {
            name: number
            for number, (step, _, _) in enumerate(self._program.plan.steps, 1)
            for name in step.names
        }
        taken: set[int] = set()
        for node in self.compiled.get_runtime_model().get_ordered_ops():
            told = {key: node.get_rt_info()[key].astype(str) for key in _TOLD if key in node.get_rt_info()}
            names = told.get("originalLayersNames", "").split(",")
            found = sorted({lines[name] for name in names if name in lines} - taken)
            if told.get("layerType") in _NO_WORK or not found:
                continue
            taken.update(found)
            makes = tuple(site for line in found for site in sites.get(line, ()))
            precision = told.get("runtimePrecision", "")
            kernel = told.get("primitiveType", "") or node.get_friendly_name()
            yield Kernel(kernel, told.get("layerType", ""), makes, _DTYPES.get(precision, precision))

    def _feeds(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[np.ndarray]:
        bound = dict(self._program.bound(args, kwargs))
        return [np.asarray(bound[name].detach().numpy(), order="C") for name in self._program.plan.inputs]


def of(model: Any, file: str = "model.xml") -> Form:
    """The form of a model.

    Args:
        model: The model.
        file: Its file's name.

    Raises:
        SourceError: It keeps state from call to call.
    """
    program = OpenvinoProgram(plan_of(model, file))
    single, shipped = Compiled(SINGLE, model, program, _SINGLE), Compiled(SHIPPED, model, program, {})
    native = str(program.plan.native).removeprefix("torch.")
    dtype = shipped.dtype
    notes: tuple[str, ...] = ()
    if dtype != native:
        how = f"{dtype} on this machine (INFERENCE_PRECISION_HINT), {shipped.share(dtype):.0%} of its nodes in it"
        notes = (f"OpenVINO compiles the model for {how}: {SHIPPED} is judged by the rounding of {dtype}",)
    return Form(
        "an OpenVINO model",
        program,
        (single, shipped),
        dtypes=frozenset({native}),
        notes=notes,
        captured=True,
        lowered={SHIPPED: dtype} if dtype != native else {},
        shapes=tuple(
            tuple(size.get_length() if size.is_static else None for size in each.get_partial_shape())
            for each in model.inputs
            if each.get_partial_shape().rank.is_static
        ),
    )


def read(path: Path) -> Form:
    """The form in an `.xml` file, with its weights beside it.

    Raises:
        SourceError: It holds no OpenVINO model.
    """
    with reading(str(path), "an OpenVINO model"):
        model = core().read_model(path)
    return of(model, path.name)
