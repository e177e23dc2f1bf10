"""Working on copies: the models that were given are never run, hooked or written to."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph

from verifier.border.error_texts import account
from verifier.border.programs import by_program
from verifier.border.signals import check_unanswered
from verifier.errors import ModelError
from verifier.models.rebinding import held_by, is_callable, rebound

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by qualified name, persistent or not; a shared one appears once."""
    found: dict[str, Tensor] = {}
    modules = _named_modules(model)
    for kind in _KINDS:
        seen: set[int] = set()
        for name, tensor in _named(modules, kind):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[name] = tensor.detach()
    return found


def copy_with(
    model: nn.Module,
    state: Mapping[str, Tensor],
    adapt: Callable[[Tensor], Tensor],
    *,
    role: str,
    written: Collection[str] | None = None,
) -> nn.Module:
    """A copy of `model` whose parameters and buffers are the tensors of `state`, not copies of them.

    Module objects are new, so hooks and buffers of the copy are its own; tensors are shared, so ten copies
    cost the memory of one. What a forward pass writes is cloned. Tensors that modules hold as plain attributes go
    through `adapt` as well (torch's own `Module.to` would leave them behind).

    Args:
        model: The module to copy; left untouched.
        state: A tensor for each name of `state_of(model)`, already in the wanted dtype and device.
        adapt: What to do with a tensor that is a plain attribute (cast, move).
        role: What the model is called in messages (`baseline`, `candidate`).
        written: Names of the tensors a forward pass writes; None if that is not known, for all of them.

    Raises:
        ModelError: The module cannot be copied.
    """
    memo: dict[int, Any] = {}
    named = _named_modules(model)
    modules = [module for _, module in named]
    beside = _beside(modules)
    for name, tensor in (each for kind in _KINDS for each in _named(named, kind)):
        if id(tensor) in memo:
            continue
        own = state[name].clone() if written is None or name in written else state[name]
        if isinstance(tensor, nn.Parameter):
            trainable = tensor.requires_grad and own.is_floating_point() and not own.is_inference()
            own = nn.Parameter(own, requires_grad=trainable)
        memo[id(tensor)] = own
    loose = [value for module in (*modules, *beside) for value in vars(module).values()]
    loose += [
        tensor for module in beside for tensor in (*module._parameters.values(), *module._buffers.values())
    ]
    loose += [tensor for tensor in _held_by_functions(modules) if isinstance(tensor, Tensor)]
    for value in loose:
        if isinstance(value, Tensor) and not isinstance(value, FakeTensor) and id(value) not in memo:
            adapted = adapt(value.detach())
            own = adapted.clone() if adapted.data_ptr() == value.data_ptr() else adapted
            memo[id(value)] = (
                nn.Parameter(own, requires_grad=False) if isinstance(value, nn.Parameter) else own
            )
    try:
        with _fakes_kept():
            _copy_modules([*modules, *beside], memo)
            copied = copy.deepcopy(model, memo)
    except BaseException as error:
        check_unanswered(error)
        raise by_program(
            ModelError(
                f"the {role} ({type(model).__name__}) cannot be copied for the comparison: {account(error)}. "
                "Give its modules a working __deepcopy__, or pass a function that builds the model."
            )
        ) from error
    _keep_modes(modules, memo)
    return copied


@contextlib.contextmanager
def _fakes_kept() -> Iterator[None]:
    """Tensors without values that traced graphs keep beside their nodes are taken as they are.

    torch cannot copy them, nor the graphs then; nobody writes into them.
    """
    known: dict[Any, Any] = copy._deepcopy_dispatch  # type: ignore[attr-defined] # where copiers are registered
    if FakeTensor in known:
        yield
        return
    known[FakeTensor] = lambda fake, _memo: fake
    try:
        yield
    finally:
        known.pop(FakeTensor, None)


def _keep_modes(modules: Sequence[nn.Module], memo: Mapping[int, Any]) -> None:
    """Training modes as they were: a module that is built anew to be copied starts in one of its own."""
    for module in modules:
        copied = memo.get(id(module))
        if isinstance(copied, nn.Module) and copied.training is not module.training:
            copied.training = module.training


def unshared(copied: nn.Module) -> nn.Module:
    """A copy that `copy_with` made, with tensors of its own from now on, whatever it may do to them."""
    for parameter in copied.parameters():
        if not parameter.is_inference():
            parameter.data = (
                parameter.data.clone()
            )  # the same object: some modules list their parameters elsewhere
    own: dict[int, Tensor] = {}
    for module in copied.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = own.setdefault(id(buffer), buffer.clone())
    return copied


