"""Calls kept as they were made, to be made again with something changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from verifier.graph.operators import operator_name, signature_of
from verifier.graph.tensors import tensors_in

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class KeptCall:
    """A call with its arguments by name; tensors among them are copies made before the call.

    Attributes:
        function: What was called.
        arguments: Every argument that was given, by the name torch's table of overridable functions has for it
            (`arg0`, `arg1`, ... where the table has none), tensors in any nesting.
        state: Names of the arguments that are parameters or buffers of the model.
    """

    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    state: frozenset[str]

    @classmethod
    def of(
        cls, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], state: set[int]
    ) -> KeptCall:
        """Keep a call that is about to be made; `state` holds the ids of the model's own tensors."""
        named = _bound(function, args, kwargs)

        def own(tensor: Tensor) -> Tensor:
            return tensor.detach() if isinstance(tensor, nn.Parameter) else tensor.detach().clone()

        return cls(
            function,
            {name: pytree.tree_map_only(Tensor, own, value) for name, value in named.items()},
            frozenset(
                name for name, value in named.items() if isinstance(value, Tensor) and id(value) in state
            ),
        )

    @property
    def operands(self) -> list[Tensor]:
        """The tensors among the arguments that are not the model's own, in argument order."""
        return [
            tensor
            for name, value in self.arguments.items()
            if name not in self.state
            for tensor in tensors_in(value)
        ]

    def with_operands(self, operands: Sequence[Tensor]) -> KeptCall:
        """The same call on other tensors, as many as `operands` has."""
        left = iter(operands)
        changed = {
            name: value if name in self.state else pytree.tree_map_only(Tensor, lambda _: next(left), value)
            for name, value in self.arguments.items()
        }
        return KeptCall(self.function, changed, self.state)

    def with_argument(self, name: str, value: Any, *, is_state: bool | None = None) -> KeptCall:
        """The same call with one argument changed or added."""
        state = self.state
        if is_state is not None:
            state = state | {name} if is_state else state - {name}
        return KeptCall(self.function, {**self.arguments, name: value}, state)

    def run(self) -> tuple[list[Tensor], dict[str, Any]]:
        """Make the call: its tensors, and its arguments afterwards. The kept ones stay as they are.

        Raises:
            Exception: Whatever the call raises on such arguments.
        """
        fresh = {
            name: pytree.tree_map_only(Tensor, Tensor.clone, value) for name, value in self.arguments.items()
        }
        signature = signature_of(self.function)
        with torch.no_grad():
            if signature is not None and all(_is_parameter(signature, name) for name in fresh):
                bound = signature.bind_partial()
                for name in signature.parameters:
                    if name in fresh:
                        bound.arguments[name] = fresh[name]
                result = self.function(*bound.args, **bound.kwargs)
            else:
                args = [value for name, value in fresh.items() if _is_positional(name)]
                kwargs = {name: value for name, value in fresh.items() if not _is_positional(name)}
                result = self.function(*args, **kwargs)
        if result is None and operator_name(self.function) == "setitem":
            result = next(tensors_in(list(fresh.values())))
        return list(tensors_in(result)), fresh


def _bound(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    signature = signature_of(function)
    if signature is not None:
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:
            pass
        else:
            if all(_is_parameter(signature, name) for name in arguments):
                return dict(arguments)
    return {**{f"arg{k}": value for k, value in enumerate(args)}, **kwargs}


def _is_parameter(signature: inspect.Signature, name: str) -> bool:
    parameter = signature.parameters.get(name)
    return parameter is not None and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def _is_positional(name: str) -> bool:
    return name.startswith("arg") and name[3:].isdigit()
