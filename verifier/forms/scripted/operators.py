"""TorchScript's operators as calls of torch: the function that a model's author calls, where there is one.

The same kernels run under either name; by the functions' names and arguments the operators are known elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import get_testing_overrides

from verifier.forms.scripted.plain import CONTAINERS, PLAIN
from verifier.forms.scripted.readings import OPTIMISED, READINGS, Call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def operator(node: Any) -> Callable[..., Any] | None:
    """What computes a node's outputs of its inputs' values, in their order; None where nothing here does.

    A tensor of no dimension that stands for a number of Python's (a size, a factor) is that number.
    """
    kind = node.kind()
    if kind in PLAIN:
        function = PLAIN[kind]
        return _first_of(function) if kind in _UNPACKING and node.outputsSize() == 1 else function
    if kind == "prim::isinstance":
        return _is_instance(node)
    if kind.rstrip("_") in OPTIMISED:
        return OPTIMISED[kind.rstrip("_")]
    if node.schema() == "(no schema)" or any(_is_object(value.type()) for value in node.inputs()):
        return None
    schema = torch._C.parse_schema(node.schema())
    space, _, name = schema.name.partition("::")
    if kind in CONTAINERS and schema.arguments[0].type.kind() in ("ListType", "DictType"):
        return CONTAINERS[kind]
    if space == "prim":
        return _builtin(schema) if name in _PROPERTIES else None
    if name in _MAKING or any(_of_tensors(each.type) for each in schema.arguments):
        return _Operator(schema)
    return _builtin(schema)


# What TorchScript asks of tensors and numbers by itself; all else of its own is for its executor.
_PROPERTIES = frozenset(
    {"abs", "device", "dtype", "is_cpu", "is_cuda", "is_meta", "is_sparse", "itemsize", "layout", "max", "min",
     "name", "nbytes", "rangelist", "requires_grad", "shape"}
)  # fmt: skip


_UNPACKING = frozenset({"prim::ListUnpack", "prim::TupleUnpack"})


def _first_of(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: function(*values)[0]


def _is_object(kind: Any) -> bool:
    """Whether a type is that of objects, such as packed weights."""
    return kind.kind() in ("ClassType", "InterfaceType") or any(map(_is_object, kind.containedTypes()))


def _of_tensors(kind: Any) -> bool:
    """Whether a type is that of tensors, lists of tensors or none."""
    return kind.kind() == "TensorType" or any(map(_of_tensors, kind.containedTypes()))


def _builtin(schema: Any) -> Callable[..., Any]:
    """An operator on numbers and texts, which the interpreter of TorchScript has."""
    function = torch._C._get_operation_overload(schema.name, schema.overload_name)[0]

    def computed(*values: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return function(*values)

    return computed


def _is_instance(node: Any) -> Callable[..., Any] | None:
    kinds = {kind.annotation_str for kind in node.tys("types")}
    known = {"Tensor": Tensor, "int": int, "float": float, "bool": bool, "str": str, "NoneType": type(None)}
    if not kinds <= known.keys():
        return None
    classes = tuple(known[kind] for kind in kinds)
    return lambda value: isinstance(value, classes)


class _Operator:
    """An operator on tensors, met by torch's modes as a call of one function."""

    def __init__(self, schema: Any) -> None:
        self._name = schema.name.partition("::")[2]
        self._arguments = [(each.name, str(each.real_type), each) for each in schema.arguments]
        self._tensors = [_of_tensors(each.type) for each in schema.arguments]
        self._lists = [each.type.kind() == "ListType" for each in schema.returns]
        self._placed = [k for k, each in enumerate(schema.arguments) if not each.kwarg_only]
        self._reading = READINGS.get(schema.name)
        self._other = _overload(schema)
        self._function, self._names = _function(schema)

    def __call__(self, *values: Any) -> Any:
        given = [_converted(value, kind) for value, (_, kind, _) in zip(values, self._arguments, strict=True)]
        if any(self._tensors) and not any(map(_has_tensor, given)):
            return self._of_numbers(given)
        given = self._with_numbers(given)
        call = None
        if self._reading is not None:
            call = self._reading(
                {name: value for (name, _, _), value in zip(self._arguments, given, strict=True)}
            )
        function, args, kwargs = call or self._called(given)
        result = function(*args, **kwargs)
        if len(self._lists) == 1 and self._lists[0] and isinstance(result, tuple):
            return list(result)
        return result

    def _called(self, given: Sequence[Any]) -> Call:
        """The call of a function, by names or in the schema's order, without what is as by default."""
        usual = [
            each.has_default_value() and not isinstance(value, Tensor) and value == each.default_value
            for value, (_, _, each) in zip(given, self._arguments, strict=True)
        ]
        if self._names:
            named = {}
            for (name, _, _), value, left_out in zip(self._arguments, given, usual, strict=True):
                known = _NAMES.get(name, name)
                if known in self._names:
                    named[known] = None if known == "stride" and not value else value
                elif not left_out and name not in _UNSAID:
                    return Call(self._other, given[: len(self._placed)], self._by_name(given, usual))
            if self._name.endswith("_"):
                named["inplace"] = True
            return Call(self._function, [named.pop("input")], named)
        placed = [*self._placed]
        while placed and usual[placed[-1]]:
            placed.pop()
        return Call(self._function, [given[k] for k in placed], self._by_name(given, usual))

    def _by_name(self, given: Sequence[Any], usual: Sequence[bool]) -> dict[str, Any]:
        return {
            name: given[k]
            for k, (name, _, each) in enumerate(self._arguments)
            if each.kwarg_only and not usual[k]
        }

    def _with_numbers(self, given: Sequence[Any]) -> list[Any]:
        """Numbers where tensors are expected: left as they are where that gives the same, else tensors."""
        found = list(given)
        first = given[0]
        for k, value in enumerate(given):
            if not self._tensors[k] or isinstance(value, Tensor) or value is None:
                continue
            if isinstance(value, list | tuple):
                found[k] = [_tensor(each) if isinstance(each, bool | int | float) else each for each in value]
            elif not (
                k == 1
                and self._name.rstrip("_") in _ARITHMETIC
                and isinstance(first, Tensor)
                and first.dim()
                and (
                    first.is_floating_point() or (not isinstance(value, float) and first.dtype != torch.bool)
                )
            ):
                found[k] = _tensor(value)
        return found

    def _of_numbers(self, given: Sequence[Any]) -> Any:
        """What comes of numbers that are tensors in TorchScript, such as sizes that a trace computes with."""
        with torch._C.DisableTorchFunction():
            wrapped = [
                _wrapped(value) if is_tensor else value
                for value, is_tensor in zip(given, self._tensors, strict=True)
            ]
            call = self._called(wrapped)
            result = call.function(*call.args, **call.kwargs)
            return result.item() if isinstance(result, Tensor) and not result.dim() else result


