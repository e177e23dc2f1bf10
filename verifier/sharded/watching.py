"""One pass of a model, noted by names: what every module returned and every call between them made."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from verifier.graph.operators import DROPOUTS, bind, operator_name
from verifier.graph.tensors import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch.utils.hooks import RemovableHandle

# Parts of names that wrappers put there.
_WRAPPERS = frozenset({"_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod"})
_OWN = ("torch/distributed/", "torch\\distributed\\")  # calls that torch makes to move tensors about
OUTPUT = "output"
"""The operator of what the model itself returned."""
GIVEN = "given"
"""In the place of an operator: what a module was given first."""
STATE = "state"
"""The operator of what a pass has left in a buffer."""
_BUFFER = "@"  # in front of a buffer's name in the place of an operator
MODULE = "module"
"""The operator of what a module with others inside it returned."""


class Key(NamedTuple):
    """One tensor of a pass: the module's name, what was called in it (empty for what it returns), which time."""

    scope: str
    op: str
    call: int
    output: int = 0

    @property
    def returned(self) -> bool:
        """Whether it is what the model itself returned, by its position."""
        return self.op == OUTPUT and not self.scope

    @property
    def name(self) -> str:
        """As sites are named."""
        base = ".".join(filter(None, (self.scope, self.op.removeprefix(_BUFFER)))) or "the model"
        return (f"{base}_{self.call}" if self.call else base) + (f"[{self.output}]" if self.output else "")


@dataclass
class Event:
    """What was made at one key. `value` is a copy on the CPU, of a sharded tensor the process's own part.

    `above` has the keys of what it was made from, `uses` the parameters and buffers. `call` is the function with
    its arguments, of calls that `keeping` names. `shard` says how a DTensor lies, in words.
    """

    key: Key
    op: str
    kind: str
    value: Tensor
    above: tuple[Key, ...] = ()
    uses: tuple[str, ...] = ()
    shard: str = ""
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = None
    given: Tensor | None = None


@dataclass
class Pass:
    """All of one pass, in the order of execution; `outputs` are what the model returned.

    Behind the calls come all buffers, as they are left; `written` names those that were others before.
    """

    events: dict[Key, Event] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)
    makers: list[Key | None] = field(default_factory=list)
    declared: list[str] = field(default_factory=list)
    kinds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    last: str = ""
    written: set[str] = field(default_factory=set)
    settings: dict[str, dict[str, object]] = field(default_factory=dict)

    def made_by(self, position: int) -> Key | None:
        """The call that made what the model returned there, past all modules around it."""
        return self.inmost(self.makers[position])

    def inmost(self, key: Key | None) -> Key | None:
        """The call that made a module's result, past all modules around it."""
        seen: set[Key] = set()
        while key is not None and key not in seen:
            seen.add(key)
            event = self.events[key]
            if event.op != MODULE or len(event.above) != 1:
                break
            key = event.above[0]
        return key


class Returned(NamedTuple):
    """What one process's model returned at a position, if it did: how a DTensor lies, and the call that made it."""

    declared: str = ""
    value: Tensor | None = None
    maker: Key | None = None


