"""Operators by one name each, whatever form they were called in, and their arguments by name."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload
from torch.overrides import get_testing_overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Python's operator protocol and torch's synonyms, by the name torch documents first. Reflected operators that do
# not commute (rsub, rdiv, rpow) keep their names: 3 / x is not x / 3.
_SYNONYMS = {
    "absolute": "abs",
    "bmm": "matmul",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "iadd": "add",
    "imul": "mul",
    "isub": "sub",
    "itruediv": "div",
    "mm": "matmul",
    "multiply": "mul",
    "negative": "neg",
    "radd": "add",
    "rmul": "mul",
    "rtruediv": "rdiv",
    "subtract": "sub",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "true_divide": "div",
    "truediv": "div",
}

# The order of the operands does not matter to these, so it does not matter to the alignment.
COMMUTATIVE = frozenset({"add", "eq", "logical_and", "logical_or", "maximum", "minimum", "mul", "ne"})

# Ways to lay the same elements out in another shape: one operator for the alignment.
RESHAPES = frozenset({"flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view"})

# Ways to lay them out in another order as well, or only elsewhere in memory.
MOVES = RESHAPES | {"H", "T", "adjoint", "clone", "contiguous", "detach", "mH", "mT", "movedim", "moveaxis"}
MOVES |= {"permute", "t", "transpose"}

# Ways to take a part of a tensor, or to repeat it: they compute nothing.
SELECTS = frozenset(
    {"chunk", "expand", "expand_as", "getitem", "narrow", "select", "split", "tensor_split", "unbind"}
)

# Operators that zero a part of what they are given, in training mode.
DROPOUTS = frozenset(
    {"alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"}
)

# Operators that draw random numbers.
DRAWS = DROPOUTS | {
    "bernoulli",
    "multinomial",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "uniform",
}

# What the names of operators begin with that multiply by a matrix.
PRODUCTS = ("conv", "linear", "matmul", "einsum", "baddbmm", "addmm", "bilinear")

# Calls that compute all steps of all layers of a recurrent network.
RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_OF_ALL = ("hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")
_OF_SEQUENCES = ("input", *_OF_ALL, "batch_first")
_OF_PACKED = ("data", "batch_sizes", *_OF_ALL)

# Ways out of torch, to numbers and arrays that Python computes with.
READS = frozenset({"item", "tolist", "numpy", "array", "float", "int", "complex", "bool", "index", "dlpack"})

# Arguments that say how to compute, not what comes out of it in evaluation.
IRRELEVANT = frozenset({"cudnn_enable", "cudnn_enabled", "inplace", "momentum", "out"})

_INPLACE_DUNDERS = frozenset(
    {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__",
     "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__", "__setitem__"}
)  # fmt: skip


def _raw_name(function: Callable[..., Any]) -> str:
    if isinstance(function, OpOverload):  # one of several forms of an operator, as `add.Tensor`
        function = function.overloadpacket
    name: str = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":  # a property such as Tensor.T
        name = getattr(getattr(function, "__self__", None), "__name__", name)
    return name


@cache
def operator_name(function: Callable[..., Any]) -> str:
    """The canonical name of a torch function: `relu` for F.relu, torch.relu, Tensor.relu and relu_ alike."""
    name = _raw_name(function)
    name = name[2:-2] if name.startswith("__") and name.endswith("__") else name.rstrip("_")
    return _SYNONYMS.get(name, name)


@cache
def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """The signature torch's table of overridable functions has for `function`, or its schema says, if any."""
    meant = getattr(function, "stands_for", None)
    dummy = get_testing_overrides().get(meant or function, meant)
    try:
        if isinstance(function, OpOverload):
            return _signature_of_schema(function)
        return None if dummy is None else inspect.signature(dummy)
    except (TypeError, ValueError):
        return None