def _has_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(_has_tensor, value)))


def _tensor(value: bool | int | float) -> Tensor:
    """A number as the tensor that it is in TorchScript."""
    kind = (
        torch.bool if isinstance(value, bool) else torch.float64 if isinstance(value, float) else torch.int64
    )
    with torch._C.DisableTorchFunction():
        return torch.tensor(value, dtype=kind)


def _wrapped(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_wrapped(each) for each in value]
    return _tensor(value) if isinstance(value, bool | int | float) else value


# Operators whose second operand may be a number.
_ARITHMETIC = frozenset(
    {
        "add",
        "div",
        "eq",
        "floor_divide",
        "fmod",
        "ge",
        "gt",
        "le",
        "lt",
        "mul",
        "ne",
        "pow",
        "remainder",
        "sub",
    }
)

# What the functional forms call otherwise than the schemas.
_NAMES = {"self": "input", "train": "training"}

# Functions in Python that take what the operator of their name takes, by the same names.
_FUNCTIONAL = {
    name: getattr(F, name)
    for name in (
        "adaptive_avg_pool2d", "adaptive_avg_pool3d", "alpha_dropout", "batch_norm", "celu", "dropout", "elu",
        "feature_alpha_dropout", "glu", "group_norm", "hardsigmoid", "hardswish", "hardtanh", "instance_norm",
        "layer_norm", "leaky_relu", "log_softmax", "max_pool1d", "max_pool2d", "max_pool3d", "mish", "relu", "relu6",
        "rms_norm", "selu", "silu", "softmax", "threshold",
    )
}  # fmt: skip
_UNSAID = frozenset(
    {"cudnn_enable", "cudnn_enabled"}
)  # how to compute, which the functions in Python do not take

