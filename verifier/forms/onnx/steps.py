"""Nodes that run: in the model's own dtype by the runtime's kernel, in any other by what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from verifier.forms.onnx.layouts import LAYOUTS
from verifier.forms.onnx.node import Call, OnnxNode, Value
from verifier.forms.onnx.readings import READINGS
from verifier.forms.onnx.reductions import REDUCTIONS
from verifier.forms.onnx.sessions import opened
from verifier.forms.onnx.windows import WINDOWS
from verifier.graph.interpreted import Step
from verifier.graph.operators import readable
from verifier.graph.tensors import tensors_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KNOWN = {**READINGS, **LAYOUTS, **REDUCTIONS, **WINDOWS}
_HEAVY = ("Conv", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Attention", "Einsum")


class NodeStep(Step):
    """A node of a graph as one call.

    Args:
        node: The node.
        model: The model it is part of, of which its operators' versions are taken.
        shipped: Of its inputs, what the model's file holds for them.
    """

    def __init__(self, node: OnnxNode, model: onnx.ModelProto, shipped: Mapping[str, np.ndarray]) -> None:
        super().__init__(node.op, self._meant)
        self.node = node
        self._model = model
        self._shipped = {name: shipped[name] for name in node.inputs if name in shipped}
        self._sessions: dict[tuple[Any, ...], Any] = {}
        self._same: dict[int, tuple[Tensor, bool]] = {}
        self._begun: tuple[Any, list[Value], list[int | None], bool] = ((), [], [], False)

    def constant(self, given: Sequence[Value], *, wide: bool) -> list[np.ndarray]:
        """What the node gives for arrays alone; if `wide`, in double precision what would be in single."""
        attributes = dict(self.node.attributes)
        if wide and attributes.get("to") == onnx.TensorProto.FLOAT:
            attributes["to"] = onnx.TensorProto.DOUBLE
        evaluated = ReferenceEvaluator(self._alone(given, attributes, {}))
        feeds = {name: value for name, value in zip(self.node.inputs, given, strict=True) if name}
        found = [np.asarray(each) for each in evaluated.run(None, feeds)]
        return [each.astype(np.float64) if wide and each.dtype == np.float32 else each for each in found]

    def begin(self, given: Sequence[Value], *, native: bool) -> Call:
        """The call to make for some inputs, of this step or of torch itself.

        Args:
            given: The inputs, in the node's order.
            native: Whether they are in the dtypes that the file says.
        """
        reading = _KNOWN.get(self.node.op)
        call = reading(self.node, given) if reading is not None else None
        if call is None:
            self.__name__, self.stands_for = self.node.op, self._meant
            tensors = [torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v for v in given]
            call = Call(self.node.op, self, tensors, dict(self.node.attributes))
            given = tensors
        else:
            self.__name__, self.stands_for = call.name, call.function
            if not native and call.function in torch.overrides.get_testing_overrides():
                return call
        places = {id(value): k for k, value in enumerate(given) if isinstance(value, Tensor)}
        routes = [places.get(id(leaf)) for leaf in tensors_in((call.args, call.kwargs))]
        self._begun = readable((*call.args, *call.kwargs.values())), list(given), routes, native
        return call._replace(function=self)

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """What the kernel gives, or in another dtype than the model's, or with other settings, what they mean."""
        settings, given, routes, native = self._begun
        tensors = list(tensors_in((args, kwargs)))
        single = native and all(t.dtype != torch.float64 for t in tensors)
        if (
            not (single or native)
            or len(tensors) != len(routes)
            or readable((*args, *kwargs.values())) != settings
        ):
            return self.stands_for(*args, **kwargs)
        values = list(given)
        for tensor, place in zip(tensors, routes, strict=True):
            if place is not None:
                values[place] = tensor
        return self._results(self._by_kernel(values))

    def _by_kernel(self, values: Sequence[Value]) -> list[np.ndarray]:
        fixed = {
            name: self._shipped[name]
            for name, value in zip(self.node.inputs, values, strict=True)
            if name in self._shipped and self._is_shipped(name, value)
        }
        arrays = {
            name: np.asarray(value.detach().numpy() if isinstance(value, Tensor) else value, order="C")
            for name, value in zip(self.node.inputs, values, strict=True)
            if name and name not in fixed and value is not None
        }
        key = (tuple(fixed), *((name, array.dtype, array.ndim) for name, array in arrays.items()))
        if key not in self._sessions:
            alone = self._alone(list(values), self.node.attributes, fixed)
            self._sessions[key] = opened(alone, heavy=self.node.op.startswith(_HEAVY))
        found: list[np.ndarray] = self._sessions[key].run(None, arrays)
        return found

    def _is_shipped(self, name: str, value: Value) -> bool:
        """Whether a tensor still holds what the file does."""
        if not isinstance(value, Tensor):
            return value is self._shipped[name]
        known = self._same.get(id(value))
        if known is None or known[0] is not value:
            shipped = torch.from_numpy(self._shipped[name])
            same = value.dtype == shipped.dtype and torch.equal(value.detach(), shipped)
            known = self._same[id(value)] = (value, same)
        return known[1]

    def _meant(self, *tensors: Any, **attributes: Any) -> Any:
        """What ONNX's own implementation gives, in the dtype of the arguments.

        Raises:
            NotImplementedError: There is none, or none for these dtypes.
        """
        values = [np.asarray(v.detach()) if isinstance(v, Tensor) else v for v in tensors]
        feeds = {n: v for n, v in zip(self.node.inputs, values, strict=True) if n and v is not None}
        try:
            evaluated = ReferenceEvaluator(self._alone(values, attributes, {}))
            return self._results([np.asarray(each) for each in evaluated.run(None, feeds)])
        except Exception as error:
            if all(t.dtype != torch.float64 for t in tensors_in(tensors)):
                return self._results(self._by_kernel(list(tensors)))
            raise NotImplementedError(f"{self.node.op} is not implemented for float64") from error

    def _results(self, arrays: Sequence[np.ndarray]) -> Any:
        found = [
            torch.from_numpy(np.array(array) if not array.flags.writeable else array) for array in arrays
        ]
        return found[0] if len(found) == 1 else tuple(found)

    def _alone(
        self, given: Sequence[Value], attributes: Mapping[str, Any], fixed: Mapping[str, np.ndarray]
    ) -> onnx.ModelProto:
        """A model of the node alone, which holds the inputs that are `fixed`."""
        node = self.node.proto
        if attributes != self.node.attributes:
            node = helper.make_node(
                node.op_type,
                list(node.input),
                list(node.output),
                name=node.name,
                domain=node.domain,
                **attributes,
            )
        named = {name: v for name, v in zip(self.node.inputs, given, strict=True) if name and v is not None}
        inputs = [
            helper.make_tensor_value_info(name, _kind(value), [None] * value.ndim)
            for name, value in named.items()
            if name not in fixed
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.node.outputs if name]
        held = [onnx.numpy_helper.from_array(array, name) for name, array in fixed.items()]
        graph = helper.make_graph([node], "node", inputs, outputs, held)
        return helper.make_model(
            graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version
        )


def _kind(value: Tensor | np.ndarray) -> int:
    dtype = np.asarray(value[:0] if value.ndim else value).dtype if isinstance(value, np.ndarray) else None
    if dtype is None and isinstance(value, Tensor):
        dtype = value.detach().reshape(-1)[:0].numpy().dtype
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
