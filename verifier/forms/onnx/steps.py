"""Nodes that run: in the model's own dtype by the runtime's kernel, in any other by what they mean."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from verifier.forms.begun import Begun, Shipped
from verifier.forms.calls import Call, Value
from verifier.forms.onnx.layouts import LAYOUTS
from verifier.forms.onnx.readings import READINGS
from verifier.forms.onnx.reductions import REDUCTIONS
from verifier.forms.onnx.sampling import SAMPLING
from verifier.forms.onnx.sessions import opened
from verifier.forms.onnx.windows import WINDOWS
from verifier.graph.interpreted import Step
from verifier.graph.operators import readable
from verifier.graph.tensors import tensors_in
from verifier.lockstep import pages_returned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.forms.onnx.node import OnnxNode

_KNOWN = {**READINGS, **LAYOUTS, **REDUCTIONS, **SAMPLING, **WINDOWS}
_WRITTEN = 64  # elements: so many of what an input is always given are a setting
_KIN = {"Resize": "interpolate", "Upsample": "interpolate"}  # whatever their settings are called
_SMALL, _KEPT = 4096, 8  # bytes of shapes, and for how many of them what follows is kept
_HEAVY = ("Conv", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Attention", "Einsum")


class NodeStep(Step):
    """A node of a graph as one call.

    Args:
        node: The node.
        model: The model it is part of, of which its operators' versions are taken.
        shipped: Of its inputs, what the model's file holds for them.
        declared: The dtypes of what the model takes, by name.
    """

    def __init__(
        self,
        node: OnnxNode,
        model: onnx.ModelProto,
        shipped: Mapping[str, np.ndarray],
        declared: Mapping[str, np.dtype],
    ) -> None:
        super().__init__(node.op, self._meant)
        self.node = node
        self._model = model
        self._shipped = Shipped({name: shipped[name] for name in node.inputs if name in shipped})
        self._written = {  # the dtypes that the file says, of what no node computes
            name: torch.from_numpy(np.zeros(1, dtype)).dtype
            for name in node.inputs
            for dtype in [shipped[name].dtype if name in shipped else declared.get(name)]
            if dtype is not None and dtype.kind == "f"
        }
        self._sessions: dict[tuple[Any, ...], Any] = {}
        self._formal = _formal(node)
        self._kinds: dict[str, np.dtype] = {}
        self._absent = [not name for name in node.inputs]
        self._settings: dict[str, np.ndarray] = {}  # sizes, axes: what shapes of results follow from
        self._constants: dict[tuple[Any, ...], list[np.ndarray]] = {}
        self._trusted: dict[tuple[tuple[int, ...] | None, ...], bool] = {}
        self._begun = Begun((), [], [], native=False)

    def constant(self, given: Sequence[Value], *, wide: bool) -> list[np.ndarray]:
        """What the node gives for arrays alone; if `wide`, in double precision what would be in single.

        Shapes are computed anew in every pass, and are what they were before.
        """
        arrays = [np.asarray(value) for value in given if value is not None]
        if sum(array.nbytes for array in arrays) > _SMALL or any(array.dtype.hasobject for array in arrays):
            return self._computed(given, wide=wide)
        key = (wide, *((array.dtype, array.shape, array.tobytes()) for array in arrays))
        if key not in self._constants:
            if len(self._constants) == _KEPT:
                self._constants.clear()
            self._constants[key] = self._computed(given, wide=wide)
        return self._constants[key]

    def _computed(self, given: Sequence[Value], *, wide: bool) -> list[np.ndarray]:
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
        self._settings = {
            name: value
            for name, value in zip(self.node.inputs, given, strict=True)
            if isinstance(value, np.ndarray) and value.dtype.kind in "iu"
        }
        plain = all(self.node.outputs) and not any(map(_rare, given))
        reading = _KNOWN.get(self.node.op) if plain else None
        call = reading(self.node, given) if reading is not None else None
        if call is None:
            self.__name__, self.stands_for = _KIN.get(self.node.op, self.node.op), self._meant
            always = {
                name: value
                for name, value in zip(self._formal, given, strict=True)
                if isinstance(value, np.ndarray) and value.size <= _WRITTEN
            }
            self._absent = [value is None for value in given]
            self._kinds = {name: value.dtype for name, value in always.items()}
            given = [
                torch.from_numpy(np.array(value))
                if isinstance(value, np.ndarray) and name not in always
                else value
                for name, value in zip(self._formal, given, strict=True)
            ]
            tensors = [value for value in given if value is not None and not isinstance(value, np.ndarray)]
            settings = {name: value.tolist() for name, value in always.items()}
            call = Call(self.__name__, self, tensors, {**self.node.attributes, **settings})
        else:
            self.__name__, self.stands_for = call.name, call.function
            if not native and call.function in torch.overrides.get_testing_overrides():
                return call
        written = readable((*call.args, *call.kwargs.values()))
        self._begun = Begun.of(written, given, tensors_in((call.args, call.kwargs)), native=native)
        return call._replace(function=self)

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """What the kernel gives, or in another dtype than the model's, or with other settings, what they mean."""
        values = self._begun.with_tensors(readable((*args, *kwargs.values())), [*tensors_in((args, kwargs))])
        if values is None:
            return self.stands_for(*args, **kwargs)
        values = [self._as_written(*each) for each in zip(self.node.inputs, values, strict=True)]
        return _results(self._by_kernel(values, self.node.attributes))

    def _as_written(self, name: str, value: Value) -> Value:
        """An input in the dtype that the file says of it, which need not be that of the run."""
        written = self._written.get(name)
        if written is None or not isinstance(value, Tensor) or value.dtype == written:
            return value
        return value.to(written)

    def _by_kernel(self, values: Sequence[Value], attributes: Mapping[str, Any]) -> list[np.ndarray]:
        fixed = {
            name: self._shipped[name]
            for name, value in zip(self.node.inputs, values, strict=True)
            if self._shipped.holds(name, value)
        }
        for name, value in zip(self.node.inputs, values, strict=True):
            known = self._settings.get(name)
            if known is not None and np.array_equal(np.asarray(value), known):
                fixed[name] = known
        arrays = {
            name: np.asarray(value.detach().numpy() if isinstance(value, Tensor) else value, order="C")
            for name, value in zip(self.node.inputs, values, strict=True)
            if name and name not in fixed and value is not None
        }
        written = tuple(fixed[name].tobytes() for name in self._settings if name in fixed)
        key = (tuple(fixed), written, *((name, array.dtype, array.ndim) for name, array in arrays.items()))
        session = self._sessions.get(key) if attributes is self.node.attributes else None
        found: list[np.ndarray]
        if session is not None:
            found = session.run(None, arrays)
            return found
        with pages_returned():
            alone = self._alone(list(values), attributes, fixed)
            session = opened(alone, heavy=self.node.op.startswith(_HEAVY))
            found = session.run(None, arrays)
        if attributes is self.node.attributes:
            self._sessions[key] = session
        return found

    def _meant(self, *tensors: Any, **attributes: Any) -> Any:
        """What ONNX's own implementation gives in float64, and the runtime's kernel in other dtypes.

        Raises:
            NotImplementedError: There is none for float64, or it gives something else than the kernel.
        """
        values = self._in_order(tensors, attributes)
        own: Mapping[str, Any] = {name: v for name, v in attributes.items() if name not in self._kinds}
        own = self.node.attributes if own == self.node.attributes else own
        if all(t.dtype != torch.float64 for t in tensors_in(tensors)):
            try:
                return _results(self._by_kernel(values, own))
            except Exception:
                with contextlib.suppress(Exception):  # what the runtime says of it tells more
                    return _results(_owned(self._by_reference(values, own)))
                raise
        try:
            found = self._by_reference(values, own)
        except Exception as error:
            raise NotImplementedError(f"{self.node.op} is not implemented for float64") from error
        if not self._as_by_kernel(found, values, own):
            raise NotImplementedError(f"{self.node.op} means something else in ONNX's own implementation")
        return _results(_owned(found))

    def _in_order(self, tensors: Sequence[Any], settings: Mapping[str, Any]) -> list[Value]:
        """The node's inputs of the arguments of a call, in which what is always given is a setting."""
        left = iter(tensors)
        return [
            np.array(settings[name], dtype=self._kinds[name])
            if name in self._kinds
            else None
            if absent
            else next(left)
            for name, absent in zip(self._formal, self._absent, strict=True)
        ]

    def _by_reference(self, values: Sequence[Value], attributes: Mapping[str, Any]) -> list[np.ndarray]:
        arrays = [np.asarray(v.detach()) if isinstance(v, Tensor) else v for v in values]
        feeds = {n: v for n, v in zip(self.node.inputs, arrays, strict=True) if n and v is not None}
        evaluated = ReferenceEvaluator(self._alone(arrays, attributes, {}))
        return [np.asarray(each) for each in evaluated.run(None, feeds)]

    def _as_by_kernel(
        self, found: Sequence[np.ndarray], values: Sequence[Value], attributes: Mapping[str, Any]
    ) -> bool:
        """Whether ONNX's own implementation, which knows only the newest meaning of many operators, is as the kernel.

        That is asked once of tensors of each shape. Where the kernel does not run, nothing speaks against it.
        """
        shapes = tuple(None if value is None else tuple(value.shape) for value in values)
        if shapes not in self._trusted:
            narrow = [v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for v in values]
            try:
                kernel = self._by_kernel(narrow, attributes)
            except Exception:  # the runtime's own; what the form is run as tells of it
                kernel = list(found)
            self._trusted[shapes] = all(map(_alike, found, kernel))
        return self._trusted[shapes]

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


