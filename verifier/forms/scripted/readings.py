"""Operators that a model's author calls otherwise than TorchScript has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence


class Call(NamedTuple):
    """A call of a function."""

    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any] = {}


Given = Mapping[str, Any]
"""The arguments of an operator by name, all of them."""

READINGS: dict[str, Callable[[Given], Call | None]] = {}
"""By operator; None for a call as the schema has it."""


def _of(*names: str) -> Callable[[Callable[[Given], Call | None]], Callable[[Given], Call | None]]:
    def registered(reading: Callable[[Given], Call | None]) -> Callable[[Given], Call | None]:
        READINGS.update({f"aten::{name}": reading for name in names})
        return reading

    return registered


_CONV: dict[int, Callable[..., Any]] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Any]] = {
    3: F.conv_transpose1d,
    4: F.conv_transpose2d,
    5: F.conv_transpose3d,
}


@_of("_convolution")
def _convolution(given: Given) -> Call | None:
    tensors = [given["input"], given["weight"], given["bias"]]
    if given["weight"].dim() not in _CONV:
        return None
    settings = {name: tuple(given[name]) for name in ("stride", "padding", "dilation")}
    settings["groups"] = given["groups"]
    if given["transposed"]:
        settings["output_padding"] = tuple(given["output_padding"])
        return Call(_TRANSPOSED[given["weight"].dim()], tensors, settings)
    if any(given["output_padding"]):
        return None
    return Call(_CONV[given["weight"].dim()], tensors, settings)


@_of("embedding")
def _embedding(given: Given) -> Call:
    padding = given["padding_idx"]
    settings = {
        "padding_idx": None if padding < 0 else padding,
        "scale_grad_by_freq": given["scale_grad_by_freq"],
        "sparse": given["sparse"],
    }
    return Call(F.embedding, [given["indices"], given["weight"]], settings)


@_of("slice")
def _slice(given: Given) -> Call:
    tensor, dim, step = given["self"], given["dim"] % given["self"].dim(), given["step"]
    start, end = given["start"], given["end"]
    start = None if start == 0 else start
    end = None if end is not None and end >= tensor.shape[dim] else end
    if start is None and end is None and step == 1:
        return Call(_itself, [tensor])
    return Call(Tensor.__getitem__, [tensor, _at(dim, slice(start, end, None if step == 1 else step))])


@_of("select")
def _select(given: Given) -> Call | None:
    dim, index = given["dim"] % given["self"].dim(), given["index"]
    return Call(Tensor.__getitem__, [given["self"], _at(dim, index)]) if isinstance(index, int) else None


def _at(dim: int, key: Any) -> Any:
    """A key for one dimension, as Python has it."""
    return (*[slice(None)] * dim, key) if dim else key


def _itself(tensor: Tensor) -> Tensor:
    return tensor


@_of("index")
def _index(given: Given) -> Call:
    indices = [slice(None) if each is None else each for each in given["indices"]]
    return Call(Tensor.__getitem__, [given["self"], tuple(indices)])


@_of("to")
def _to(given: Given) -> Call:
    said = {name: given[name] for name in ("device", "dtype", "memory_format") if given.get(name) is not None}
    said |= {name: True for name in ("copy",) if given.get(name)}
    if "other" in given:
        return Call(Tensor.to, [given["self"], given["other"]], said)
    if said.keys() == {"dtype"}:
        return Call(Tensor.to, [given["self"], said["dtype"]])
    return Call(Tensor.to, [given["self"]], said)


@_of("split", "split_with_sizes")
def _split(given: Given) -> Call:
    sizes = next(given[name] for name in ("split_size", "split_sizes") if name in given)
    return Call(torch.split, [given["self"], sizes, given["dim"]])


@_of("einsum")
def _einsum(given: Given) -> Call | None:
    return None if given["path"] else Call(torch.einsum, [given["equation"], *given["tensors"]])


@_of("numpy_T")
def _turned(given: Given) -> Call:
    return Call(Tensor.T.__get__, [given["self"]])  # type: ignore[attr-defined] # a property


@_of("pad")
def _pad(given: Given) -> Call:
    value = given["value"]
    settings = {"mode": given["mode"]} | ({} if value is None else {"value": value})
    return Call(F.pad, [given["self"], tuple(given["pad"])], settings)


@_of("constant_pad_nd")
def _constant_pad(given: Given) -> Call:
    return Call(F.pad, [given["self"], tuple(given["pad"])], {"value": given["value"]})


def _mirrored(mode: str) -> Callable[[Given], Call]:
    return lambda given: Call(F.pad, [given["self"], tuple(given["padding"])], {"mode": mode})


for _dims in (1, 2, 3):
    _of(f"reflection_pad{_dims}d")(_mirrored("reflect"))
    _of(f"replication_pad{_dims}d")(_mirrored("replicate"))

_UPSAMPLED = {
    "upsample_nearest1d": "nearest", "upsample_nearest2d": "nearest", "upsample_nearest3d": "nearest",
    "upsample_linear1d": "linear", "upsample_bilinear2d": "bilinear", "upsample_trilinear3d": "trilinear",
    "upsample_bicubic2d": "bicubic",
}  # fmt: skip


def _resized(mode: str) -> Callable[[Given], Call | None]:
    def reading(given: Given) -> Call | None:
        size, scale = given["output_size"], given.get("scale_factors")
        if "scale_factors" not in given:
            return None
        settings = {"size": size and tuple(size), "scale_factor": scale and tuple(scale), "mode": mode}
        corners = {"align_corners": given["align_corners"]} if "align_corners" in given else {}
        return Call(F.interpolate, [given["input"]], settings | corners)

    return reading


for _name, _mode in _UPSAMPLED.items():
    _of(_name)(_resized(_mode))


@_of("tensor")
def _tensor(given: Given) -> Call:
    said = {name: given[name] for name in ("dtype", "device") if given[name] is not None}
    return Call(torch.tensor, [next(iter(given.values()))], said)


def _strided(tensor: Tensor, *_: Any) -> Tensor:
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def _oneapi_convolution(
    tensor: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Any:
    settings = {
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
    }
    return _CONV[weight.dim()](tensor, weight, bias, **settings)


def _broadcast(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one shape, each with a place for every element: one of them may be written."""
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))  # type: ignore[no-untyped-call]
    return [each if each.shape == shape else each.expand(shape).contiguous() for each in tensors]


OPTIMISED: dict[str, Callable[..., Any]] = {
    "aten::to_dense": _strided,
    "aten::to_mkldnn": _strided,
    "prim::BroadcastMKLDNNTensors": _broadcast,
    "prim::MKLDNNHardSigmoid": F.hardsigmoid,
    "prim::MKLDNNHardSwish": F.hardswish,
    "prim::MKLDNNRelu6": F.relu6,
    "prim::MKLDNNScalarMul": torch.mul,
    "prim::mkldnn_convolution": _oneapi_convolution,
}
"""What `torch.jit.optimize_for_inference` puts in the place of operators, on tensors that lie as oneDNN likes them.

Here they lie as any others do, and a step that may write its argument gives a new tensor.
"""
