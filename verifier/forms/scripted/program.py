"""A TorchScript module as a program: its methods run node by node, by torch's own operators."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from verifier.errors import InputError
from verifier.forms.paths import registered
from verifier.forms.scripted.graph import CALL, Block, Instruction, Method, Unreadable, method
from verifier.graph.interpreted import NOWHERE, Interpreter
from verifier.graph.tensors import tensors_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_GRAD_MODE = "a grad mode"  # stands for an object that says whether gradients are wanted: none are
_KEPT = "kept: "  # attributes that are no tensors of the module's, nor modules, apart from those of Python's


class ScriptProgram(Interpreter):
    """A module with the parameters, buffers, attributes and submodules of a TorchScript module, by their names.

    Args:
        module: The module, as torch has it in C++.
        known: What is known of the model that it is part of.

    Raises:
        Unreadable: Something in it cannot be run node by node.
    """

    def __init__(self, module: Any, known: Known | None = None) -> None:
        super().__init__()
        known = Known(module) if known is None else known
        if module._get_forward_hooks() or module._get_forward_pre_hooks():
            raise Unreadable("it has hooks")
        for name, tensor in _held(torch._C.ParameterDict, module):
            self._parameters[name] = known.parameter(tensor)
        for name, tensor in _held(torch._C.BufferDict, module):
            self._buffers[name] = None if tensor is None else known.buffer(tensor)
        for name, child in _held(torch._C.ModuleDict, module):
            self._modules[name] = ScriptProgram(child, known)
        self.training = bool(module.getattr("training")) if module.hasattr("training") else False
        held = {*self._parameters, *self._buffers, *self._modules, "training"}
        for name in filter(module.hasattr, known.attributes - held):
            value = vars(self)[_KEPT + name] = _value(module, name, known)
            loose = (each for each in tensors_in(value) if each is not value)
            vars(self).update(
                (f"{_KEPT}{name}, {k}", each) for k, each in enumerate(loose)
            )  # so they are cast
        self._methods, self._made_of = known.methods(module), _MadeOf(module)
        self._paths: dict[tuple[str, str], tuple[str, str]] = {}
        for each, found in self._methods.items():
            for name, tensor in found.tensors.items():
                self._paths[each, name] = self._constant(name, tensor, known)

    def __getattr__(self, name: str) -> Any:
        """What a model around this reads of it: a tensor, a module, an attribute or a method other than `forward`.

        Raises:
            AttributeError: It has no such thing, or one that only Python knows.
        """
        held = vars(self)
        if _KEPT + name in held:
            return held[_KEPT + name]
        if name in held.get("_methods", ()):
            return partial(_called_from_outside, self, name)
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if "_made_of" in held and (value := held["_made_of"].constant(name)) is not None:
                return value
            raise AttributeError(
                f"{name} is nothing that can be read of a TorchScript module that is compared operator by operator. "
                "This is a limit of the verifier if it can be read of the module"
            ) from error

    def _constant(self, name: str, tensor: Tensor, known: Known) -> tuple[str, str]:
        """Register a tensor that is written in a method: of a frozen module its weights, by their names."""
        path = name.removeprefix("self.")
        if path != name and tensor.is_floating_point():
            return registered(self, path, known.parameter(tensor))
        return registered(self, f"constant_{name}".replace(".", "_"), known.buffer(tensor))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the method `forward` returns, or the one of its overloads that was entered.

        Raises:
            InputError: It does not take such arguments.
        """
        return self.call(vars(self).pop("entered", "forward"), args, kwargs)

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a method returns; errors are those of `forward`."""
        found = self._methods[name]
        values = {**found.constants}
        for tensor in found.tensors:
            owner, leaf = self._paths[name, tensor]
            values[tensor] = getattr(self.get_submodule(owner), leaf)
        values |= {each: [values[one] for one in held] for each, held in found.lists.items()}
        values |= zip(found.block.inputs, (self, *bound_by(found.schema, args, kwargs)), strict=True)
        (result,) = self._run(found.block, values)
        vars(self)["running"] = NOWHERE
        returned = found.schema.returns[0].type.kind()
        if returned == "TensorType" and not isinstance(result, Tensor):
            return torch.tensor(result)  # a size, say, which it gives as a tensor
        return result

    def _run(self, block: Block, values: dict[str, Any]) -> list[Any]:
        state = vars(self)
        for instruction in block.instructions:
            given = [values[name] for name in instruction.inputs]
            state["running"] = instruction.place
            if instruction.function is None:
                made = self._controlled(instruction, given, values)
            else:
                result = instruction.function(*given)
                made = [result] if len(instruction.outputs) == 1 else result
            if instruction.outputs:
                values |= zip(instruction.outputs, made, strict=True)
            for name in instruction.done:
                values.pop(name, None)
        return [values[name] for name in block.outputs]

    def _controlled(
        self, instruction: Instruction, given: Sequence[Any], values: dict[str, Any]
    ) -> Sequence[Any]:
        """What an instruction gives that is no operator."""
        if instruction.kind == "prim::GetAttr":
            return [_attribute(given[0], instruction.name)]
        if instruction.kind == "prim::SetAttr":
            _set_attribute(given[0], instruction.name, given[1])
            return []
        if instruction.kind == CALL:
            return [_called(given[0], instruction.name, given[1:])]
        if instruction.kind == "prim::If":
            return self._run(instruction.blocks[0 if given[0] else 1], values)
        if instruction.kind == "prim::Loop":
            return self._looped(instruction.blocks[0], given, values)
        return [_GRAD_MODE] * len(instruction.outputs)

    def _looped(self, body: Block, given: Sequence[Any], values: dict[str, Any]) -> Sequence[Any]:
        most, going, *carried = given
        turn = 0
        while going and turn < most:
            values |= zip(body.inputs, (turn, *carried), strict=True)
            going, *carried = self._run(body, values)
            turn += 1
        return carried


class _MadeOf:
    """A module as torch has it in C++, for what no method of it reads; copies of a program share it."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __deepcopy__(self, _memo: object) -> _MadeOf:
        return self

    def constant(self, name: str) -> Any:
        """An attribute that is no object and holds no tensors; None if there is none of the name."""
        try:
            value = self._module.getattr(name) if self._module.hasattr(name) else None
        except RuntimeError:  # of a class that Python does not know
            return None
        return None if isinstance(value, torch._C.ScriptObject) or any(tensors_in(value)) else value


