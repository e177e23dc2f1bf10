"""Watching one model run: every tensor-producing call, with the module it happened in.

Both the recorded run and the live ones use this, so they see the same calls in the same order.
"""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode

from verifier.border import heartbeat
from verifier.errors import GraphDepartureError
from verifier.graph.interpreted import Interpreter
from verifier.graph.operators import BLANK, READS, operator_name
from verifier.graph.tensors import same_memory, tensors_in
from verifier.graph.traced import Origin, origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from torch.utils.hooks import RemovableHandle

    from verifier.records import Source


class Known:
    """The tensors met so far, by identity. A freed tensor's address may be used again, so each is checked."""

    __slots__ = ("_references",)

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._references: dict[int, weakref.ref[Tensor]] = {}
        for tensor in tensors:
            self.add(tensor)

    def add(self, tensor: Tensor) -> None:
        """Remember `tensor` for as long as it lives."""
        self._references[id(tensor)] = weakref.ref(tensor)

    def __contains__(self, tensor: Tensor) -> bool:
        reference = self._references.get(id(tensor))
        return reference is not None and reference() is tensor


class _Hook:
    """A hook that stays with the model it was put on: a copy that somebody makes of the model has an idle one."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        self._function(*args)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _idle, ()


def _idle() -> Callable[..., None]:
    return _nothing


def _nothing(*_: Any) -> None:
    pass


class _Scripted(nn.Module):
    """A scripted module behind an ordinary one, because scripted modules take no hooks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._behind = (module,)  # in a tuple, so that it is no submodule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._behind[0](*args, **kwargs)


def _wrap_scripted(model: nn.Module) -> None:
    for parent in list(model.modules()):
        if not isinstance(parent, torch.jit.ScriptModule):
            for name, child in parent._modules.items():
                if isinstance(child, torch.jit.ScriptModule):
                    parent._modules[name] = _Scripted(child)


