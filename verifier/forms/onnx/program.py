"""An ONNX model as a program that runs node after node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from verifier.errors import CannotRunError
from verifier.forms.binding import bound
from verifier.forms.calls import meant
from verifier.forms.onnx.flow import flow_of
from verifier.forms.paths import registered
from verifier.graph.interpreted import NOWHERE, Interpreter
from verifier.lockstep import Gaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.forms.calls import Value
    from verifier.forms.onnx.plan import Body, Plan, Planned
    from verifier.forms.onnx.steps import NodeStep
    from verifier.graph.interpreted import Node


class OnnxProgram(Interpreter):
    """A model whose nodes run one after the other, each by the runtime's own kernel in the model's own dtype.

    Parameters have the names that the file gives its initialisers.

    Args:
        plan: What the file says.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan, self.output_labels = plan, plan.outputs
        self._paths: dict[str, tuple[str, str]] = {}
        self._numbers: dict[str, tuple[str, str]] = {}
        for name, array in plan.tensors.items():
            tensor = torch.from_numpy(array)
            learnt = nn.Parameter(tensor, requires_grad=False) if tensor.is_floating_point() else tensor
            self._paths[name] = registered(self, name, learnt)
        for name, array in plan.numbers.items():
            self._numbers[name] = registered(self, name, torch.from_numpy(np.array(array)))
        self._first = next((name for name, array in plan.tensors.items() if array.dtype.kind == "f"), None)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns: a tensor, or a tuple of its outputs in order.

        Args:
            args: Tensors in the order of the model's inputs, in any nesting.
            kwargs: Further ones, by the inputs' names; others in the order that is left.

        Raises:
            InputError: They are not as many as the model takes.
        """
        values: dict[str, Any] = dict(self.bound(args, kwargs))
        given = next((value for value in values.values() if value.is_floating_point()), None)
        for name, (owner, leaf) in self._paths.items():
            values[name] = getattr(self.get_submodule(owner), leaf)
        dtype = _float_of(given if self._first is None else values[self._first])
        try:
            found = self._run(self.plan, values, dtype)
        finally:
            self._at(NOWHERE)
        outputs = tuple(_returned(value) for value in found)
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, body: Body, values: dict[str, Any], dtype: torch.dtype) -> list[Any]:
        """What a graph returns, with `values` known by name."""
        native = dtype == self.plan.native
        values |= body.constants if native else {**body.constants, **self._wide(body)}

        def inside(other: Body, given: Sequence[Any]) -> list[Any]:
            return self._run(other, {**values, **dict(zip(other.inputs, given, strict=True))}, dtype)

        gaps = Gaps()
        for planned in body.steps:
            gaps.look()
            node = planned.step.node
            given = [values.get(name) if name else None for name in node.inputs]
            self._at(planned.place)
            flow = flow_of(node)
            if flow is not None:
                found = flow(node, planned.bodies, inside, given)
            elif any(isinstance(value, list) for value in given):
                raise CannotRunError(
                    f"the ONNX model computes with a sequence of tensors in {node.name} ({node.op}), where this "
                    "verifier does not follow it. Export it without sequences, for shapes that are known."
                )
            else:
                static = self._static(planned.step, given, wide=not native)
                found = self._called(planned, given, dtype, native=native) if static is None else static
            values |= zip(filter(None, node.outputs), found, strict=False)
            for name in planned.done:
                values.pop(name, None)
        return [values[name] for name in body.outputs]

    def _wide(self, body: Body) -> dict[str, np.ndarray]:
        """A graph's numbers in double precision: those that the stored ones are the rounding of (`meant`).

        Where the program was given others in their place, these.
        """
        found = {}
        for name, number in body.numbers.items():
            owner, leaf = self._numbers[name]
            held = float(getattr(self.get_submodule(owner), leaf))
            known = held == float(number.reshape(-1)[0])
            found[name] = np.full(number.shape, meant(number.reshape(-1)[0]) if known else held)
        return found

    def _called(
        self, planned: Planned, given: Sequence[Any], dtype: torch.dtype, *, native: bool
    ) -> list[Any]:
        call = planned.step.begin([_widened(value, dtype) for value in given], native=native)
        result = call.function(*call.args, **call.kwargs)
        return list(result) if isinstance(result, tuple | list) else [result]

    def _at(self, place: Node) -> None:
        vars(self)["running"] = place  # torch's own way to set an attribute takes longer than many a node

    def _static(self, step: NodeStep, given: Sequence[Value], *, wide: bool) -> list[np.ndarray] | None:
        """What a node gives that depends on no number of the inputs'; None for any other node."""
        node = step.node
        if node.op in ("Shape", "Size") and isinstance(given[0], Tensor):
            shape = given[0].shape
            if node.op == "Size":
                return [np.array(shape.numel())]
            return [np.array(shape[node.get("start", 0) : node.get("end")], dtype=np.int64)]
        if all(value is None or isinstance(value, np.ndarray) for value in given):
            return step.constant(given, wide=wide)
        return None

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """What a model is given, by its inputs' names; arguments and errors are those of `forward`."""
        return bound("the ONNX model", self.plan.inputs, args, kwargs)


def _float_of(value: Value) -> torch.dtype:
    return value.dtype if isinstance(value, Tensor) else torch.get_default_dtype()


def _returned(value: Any) -> Any:
    if isinstance(value, list):
        return [_returned(each) for each in value]
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value


def _widened(value: Value, dtype: torch.dtype) -> Value:
    """A constant table in the dtype of the run; single numbers stay numbers."""
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind == "f":
        return torch.from_numpy(np.array(value)).to(dtype)
    return value