def _results(arrays: Sequence[np.ndarray]) -> Any:
    found = [torch.from_numpy(array if array.flags.writeable else array.copy()) for array in arrays]
    return found[0] if len(found) == 1 else tuple(found)


def _owned(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Arrays that hold nothing of what was given: ONNX's own implementation may return that."""
    return [a if a.flags.owndata and a.flags.writeable else np.array(a, order="C") for a in arrays]


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two results in different dtypes are one, but for rounding and what is made of that."""
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return np.array_equal(one, other)
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)):
        return False
    apart = np.linalg.norm(one[finite] - other[finite].astype(np.float64))
    return bool(apart <= _ROUNDED * np.linalg.norm(one[finite]))


_ROUNDED = 1e-3


def _rare(value: Value) -> bool:
    """Whether it is of a dtype that torch stores and does not compute with."""
    return value is not None and str(value.dtype).removeprefix("torch.") in {"uint16", "uint32", "uint64"}


def _formal(node: OnnxNode) -> list[str]:
    """What the specification calls the inputs of a node, those of which there are several with their number."""
    try:
        schema = onnx.defs.get_schema(node.proto.op_type, node.opset, node.proto.domain)
        names = [each.name for each in schema.inputs]
    except onnx.defs.SchemaError:  # of a domain of others
        names = []
    return [
        names[k] if k < len(names) - (len(names) < len(node.inputs)) else f"input{k}"
        for k in range(len(node.inputs))
    ]


def _kind(value: Tensor | np.ndarray) -> int:
    dtype = np.asarray(value[:0] if value.ndim else value).dtype if isinstance(value, np.ndarray) else None
    if dtype is None and isinstance(value, Tensor):
        dtype = value.detach().reshape(-1)[:0].numpy().dtype
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
