"""An OpenVINO model as a program that runs node after node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from verifier.forms.binding import bound
from verifier.forms.paths import registered
from verifier.graph.interpreted import NOWHERE, Interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.forms.calls import Value
    from verifier.forms.openvino.plan import Plan


class OpenvinoProgram(Interpreter):
    """A model whose nodes run one after the other, each by the runtime's own kernel in the model's own dtype.

    Parameters have the names that the file gives its tensors.

    Args:
        plan: What the file says.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan, self.output_labels = plan, plan.called
        self._paths: dict[str, tuple[str, str]] = {}
        for name, array in plan.tensors.items():
            tensor = torch.from_numpy(array)
            learnt = nn.Parameter(tensor, requires_grad=False) if tensor.is_floating_point() else tensor
            self._paths[name] = registered(self, plan.paths[name], learnt)
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
        values: dict[str, Value] = dict(self.bound(args, kwargs))
        values |= self.plan.constants
        for name, (owner, leaf) in self._paths.items():
            values[name] = getattr(self.get_submodule(owner), leaf)
        dtype = torch.get_default_dtype() if self._first is None else _float_of(values[self._first])
        native = dtype == self.plan.native
        state = vars(self)
        for step, place, done in self.plan.steps:
            given = [values.get(name) if name else None for name in step.node.inputs]
            found = step.static(given)
            if found is None:
                state["running"] = place
                call = step.begin([_widened(value, dtype) for value in given], native=native)
                result = call.function(*call.args, **call.kwargs)
                found = list(result) if isinstance(result, tuple | list) else [result]
            values |= zip((name for name in step.node.outputs if name), found, strict=False)
            for name in done:
                values.pop(name, None)
        state["running"] = NOWHERE
        outputs = tuple(
            torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
            for value in map(values.get, self.plan.outputs)
        )
        return outputs[0] if len(outputs) == 1 else outputs

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """What a model is given, by its inputs' names; arguments and errors are those of `forward`."""
        return bound("the OpenVINO model", self.plan.inputs, args, kwargs)


def _float_of(value: Value) -> torch.dtype:
    return value.dtype if isinstance(value, Tensor) else torch.get_default_dtype()


def _widened(value: Value, dtype: torch.dtype) -> Value:
    """A constant table in the dtype of the run; single numbers stay numbers."""
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind == "f":
        return torch.from_numpy(np.array(value)).to(dtype)
    return value
