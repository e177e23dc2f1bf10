"""Nodes that run: in the model's own dtype by the CPU plugin's kernel, in any other by what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from verifier.forms.begun import Begun, Shipped
from verifier.forms.calls import Call
from verifier.forms.openvino.alone import Alone, evaluated
from verifier.forms.openvino.layouts import LAYOUTS, RESIZES
from verifier.forms.openvino.readings import READINGS
from verifier.forms.openvino.reductions import REDUCTIONS
from verifier.forms.openvino.windows import WINDOWS
from verifier.graph.interpreted import Step
from verifier.graph.operators import readable
from verifier.graph.tensors import tensors_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.forms.calls import Value
    from verifier.forms.openvino.joining import Part

_KNOWN = {**READINGS, **LAYOUTS, **RESIZES, **REDUCTIONS, **WINDOWS}


class NodeStep(Step):
    """A node of a graph as one call.

    Args:
        part: The node, in a graph that nobody else uses.
        shipped: Of its inputs, what the model's file holds for them.

    Attributes:
        names: What OpenVINO calls the node, or those in a row that it is.
    """

    def __init__(self, part: Part, shipped: Mapping[str, np.ndarray]) -> None:
        super().__init__(part.node.op, self._meant)
        self.node = part.node
        self.names = tuple(each.get_friendly_name() for each in part.handles)
        self._handle = part.handles[-1]
        self._alone = Alone(part.handles, part.slots)
        self._shipped = Shipped(
            {k: shipped[name] for k, name in enumerate(self.node.inputs) if name in shipped}
        )
        self._begun = Begun((), [], [], native=False)

    def begin(self, given: Sequence[Value], *, native: bool) -> Call:
        """The call to make for some inputs, of this step or of torch itself.

        What only lays tensors out is torch's in any dtype.

        Args:
            given: The inputs, in the node's order.
            native: Whether they are in the dtypes that the file says.
        """
        native = native and self.node.op not in LAYOUTS
        reading = _KNOWN.get(self.node.op)
        call = None if reading is None else reading(self.node, given)
        if call is None:
            self.__name__, self.stands_for = self.node.op, self._meant
            given = [torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v for v in given]
            call = Call(self.node.op, self, given, dict(self.node.attributes))
        else:
            self.__name__, self.stands_for = call.name, call.function
            if not native and call.function in torch.overrides.get_testing_overrides():
                return call
        settings = readable((*call.args, *call.kwargs.values()))
        self._begun = Begun.of(settings, given, tensors_in((call.args, call.kwargs)), native=native)
        return call._replace(function=self)

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """What the kernel gives, or in another dtype than the model's, or with other settings, what they mean."""
        values = self._begun.with_tensors(readable((*args, *kwargs.values())), [*tensors_in((args, kwargs))])
        if values is None:
            return self.stands_for(*args, **kwargs)
        return _results(self._by_kernel(values))

    def static(self, given: Sequence[Value]) -> list[np.ndarray] | None:
        """What the node gives of shapes and arrays alone; None for any other node."""
        node = self.node
        if node.op == "ShapeOf" and isinstance(given[0], Tensor):
            return [np.array(given[0].shape, dtype=np.int32 if node.kinds[0] == "i32" else np.int64)]
        arrays = [value for value in given if isinstance(value, np.ndarray)]
        if len(arrays) < len(given) or node.op.startswith("Random"):
            return None
        return evaluated(self._handle, arrays)

    def _by_kernel(self, values: Sequence[Value]) -> list[np.ndarray]:
        """What the node alone gives, compiled in single precision."""
        given: dict[int, np.ndarray] = {}
        fixed: dict[int, np.ndarray] = {}
        for k, value in enumerate(values):
            if value is None or self._shipped.holds(k, value):
                continue
            array = value.detach().numpy() if isinstance(value, Tensor) else value
            where = given if isinstance(value, Tensor) else fixed
            where[k] = array.reshape(self.node.shapes.get(k, array.shape))
        return self._alone.run(given, fixed)[: len(self.node.outputs)]

    def _meant(self, *tensors: Any, **attributes: Any) -> Any:  # noqa: ARG002 - those of the node
        """What the kernel gives, which knows single precision.

        Raises:
            NotImplementedError: The tensors are in double precision.
        """
        if any(t.dtype == torch.float64 for t in tensors_in(tensors)):
            raise NotImplementedError(f"{self.node.op} is not implemented for float64")
        return _results(self._by_kernel(tensors))


def _results(arrays: Sequence[np.ndarray]) -> Any:
    """Arrays of the runtime as what a call returns."""
    found = [torch.from_numpy(array) for array in arrays]
    return found[0] if len(found) == 1 else tuple(found)
