"""Calls kept as they were made, to be made again with something changed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from verifier.graph.chance import RandomState, random_state, set_random_state
from verifier.graph.operators import operator_name, signature_of, writes_in_place
from verifier.graph.tensors import copied, tensors_in
from verifier.graph.widening import Widening, default_dtype

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class KeptCall:
    """A call with its arguments by name; tensors among them are copies made before the call.

    Attributes:
        function: What was called.
        arguments: Every argument that was given, by the name torch's table of overridable functions has for it
            (`arg0`, `arg1`, ... where the table has none), tensors in any nesting.
        state: Names of the arguments that are parameters or buffers of the model.
        chance: Where the random numbers stood; None where the model draws none.
        positional: Names of those that were given by position, in order; the others are given by keyword.
        widens: Whether casts to float32 widened where it was made.
    """

    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    state: frozenset[str]
    positional: tuple[str, ...]
    chance: RandomState | None = None
    widens: bool = False

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        state: set[int],
        *,
        draws: bool = False,
        widens: bool = False,
    ) -> KeptCall:
        """Keep a call that is about to be made; `state` holds the ids of the model's own tensors.

        With `draws` it draws the same random numbers when it is made again.
        """
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}  # what is returned anyway
        named = _bound(function, args, kwargs)
        positional = tuple(named)[: len(args)]

        def own(tensor: Tensor) -> Tensor:
            return tensor.detach() if isinstance(tensor, nn.Parameter) else copied(tensor)

        return cls(
            function,
            {name: pytree.tree_map_only(Tensor, own, value) for name, value in named.items()},
            frozenset(name for name, value in named.items() if _is_state(value, state)),
            positional,
            random_state() if draws else None,
            widens,
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
        return replace(self, arguments=changed)

    def with_tensors(self, name: str, tensors: Sequence[Tensor]) -> KeptCall:
        """The same call with the tensors in one argument exchanged for as many others."""
        left = iter(tensors)
        value = pytree.tree_map_only(Tensor, lambda _: next(left), self.arguments[name])
        return replace(self, arguments={**self.arguments, name: value})

    def with_argument(self, name: str, value: Any, *, is_state: bool | None = None) -> KeptCall:
        """The same call with one argument changed or added."""
        state = self.state
        if is_state is not None:
            state = state | {name} if is_state else state - {name}
        return replace(self, arguments={**self.arguments, name: value}, state=state)

    def without_argument(self, name: str) -> KeptCall:
        """The same call without one argument that was given by keyword."""
        left = {key: value for key, value in self.arguments.items() if key != name}
        return replace(self, arguments=left, state=self.state - {name})

    def made_on(self, operands: Sequence[Tensor]) -> list[Tensor]:
        """The tensors the call gives on others, which stay as they are; only what may be written to is copied.

        To be called without gradients and within `surroundings`, in which `run` makes its call by itself.

        Raises:
            Exception: Whatever the call raises on such arguments.
        """
        if self.chance is not None or self._writes:
            return self.with_operands(operands).run()[0]
        left = iter(operands)
        given: dict[str, Any] = {}
        for name, value in self.arguments.items():
            if name in self.state or isinstance(value, _PLAIN):
                given[name] = value
            elif isinstance(value, Tensor):
                given[name] = next(left)
            else:
                given[name] = pytree.tree_map_only(Tensor, lambda _: next(left), value)
        positional = [given.pop(name) for name in self.positional]
        return list(tensors_in(self.function(*positional, **given)))

    @property
    def _writes(self) -> bool:
        name = operator_name(self.function)
        return writes_in_place(self.function, self.arguments) or any(each in name for each in _WRITERS)

    def surroundings(self) -> contextlib.AbstractContextManager[None]:
        """What the call was made in."""
        return _wide() if self.widens else contextlib.nullcontext()

    def run(self) -> tuple[list[Tensor], dict[str, Any]]:
        """Make the call: its tensors, and its arguments afterwards. The kept ones stay as they are.

        Raises:
            Exception: Whatever the call raises on such arguments.
        """
        fresh = {
            name: pytree.tree_map_only(Tensor, Tensor.clone, value) for name, value in self.arguments.items()
        }
        before = None if self.chance is None else random_state()
        try:
            if self.chance is not None:
                set_random_state(self.chance)
            with torch.no_grad(), self.surroundings():
                result = self.function(
                    *(fresh[name] for name in self.positional),
                    **{name: value for name, value in fresh.items() if name not in self.positional},
                )
        finally:
            if before is not None:
                set_random_state(before)
        if result is None and operator_name(self.function) == "setitem":
            result = next(tensors_in(list(fresh.values())))
        return list(tensors_in(result)), fresh


_PLAIN = (str, int, float, complex, type(None), torch.dtype, torch.device)
_WRITERS = ("batch_norm", "instance_norm", "embedding")  # running statistics, and rows brought to a length


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    with Widening(), default_dtype(torch.float64):
        yield


def _is_state(value: Any, state: set[int]) -> bool:
    """Whether an argument is a parameter or buffer, or a list of such, as recurrent layers take."""
    tensors = list(tensors_in(value))
    return bool(tensors) and all(id(tensor) in state for tensor in tensors)


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