def _signature_of_schema(function: OpOverload) -> inspect.Signature:
    parameters = []
    for argument in function._schema.arguments:
        kind = (
            inspect.Parameter.KEYWORD_ONLY if argument.kwarg_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        name = "input" if argument.name == "self" else argument.name
        default = argument.default_value if argument.has_default_value() else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


def bind(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """The arguments of a call by name, defaults filled in, in the order of the signature.

    Signatures come from torch's table of overridable functions and from schemas; a function that has neither, or a
    call that takes other arguments than the signature says, gets `arg0`, `arg1`, ... for positional arguments.
    """
    if operator_name(function) in RECURRENT and len(args) == len(_OF_SEQUENCES):
        # The table knows one of two forms: batches of one length have no sizes, and say which dimension is the batch.
        packed = isinstance(args[3], list | tuple)
        return list(zip(_OF_PACKED if packed else _OF_SEQUENCES, args, strict=True))
    signature = signature_of(function)
    if signature is not None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            pass
        else:
            bound.apply_defaults()
            named: list[tuple[str, Any]] = []
            for name, value in bound.arguments.items():
                kind = signature.parameters[name].kind
                if kind is inspect.Parameter.VAR_KEYWORD:
                    named.extend(value.items())
                else:
                    named.append((name, value))
            return named
    return [(f"arg{i}", value) for i, value in enumerate(args)] + list(kwargs.items())


ACTIVATIONS = frozenset(
    {
        "celu",
        "clamp",
        "elu",
        "gelu",
        "glu",
        "hardshrink",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
    }
    | {"logsigmoid", "maximum", "mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu"}
    | {"softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold"}
)
_ARITHMETIC = frozenset({"add", "div", "mul", "sub", "rsub", "rdiv"})


def kind(op: str) -> str:
    """What an operator is for: one may stand in another's place if they are of one kind."""
    if op in ACTIVATIONS:
        return "activation"
    if op in _ARITHMETIC:
        return "arithmetic"
    if "pool" in op or op in {"mean", "amax"}:
        return "pooling"
    if op.endswith("_norm"):
        return "norm"
    return "product" if op.startswith(PRODUCTS) else op


REPLACEABLE = frozenset({"activation", "norm", "pooling"})
"""Kinds of which one operator often stands where another is meant."""


# Operators whose result depends on no value: a tensor like them is as good as a number written down.
CONSTANTS = frozenset(
    {
        "arange",
        "empty",
        "empty_like",
        "empty_permuted",
        "empty_strided",
        "new_empty_strided",
        "eye",
        "full",
        "full_like",
        "linspace",
        "new_empty",
        "new_full",
    }
    | {
        "new_ones",
        "new_tensor",
        "new_zeros",
        "ones",
        "ones_like",
        "scalar_tensor",
        "tensor",
        "zeros",
        "zeros_like",
    }
)


# Operators that give memory as they find it, new or as it was.
BLANK = frozenset(
    {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}
)
UNWRITTEN = BLANK | {"resize"}

# Operators that write every element of what they are given.
FILLS = frozenset(
    {"bernoulli", "cauchy", "copy", "exponential", "fill", "geometric", "log_normal", "normal", "random"}
)
FILLS |= {"uniform", "zero"}


def casts(op: str, attributes: Mapping[str, object]) -> bool:
    """Whether a call names a dtype to convert to: it may change values in another cell, if not in this one."""
    if op in {"to", "type"}:
        return any(value in _DTYPES for value in attributes.values())
    return op in _CASTS


def converts(op: str) -> bool:
    """Whether an operator may give its argument another dtype."""
    return op in _CASTS | {"to", "type", "type_as"}


_CASTS = frozenset({"bfloat16", "double", "float", "half"})
_DTYPES = frozenset(str(value) for value in vars(torch).values() if isinstance(value, torch.dtype))


def writes_in_place(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the call says of itself that it overwrites an argument."""
    name = _raw_name(function)
    if name in _INPLACE_DUNDERS or (name.endswith("_") and not name.endswith("__")):
        return True
    return bool(kwargs.get("inplace")) or kwargs.get("out") is not None


def readable(value: Any) -> object:
    """An argument as a plain value that compares, hashes and prints well, never holding a tensor."""
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple):
        return tuple(readable(item) for item in value)
    if isinstance(value, slice):
        return f"{'' if value.start is None else value.start}:{'' if value.stop is None else value.stop}" + (
            f":{value.step}" if value.step is not None else ""
        )
    if value is Ellipsis:
        return "..."
    if isinstance(value, torch.dtype | torch.device | torch.memory_format | torch.layout):
        return str(value)
    return type(value).__name__


def spelt_out(op: str, attributes: dict[str, object]) -> dict[str, object]:
    """A call's arguments with what None stands for, as torch documents it: so that both ways to write it are one."""
    found = dict(attributes)
    for name, meaning in (
        ("value", 0.0 if op == "pad" else None),
        ("align_corners", False if op == "interpolate" else None),
        ("stride", found.get("kernel_size") if "pool" in op else None),
    ):
        if name in found and found[name] is None:
            found[name] = meaning
    return found


def canonical(value: Any) -> object:
    """An argument as a plain value that is equal where the meaning is: 1, (1, 1) and [1, 1] alike."""
    plain = readable(value)
    if isinstance(plain, tuple) and plain and all(type(item) is int and item == plain[0] for item in plain):
        return plain[0]
    return plain