class Known:
    """What is made once for all modules of a model: methods by type, tensors by what they were made of.

    Attributes:
        attributes: Names of what any method reads or writes of any module.

    Args:
        module: The model, as torch has it in C++.

    Raises:
        Unreadable: A method cannot be run node by node.
    """

    def __init__(self, module: Any) -> None:
        self._methods: dict[str, dict[str, Method]] = {}
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}
        waiting = [module]
        while waiting:
            each = waiting.pop()
            waiting += [child for _, child in _held(torch._C.ModuleDict, each)]
            kind = each._type().qualified_name()
            if kind not in self._methods:
                self._methods[kind] = {name: method(each, name) for name in each._method_names()}
        found = (method for methods in self._methods.values() for method in methods.values())
        self.attributes = frozenset(name for each in found for name in each.attributes)

    def methods(self, module: Any) -> dict[str, Method]:
        """All methods of a module by name."""
        return self._methods[module._type().qualified_name()]

    def parameter(self, tensor: Tensor) -> nn.Parameter:
        """The parameter that a tensor is."""
        made = nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
        found: nn.Parameter = self._tensors.setdefault(id(tensor), (tensor, made))[1]  # type: ignore[assignment]
        return found

    def buffer(self, tensor: Tensor) -> Tensor:
        """The buffer that a tensor is."""
        return self._tensors.setdefault(id(tensor), (tensor, tensor.detach()))[1]


def _held(kind: Any, module: Any) -> list[tuple[str, Any]]:
    """What a module holds itself of one kind, by name."""
    found: list[tuple[str, Any]] = kind(module).items()
    return found


def _value(module: Any, name: str, known: Known) -> Any:
    """An attribute of a module that is no tensor or module of its own."""
    try:
        value = module.getattr(name)
    except RuntimeError as error:
        raise Unreadable(f"its attribute {name} is of a class that Python does not know") from error
    if isinstance(value, torch._C.ScriptObject):
        raise Unreadable(f"its attribute {name} is an object of a class of its own")
    return pytree.tree_map_only(Tensor, known.buffer, value)


def bound_by(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments of a method in its order, defaults filled in."""
    wanted = schema.arguments[1:]
    found = [*args]
    left = dict(kwargs)
    for argument in wanted[len(args) :]:
        if argument.name in left:
            found.append(left.pop(argument.name))
        elif argument.has_default_value():
            found.append(argument.default_value)
    if left or len(found) != len(wanted):
        names = ", ".join(argument.name for argument in wanted)
        raise InputError(
            f"the TorchScript module takes ({names}), and was given {len(args)} by position and "
            f"{', '.join(kwargs) or 'none'} by name. Give what it takes."
        )
    return found


def _attribute(owner: Any, name: str) -> Any:
    for table in (owner._parameters, owner._buffers, owner._modules):
        if name in table:
            return table[name]
    return owner.training if name == "training" else vars(owner)[_KEPT + name]


def _set_attribute(owner: Any, name: str, value: Any) -> None:
    if name == "training":
        owner.training = value
    elif name in owner._buffers:
        owner._buffers[name] = value
    else:
        vars(owner)[_KEPT + name] = value


def _called_from_outside(owner: ScriptProgram, name: str, *args: Any, **kwargs: Any) -> Any:
    return owner.call(name, args, kwargs)


def _called(owner: Any, name: str, args: Sequence[Any]) -> Any:
    if owner is _GRAD_MODE:
        return None
    if name.partition("__")[0] != "forward":
        return owner.call(name, args, {})
    vars(owner)["entered"] = name  # `forward__1` is an overload
    return owner(*args)