class Instrument(TorchFunctionMode, ABC):
    """A torch-function mode plus forward hooks on a copy that nobody else holds (see `verifier.models.copying`).

    The mode meets every torch-level call; what a call does inside is not seen, so operators appear as the
    model's author wrote them. The hooks tell which module is running, and catch tensors that were made
    without any torch-level call (scripted modules, C++ extensions).
    """

    def __init__(self, model: nn.Module, inputs: Iterable[Tensor]) -> None:
        super().__init__()
        self._scopes: list[str] = [""]
        given = (*inputs, *model.parameters(), *model.buffers())
        self.bare_shapes = any(
            tensor.is_meta for tensor in given
        )  # then nothing has values, and nothing need have
        self.given_memory = {same_memory(tensor) for tensor in given}
        self._known = Known(given)
        self._kinds = {name: type(module).__name__ for name, module in model.named_modules()}
        self._names: dict[int, str] = {}
        self._traced = {
            name: each for name, each in model.named_modules() if isinstance(each, GraphModule | Interpreter)
        }
        self._hooks: list[RemovableHandle] = []
        self._attach(model)

    def _attach(self, model: nn.Module) -> None:
        """Put hooks on every module."""
        _wrap_scripted(model)
        for name, module in model.named_modules():
            self._hook(name, module)

    def _hook(self, name: str, module: nn.Module) -> None:
        self._names[id(module)] = name
        self._hooks.append(module.register_forward_pre_hook(_Hook(self._enter), prepend=True))
        self._hooks.append(module.register_forward_hook(_Hook(self._leave), always_call=True))

    @property
    def scope(self) -> str:
        """Qualified name of the innermost module that is running; empty at the top."""
        return self.origin.module

    @property
    def origin(self) -> Origin:
        """The innermost module that is running, in a traced program the one that its operator comes from."""
        scope = self._scopes[-1]
        traced = self._traced.get(scope)
        if traced is None:
            return Origin(scope, leaf=False)
        found = traced.running.origin if isinstance(traced, Interpreter) else origin(traced)
        return found._replace(module=".".join(filter(None, (scope, found.module))))

    @property
    def written(self) -> Source | None:
        """Where the node is written that runs, in a program that is no Python; None in any other."""
        program = self._traced.get(self._scopes[-1])
        return program.running.source if isinstance(program, Interpreter) else None

    def detach(self) -> None:
        """Take the hooks off, which tie the model and this object into a cycle. Safe to call twice."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @abstractmethod
    def on_call(
        self,
        op: str,
        function: Callable[..., Any] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        outputs: Sequence[Tensor],
    ) -> None:
        """A call of the operator `op` returned `outputs` (at least one tensor).

        For a module that made its output without any torch-level call, `op` is `opaque:` with the module's
        class and `function` is None.
        """

    def before_call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """A call is about to be made; what it will write in place is still as it was."""

    def on_read(self, tensor: Tensor) -> None:
        """Python took numbers out of `tensor`, where they cannot be followed."""

    def whereabouts(self, op: str) -> str:
        """Where the run stands that is about to call `op`."""
        return f"{op} in {self.scope}" if self.scope else op

    def on_leave(self, name: str, outputs: Sequence[Tensor]) -> None:
        """The module `name` returned `outputs`."""

    def __enter__(self) -> Instrument:
        self._owner = threading.get_ident()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def _enter(self, module: nn.Module, _args: Any) -> None:
        if threading.get_ident() != self._owner:
            raise GraphDepartureError(
                "the model runs its modules in threads of its own, where they cannot be followed. "
                "Run them one after the other."
            )
        self._scopes.append(self._names[id(module)])

    def _leave(self, module: nn.Module, _args: Any, result: Any) -> None:
        # The hooks run inside the mode; what they do is no part of the model.
        if threading.get_ident() != self._owner:
            return  # refused when it was entered
        with torch._C.DisableTorchFunction():
            name = self._names[id(module)]
            outputs = list(tensors_in(result))
            opaque = [tensor for tensor in outputs if tensor not in self._known and not tensor.is_meta]
            if opaque:
                self.on_call(f"opaque:{self._kinds[name]}", None, (), {}, opaque)
                for tensor in opaque:
                    self._known.add(tensor)
            self.on_leave(name, outputs)
            self._scopes.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the call, then show it; torch suspends the mode meanwhile, so nothing inside is met again."""
        kwargs = kwargs or {}
        if heartbeat.watched():
            heartbeat.site(self.whereabouts(operator_name(func)))
        self.before_call(func, args, kwargs)
        result = func(*args, **kwargs)
        if operator_name(func) in BLANK and isinstance(result, Tensor):
            _blank(result)
        self._note(func, args, kwargs, result)
        return result

    def _note(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Show what a call returned."""
        outputs: Sequence[Tensor] = ()
        if isinstance(result, Tensor):
            outputs = [result]
        elif result is None and func is Tensor.__setitem__:
            outputs = [args[0]]  # a write like any other in-place operator, but Python gives it no value
        elif isinstance(result, tuple | list) and type(result) is not torch.Size:
            outputs = list(tensors_in(result))
        if not self.bare_shapes:
            outputs = [tensor for tensor in outputs if not tensor.is_meta]  # those have a shape and no values
        if outputs:
            for tensor in outputs:
                self._known.add(tensor)
            self.on_call(operator_name(func), func, args, kwargs, outputs)
        elif operator_name(func) in READS:
            for tensor in tensors_in(args[:1]):
                self.on_read(tensor)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the mode; exceptions pass through."""
        super().__exit__(exc_type, exc_value, traceback)  # type: ignore[no-untyped-call]


def _blank(tensor: Tensor) -> None:
    """Zeros in memory that nobody wrote, so that what stays unwritten is the same on both sides and in every run."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        return
    with torch._C.DisableTorchFunction(), torch.no_grad():
        tensor.zero_()
