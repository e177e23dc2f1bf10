"""Watching a model's own object while its process drives it: what was running stays what runs."""

from __future__ import annotations

import contextlib
import functools
import threading
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode

from verifier.border.error_texts import first_line
from verifier.graph.operators import DRAWS
from verifier.graph.recording import Recorder
from verifier.graph.returned import Returned
from verifier.graph.tensors import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import CodeType

    from verifier.graph.sites import Graph

# Fused paths that torch's own modules take only where no torch-function mode is on.
_FUSED = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer)
CALL = "_compiled_call_impl"  # what torch calls in the place of a module's own call, and copies leave behind


class Stand:
    """Stands in the place of a module's call until it leaves, seen by no copy of the module.

    Args:
        module: The module.
        call: Called with what the module does itself, the arguments and those by keyword.
    """

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        self._module = module
        self._before = vars(module).get(CALL)
        inner = self._before or module._call_impl

        def instead(*args: Any, **kwargs: Any) -> Any:
            return call(inner, args, kwargs)

        vars(module)[CALL] = instead

    def leave(self) -> None:
        """Leave the module as it was. Safe to call twice."""
        if self._before is None:
            vars(self._module).pop(CALL, None)
        else:
            vars(self._module)[CALL] = self._before


class LiveRecorder(Recorder):
    """Notes one forward pass of the object that its process runs.

    Only the thread that made it is watched. Modules that are compiled, scripted or would leave a fused path are
    closed: they run with the mode set aside, and are seen from outside. Whatever goes wrong in here ends the
    recording, never the pass.

    Args:
        model: The module that is about to run; it gets hooks until `detach`.
        inputs: The tensors that it was given.
        outermost: The code of the function that runs it.
        visit: Told of each tensor as soon as it was made, by the index of its site.
        whole: Why the model itself cannot be looked into; empty where it can.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Tensor],
        outermost: CodeType,
        visit: Callable[[int, Tensor], None],
        whole: str = "",
    ) -> None:
        self._whole = whole
        self.closed: dict[str, str] = {}
        self.broken = ""
        self._visit = visit
        self._thread = threading.get_ident()
        self._stands: list[Stand] = []
        self._drew = False
        super().__init__(model, inputs, outermost)

    def _attach(self, model: nn.Module) -> None:
        """Put hooks on every module that can be looked into, and close the others."""
        inside: list[str] = []
        for name, module in [] if self._whole else model.named_modules():
            if any(name.startswith(f"{each}.") for each in inside):
                continue
            why = closed(module) if name else ""
            if not why:
                self._hook(name, module)
                continue
            inside.append(name)
            self.closed[name] = why
            self._stands.append(Stand(module, self._around(name, module)))

    def detach(self) -> None:
        """Take the hooks off and open what was closed. Safe to call twice."""
        super().detach()
        while self._stands:
            self._stands.pop().leave()

    def _around(self, name: str, module: nn.Module) -> Callable[..., Any]:
        scripted = isinstance(module, torch.jit.ScriptModule)
        kind = module.original_name if scripted else type(getattr(module, "_orig_mod", module)).__name__

        def call(inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if threading.get_ident() != self._thread:
                return inner(*args, **kwargs)
            with self.aside():
                result = inner(*args, **kwargs)
            with torch._C.DisableTorchFunction():
                self._scopes.append(name)
                self._guarded(self._met, f"opaque:{kind}", args, kwargs, result)
                self._scopes.pop()
            return result

        return call

    def _met(self, op: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        outputs = [tensor for tensor in tensors_in(result) if tensor not in self._known]
        if outputs:
            self.on_call(op, None, args, kwargs, outputs)
            for tensor in outputs:
                self._known.add(tensor)

    def whole(self, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Note the model as one site, where it is closed itself."""
        self._guarded(self._met, f"opaque:{self._kinds['']}", args, kwargs, result)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Without this mode, as if nothing were watching; where another one lies above it nothing can be done."""
        stack = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        if not stack or stack[-1] is not self:
            yield
            return
        _pop_mode()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            _push_mode(self)  # type: ignore[no-untyped-call]

    def _guarded(self, note: Callable[..., None], *args: Any) -> None:
        """Where something fails in here, or did before, the recording is over and the pass goes on."""
        if self.broken:
            return
        try:
            note(*args)
        except Exception as error:
            self.broken = first_line(error)

    def on_call(
        self,
        op: str,
        function: Callable[..., Any] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        outputs: Sequence[Tensor],
    ) -> None:
        """Note the call, and show what it made."""
        first = len(self._drafts)
        super().on_call(op, function, args, kwargs, outputs)
        self._drew |= op in DRAWS and not self._drafts[first].identity
        for k, tensor in enumerate(outputs):
            # Inside vmap and the like a tensor is one sample's view of another, and holds no numbers of its own.
            if not (self._drafts[first + k].identity or is_functorch_wrapped_tensor(tensor)):
                self._visit(first + k, tensor)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the call, then note it."""
        if torch.compiler.is_compiling():  # a compiled function that a module calls: it is compiled as it is
            return func(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if threading.get_ident() == self._thread:
            self._guarded(self._note, func, args, kwargs or {}, result)
        return result

    def _enter(self, module: nn.Module, _args: Any) -> None:
        if threading.get_ident() == self._thread:
            self._scopes.append(self._names[id(module)])

    def _leave(self, module: nn.Module, _args: Any, result: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        depth = len(self._scopes)
        self._guarded(super()._leave, module, _args, result)
        del self._scopes[max(1, depth - 1) :]

    def finished(self, result: Any) -> tuple[Graph, Returned]:
        """The graph of the pass, and what it returned.

        Raises:
            ModelError: It returned something that contains itself.
        """
        returned = Returned.of(result)
        return self.graph(returned, draws=self._drew), returned


def closed(module: nn.Module) -> str:
    """Why a module cannot be looked into without changing what runs; empty where it can."""
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted"
    forward = vars(module).get("forward", type(module).forward)
    if (
        "_orig_mod" in module._modules
        or getattr(module, CALL, None) is not None
        or hasattr(forward, "_torchdynamo_orig_callable")
    ):
        return "compiled"
    kind: Any = type(module)
    if any(map(_is_compiled, vars(module).values())) or _calls_compiled(kind):
        return "calls compiled functions"
    if isinstance(module, _FUSED) and not module.training:
        return "has a fused path that is taken only where nothing watches"
    return ""


def _is_compiled(value: object) -> bool:
    return isinstance(value, types.FunctionType) and hasattr(value, "_torchdynamo_orig_callable")


@functools.lru_cache(1024)
def _calls_compiled(kind: type[nn.Module]) -> bool:
    """Whether a class has compiled functions, or its forward names global ones."""
    function = kind.forward
    code, names = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    called = [] if code is None else [names.get(name) for name in code.co_names]
    return any(map(_is_compiled, (*vars(kind).values(), *called)))