def plain(name: str) -> str:
    """A module's or parameter's name without the parts that wrappers put there."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def local(tensor: Tensor) -> Tensor:
    """What this process has of a tensor."""
    held = getattr(tensor, "_local_tensor", tensor)
    return held.wait() if hasattr(held, "wait") and hasattr(held, "elem") else held


class Watch(TorchFunctionMode):
    """Notes one pass. Nothing is changed but where a tensor is to be overwritten.

    Args:
        model: The module; hooks are put on it until the context ends.
        noting: Where to note it.
        instead: Tensors to write in the place of what is made at a key.
        dropped: Called at each dropout in the place of its own draw with the key and what goes in; gives what comes
            out, or None to leave it to the model.
        keeping: Operators whose arguments are to be kept.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        noting: Pass | None = None,
        instead: Mapping[Key, Tensor] | None = None,
        dropped: Callable[[Key, Tensor, float], Tensor | None] | None = None,
        keeping: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.noted = Pass() if noting is None else noting
        self._model = model
        self._instead = instead or {}
        self._dropped = dropped
        self._keeping = keeping
        self._scopes: list[str] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._producers: dict[int, tuple[weakref.ref[Tensor], Key]] = {}
        self._hooks: list[RemovableHandle] = []
        self._inside = False
        self._state: dict[int, str] = {}
        self._leaves: set[str] = set()
        self._entered: list[tuple[str, tuple[Key, ...], Tensor | None, Any]] = []

    def __enter__(self) -> Watch:
        for name, module in self._model.named_modules():
            short = plain(name)
            self.noted.kinds[short] = tuple(f"{k.__module__}.{k.__qualname__}" for k in type(module).__mro__)
            if _is_leaf(module):
                self._leaves.add(short)
            self._hooks.append(module.register_forward_pre_hook(self._entering(short), with_kwargs=True))
            self._hooks.append(module.register_forward_hook(self._leaving(short)))
        for name, tensor in (*self._model.named_parameters(), *self._model.named_buffers()):
            self._state[id(tensor)] = plain(name)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def returned(self, outputs: Any) -> Pass:
        """The pass, once the model has returned."""
        for tensor in tensors_in(outputs):
            self.noted.outputs.append(_copy(tensor))
            self.noted.makers.append(self._maker(tensor))
            self.noted.declared.append(_placements(tensor))
        return self.noted

    def states(self, before: Mapping[str, Tensor | None], differs: Callable[..., bool]) -> None:
        """Note all buffers, once the model has returned."""
        for name, buffer in self._model.named_buffers():
            full = plain(name)
            scope, _, own = full.rpartition(".")
            call = Key(scope, "", max(0, self.noted.calls[scope] - 1))
            above = (call,) if call in self.noted.events else ()
            key = Key(scope, f"{_BUFFER}{own}", 0)
            self.noted.events[key] = Event(
                key, STATE, STATE, _copy(buffer), above, (full,), _placements(buffer)
            )
            if differs(buffer, before.get(full)):
                self.noted.written.add(full)

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.noted.last = name or "the model"
            with self._unseen():
                given = list(tensors_in((args, kwargs)))
                above = tuple(dict.fromkeys(k for k in map(self._maker, given) if k is not None))
                if given:
                    self._overwrite(Key(name, GIVEN, self.noted.calls[name]), given[0])
                first = _copy(given[0]) if given and given[0].is_floating_point() else None
            self._entered.append((name, above, first, None))
            self._scopes.append(name)

        return enter

    def _leaving(self, name: str) -> Callable[..., Any]:
        def leave(module: nn.Module, _: Any, outputs: Any) -> Any:
            while self._entered and self._entered[-1][0] != name:
                self._entered.pop()
                self._scopes.pop()
            if not self._entered:
                return outputs
            above, given, call = self._entered.pop()[1:]
            self._scopes.pop()
            number = self.noted.calls[name]
            self.noted.calls[name] += 1
            leaf = name in self._leaves
            uses = tuple(
                plain(f"{name}.{own}" if name else own) for own, _ in module.named_parameters(recurse=leaf)
            )
            with self._unseen():
                made_here = list(tensors_in(outputs))
            for k, tensor in enumerate(made_here):
                key = Key(name, "", number, k)
                maker = self._maker(tensor)
                kind = type(module).__name__
                made = above if leaf or maker is None else (maker,)
                op = operator_name(call[0]) if leaf and call is not None else MODULE
                self._note(key, op, kind, tensor, made, uses, call, given)
            return outputs

        return leave

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Make the call and note what it gives."""
        kwargs = kwargs or {}
        if self._inside or not self._scopes:
            return func(*args, **kwargs)
        scope = self._scopes[-1]
        op = operator_name(func)
        if op in DROPOUTS:
            return self._drop(func, op, scope, args, kwargs)
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor | tuple | list) or _called_by_torch():
            return result
        made = list(tensors_in(result))
        if not made:
            return result
        if scope in self._leaves:
            name, above, given, _ = self._entered[-1]
            self._entered[-1] = name, above, given, (func, tuple(args), dict(kwargs))
            return result
        given_tensors = list(tensors_in((args, kwargs)))
        above = tuple(dict.fromkeys(k for k in map(self._maker, given_tensors) if k is not None))
        uses = tuple(self._state[id(t)] for t in given_tensors if id(t) in self._state)
        number = self._counts[scope, op]
        self._counts[scope, op] += 1
        for k, tensor in enumerate(made):
            self._note(
                Key(scope, op, number, k),
                op,
                op,
                tensor,
                above,
                uses,
                (func, tuple(args), dict(kwargs)),
                None,
            )
        return result

    def _drop(self, func: Any, op: str, scope: str, args: Any, kwargs: Any) -> Any:
        named = dict(bind(func, args, kwargs))
        given: Any = named.get("input", args[0] if args else None)
        active = bool(named.get("training", named.get("train", True))) and float(named.get("p", 0.5)) > 0
        leaf = scope in self._leaves
        number = self.noted.calls[scope] if leaf else self._counts[scope, op]
        key = Key(scope, "" if leaf else op, number)
        made = None
        before = _copy(given) if active else None
        if active and self._dropped is not None:
            with self._unseen():
                made = self._dropped(key, given, float(named.get("p", 0.5)))
        result = func(*args, **kwargs) if made is None else made
        if leaf:
            name, above, _, _ = self._entered[-1]
            self._entered[-1] = name, above, before, (func, (), {})
            return result
        self._counts[scope, op] += 1
        if active:
            maker = self._maker(given)
            self._note(key, op, op, result, () if maker is None else (maker,), (), None, before)
        return result

    def _note(
        self,
        key: Key,
        op: str,
        kind: str,
        tensor: Tensor,
        above: tuple[Key, ...],
        uses: tuple[str, ...],
        call: Any,
        given: Tensor | None,
    ) -> None:
        with torch.no_grad(), self._unseen():
            self._overwrite(key, tensor)
            kept = call if call is not None and op in self._keeping else None
            self.noted.events[key] = Event(
                key, op, kind, _copy(tensor), above, uses, _placements(tensor), kept, given
            )
        self._producers[id(tensor)] = weakref.ref(tensor), key

    def _overwrite(self, key: Key, tensor: Tensor) -> None:
        instead = self._instead.get(key)
        if instead is not None:
            held = local(tensor)
            if held.shape == instead.shape:
                with torch.no_grad():
                    held.copy_(instead)

    @contextlib.contextmanager
    def _unseen(self) -> Iterator[None]:
        """Calls made inside are not the model's."""
        before, self._inside = self._inside, True
        try:
            yield
        finally:
            self._inside = before

    def _maker(self, tensor: Tensor) -> Key | None:
        found = self._producers.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None


def _copy(tensor: Tensor) -> Tensor:
    held = local(tensor.detach())
    return held.to("cpu", copy=True) if held.device.type != "cpu" else held.clone()


def _placements(tensor: Tensor) -> str:
    found = getattr(tensor, "placements", None)
    return "" if found is None else ", ".join(map(str, found))


def _called_by_torch() -> bool:
    """Whether torch itself makes the call that is being noted, to move tensors between processes."""
    frame = sys._getframe(2)
    return any(each in frame.f_code.co_filename for each in _OWN)


def _is_leaf(module: nn.Module) -> bool:
    """Whether a module is one of torch.nn's own operators."""
    found = getattr(type(module).forward, "__module__", "") or ""
    return (
        found.startswith("torch.nn.") and not any(module.children()) and not isinstance(module, nn.Identity)
    )