# Functions in Python that take them in the same order, of torch.
_ORDERED = frozenset({"norm", "split"})


def _function(schema: Any) -> tuple[Callable[..., Any], frozenset[str]]:
    """The function that stands for an operator, with the names of its arguments if it is called by these."""
    name = schema.name.partition("::")[2]
    plain = name.rstrip("_")
    if plain in _FUNCTIONAL:
        function = _FUNCTIONAL[plain]
        code = function.__code__ if hasattr(function, "__code__") else None
        known = frozenset(() if code is None else code.co_varnames[: code.co_argcount])
        if plain.startswith("max_pool"):
            known = frozenset({"input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"})
        own = {_NAMES.get(each.name, each.name) for each in schema.arguments}
        more = {each.name for each in schema.arguments if each.has_default_value()}
        if own - _UNSAID - more <= known and (plain == name or "inplace" in known):
            return function, known
    space = schema.name.partition("::")[0]
    if space == "aten":
        for owner in (torch, torch._C._nn, torch.Tensor):
            found = getattr(owner, name, None)
            in_python = hasattr(found, "__code__") and name not in _ORDERED
            if found is not None and not in_python and (name in _MAKING or found in get_testing_overrides()):
                return found, frozenset()
        for prefix, owner in (("linalg_", torch.linalg), ("fft_", torch.fft), ("special_", torch.special)):
            found = getattr(owner, name.removeprefix(prefix), None)
            if name.startswith(prefix) and found is not None:
                return found, frozenset()
    return _overload(schema), frozenset()


def _overload(schema: Any) -> Callable[..., Any]:
    """The operator itself."""
    space, _, name = schema.name.partition("::")
    try:
        found: Callable[..., Any] = getattr(
            getattr(getattr(torch.ops, space), name), schema.overload_name or "default"
        )
    except AttributeError:  # one that is TorchScript's alone
        found = torch._C._get_operation_overload(schema.name, schema.overload_name)[0]
    return found


# By TorchScript's numbers for them (c10/core/ScalarType.h).
_DTYPES = {
    0: torch.uint8, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.int64, 5: torch.float16,
    6: torch.float32, 7: torch.float64, 8: torch.complex32, 9: torch.complex64, 10: torch.complex128, 11: torch.bool,
    15: torch.bfloat16,
}  # fmt: skip
_MEMORY_FORMATS = {
    0: torch.contiguous_format, 1: torch.preserve_format, 2: torch.channels_last, 3: torch.channels_last_3d
}  # fmt: skip


def _converted(value: Any, kind: str) -> Any:
    """A value as Python takes it, of a type that is a number in TorchScript."""
    if type(value) is not int:
        return value
    if "ScalarType" in kind:
        return _DTYPES[value]
    if "MemoryFormat" in kind:
        return _MEMORY_FORMATS[value]
    return None if "Layout" in kind else value


# Operators without a tensor among their arguments that make one.
_MAKING = frozenset(
    {"arange", "bartlett_window", "blackman_window", "empty", "eye", "full", "hamming_window", "hann_window",
     "linspace", "logspace", "ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "tensor", "zeros"}
)  # fmt: skip
