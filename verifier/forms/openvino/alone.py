"""Nodes taken out of a graph and compiled alone, as OpenVINO's CPU plugin runs them."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
import torch
from openvino import opset13

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@cache
def core() -> Any:
    """OpenVINO, begun once in a process."""
    return openvino.Core()


def evaluated(node: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What a node gives for some arrays, by OpenVINO's own reference where it has one, else by its CPU plugin."""
    given = [openvino.Tensor(np.array(array, order="C")) for array in arrays]
    made = [openvino.Tensor(each.get_element_type(), openvino.Shape([0])) for each in node.outputs()]
    with contextlib.suppress(RuntimeError):
        if node.evaluate(made, given):
            return [np.array(each.data) for each in made]
    return Alone((node,), [(0, k) for k in range(len(arrays))]).run({}, dict(enumerate(arrays)))


class Alone:
    """One node, or several in a row, cut out of their graph.

    Args:
        nodes: The nodes, of a graph that nobody else uses.
        slots: For each of its inputs, which node reads it, and as which of its inputs.
    """

    def __init__(self, nodes: Sequence[Any], slots: Sequence[tuple[int, int]]) -> None:
        self._nodes = nodes
        self._slots = [(nodes[k], place) for k, place in slots]
        self._sources = [node.input(place).get_source_output() for node, place in self._slots]
        self._compiled: dict[tuple[Any, ...], Any] = {}
        self._any_size = True

    def run(
        self, given: Mapping[int, np.ndarray], fixed: Mapping[int, np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """What the last node gives in single precision, as its kernel computes that.

        Args:
            given: Inputs by number; those that are left out are what they are in the graph.
            fixed: Others that are constant for the kernel, as axes and shapes must be.
        """
        fixed = fixed or {}
        kinds = tuple((k, array.ndim, array.dtype.str) for k, array in given.items())
        constants = tuple((k, array.shape, array.tobytes()) for k, array in fixed.items())
        sizes = {k: array.shape for k, array in given.items()}
        key = (kinds, constants, None if self._any_size else tuple(sizes.values()))
        if key not in self._compiled and self._any_size:
            try:
                self._compiled[key] = self._made({k: [-1] * len(shape) for k, shape in sizes.items()}, fixed)
            except RuntimeError:  # kernels that are made for one size, as those of recurrent layers
                self._any_size, key = False, (kinds, constants, tuple(sizes.values()))
        if key not in self._compiled:
            self._compiled[key] = self._made(sizes, fixed)
        found = self._compiled[key]([np.asarray(array, order="C") for array in given.values()])
        return [np.array(found[k]) for k in range(len(self._nodes[-1].outputs()))]

    def _made(self, sizes: Mapping[int, Sequence[int]], fixed: Mapping[int, np.ndarray]) -> Any:
        parameters = {}
        for k, ((node, place), shipped) in enumerate(zip(self._slots, self._sources, strict=True)):
            source = shipped
            if k in sizes:
                parameters[k] = opset13.parameter([*sizes[k]], shipped.get_element_type())
                source = parameters[k].output(0)
            elif k in fixed:
                source = opset13.constant(fixed[k], shipped.get_element_type()).output(0)
            node.set_argument(place, source)
        for node in self._nodes:
            node.validate_and_infer_types()
        last = self._nodes[-1]
        model = openvino.Model(last.outputs(), [parameters[k] for k in sizes], last.get_friendly_name())
        properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        return core().compile_model(model, "CPU", properties)