_KINDS = ("_parameters", "_buffers")


def _named(modules: Sequence[tuple[str, nn.Module]], kind: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters or buffers, with the names `state_of` gives them; a shared one comes up again."""
    for prefix, module in modules:
        for name, tensor in getattr(module, kind).items():
            if tensor is not None:
                yield (f"{prefix}.{name}" if prefix else name), tensor


def _named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What `named_modules` gives, whose generators within generators take several times as long in a deep model."""
    found: dict[int, tuple[str, nn.Module]] = {}
    waiting: list[tuple[str, nn.Module]] = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if type(module).named_modules is not nn.Module.named_modules:  # it has its own idea of what is inside
            return list(model.named_modules())
        if id(module) in found:
            continue
        found[id(module)] = name, module
        children = [
            (f"{name}.{key}" if name else key, child)
            for key, child in module._modules.items()
            if child is not None
        ]
        waiting += reversed(children)
    return list(found.values())


def _held_by_functions(modules: Sequence[nn.Module]) -> Iterator[nn.Module | Tensor]:
    """What the functions reach that belong to single modules: patched forwards, hooks."""
    for module in modules:
        for value in vars(module).values():
            kind = type(value)
            if kind in _ATOMS or (kind in _TABLES and not value):  # most of a module
                continue
            if isinstance(value, dict):
                for function in filter(is_callable, value.values()):
                    yield from held_by(function)
            elif is_callable(value):
                yield from held_by(value)


def _beside(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Modules that are no part of the model, but that a function of one of its modules calls."""
    known = {id(module) for module in modules}
    found = (
        module
        for held in _held_by_functions(modules)
        if isinstance(held, nn.Module)
        for module in held.modules()
    )
    return [module for module in {id(each): each for each in found}.values() if id(module) not in known]


def _copy_modules(modules: Sequence[nn.Module], memo: dict[int, Any]) -> None:
    """Put copies of all modules that say nothing about how they are copied into `memo`.

    What `copy.deepcopy` would make of them, several times faster: most of a module is a dozen empty tables. Functions
    that belong to single modules follow (`verifier.models.rebinding`).
    """
    plain = [module for module in modules if is_plain(module.__class__) and not _traced(module)]
    for module in plain:  # all of them first: an attribute of one may lead to any other
        memo[id(module)] = type(module).__new__(type(module))
    for module in modules:  # what torch.compile wrapped stands in the wrapper's place
        if INSIDE in module._modules and id(module) not in memo:
            memo[id(module)] = copy.deepcopy(module._modules[INSIDE], memo)
    memo[id(memo)] = [*modules]  # as deepcopy does: what was copied lives on, so that its id stays its own
    for module in plain:
        state = {name: _copied(value, memo) for name, value in vars(module).items() if name != _COMPILED}
        memo[id(module)].__setstate__(state)


def is_plain(kind: type[nn.Module]) -> bool:
    """Whether modules of a class say nothing about how they are copied."""
    return not hasattr(kind, "__deepcopy__") and all(
        getattr(kind, name, None) is getattr(nn.Module, name, None)
        for name in ("__new__", "__reduce_ex__", "__reduce__", "__getstate__")
    )


def _traced(module: nn.Module) -> bool:
    """Whether a module holds a graph, whose copy is made of finished modules."""
    return any(isinstance(value, Graph) for value in vars(module).values())


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind in _TABLES and not value:
        return memo.setdefault(id(value), kind())
    if kind is tuple and all(type(each) in _ATOMS for each in value):
        return value
    if is_callable(value):
        return memo.setdefault(id(value), rebound(value, lambda each: _copied(each, memo), memo))
    if kind in (dict, OrderedDict) and all(type(key) is str for key in value):
        made = memo.setdefault(id(value), kind())
        made.update((key, _copied(each, memo)) for key, each in value.items())
        return made
    if kind in (dict, OrderedDict) and any(map(is_callable, value.values())):
        return memo.setdefault(id(value), kind((key, _copied(each, memo)) for key, each in value.items()))
    if kind in (list, tuple) and any(map(is_callable, value)):
        return kind(_copied(each, memo) for each in value)
    return copy.deepcopy(value, memo)


INSIDE = "_orig_mod"
"""What torch.compile calls a module in the one that it wraps around it."""

_COMPILED = "_compiled_call_impl"  # what `Module.compile` leaves: it calls the original
_ATOMS = frozenset({bool, int, float, str, type(None)})
_TABLES = frozenset({dict, OrderedDict, list, set})
