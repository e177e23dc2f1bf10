"""What TorchScript computes without tensors: lists, dicts, tuples, sizes, conditions."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _nothing(*_: Any) -> None:
    """What only tells somebody."""


def _same(value: Any, *_: Any) -> Any:
    return value


def _raise(message: str, kind: str | None = "") -> None:
    name = (kind or "").rpartition(".")[2]
    raise RuntimeError(f"{name}: {message}" if name else message)


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _size(tensor: Any, dim: int | None = None) -> Any:
    shape = tensor.shape if isinstance(tensor, Tensor) else ()
    return [*shape] if dim is None else shape[dim]


def _dict(*values: Any) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


PLAIN: dict[str, Callable[..., Any]] = {
    "aten::Bool": bool,
    "aten::Float": float,
    "aten::FloatImplicit": float,
    "aten::Int": int,
    "aten::IntImplicit": int,
    "aten::ScalarImplicit": _scalar,
    "aten::__getitem__": operator.getitem,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::__not__": operator.not_,
    "aten::dim": lambda value: value.dim() if isinstance(value, Tensor) else 0,
    "aten::format": lambda text, *values: text.format(*values),
    "aten::item": _scalar,
    "aten::len": len,
    "aten::size": _size,
    "aten::warn": _nothing,
    "prim::DictConstruct": _dict,
    "prim::ListConstruct": lambda *values: [*values],
    "prim::ListUnpack": _same,
    "prim::NumToTensor": _same,
    "prim::Print": _nothing,
    "prim::RaiseException": _raise,
    "prim::TupleConstruct": lambda *values: values,
    "prim::TupleIndex": operator.getitem,
    "prim::TupleUnpack": _same,
    "prim::Uninitialized": _nothing,
    "prim::unchecked_cast": _same,
    "prim::unchecked_unwrap_optional": _same,
}
"""By operator, whatever it is given."""


def _told(change: Callable[..., Any]) -> Callable[..., Any]:
    """A change of a list or dict as an operator, which gives what it has changed."""

    def changed(values: Any, *args: Any) -> Any:
        change(values, *args)
        return values

    return changed


def _cut(values: Sequence[Any], start: int | None, end: int | None, step: int = 1) -> Sequence[Any]:
    return values[start:end:step]


CONTAINERS: dict[str, Callable[..., Any]] = {
    "aten::Delete": _told(operator.delitem),
    "aten::__contains__": operator.contains,
    "aten::_set_item": _told(operator.setitem),
    "aten::add": operator.add,
    "aten::add_": operator.iadd,
    "aten::append": _told(list.append),
    "aten::clear": _told(lambda values: values.clear()),
    "aten::copy": lambda values: values.copy(),
    "aten::dict": dict,
    "aten::extend": _told(list.extend),
    "aten::get": dict.get,
    "aten::insert": _told(list.insert),
    "aten::items": lambda values: [*values.items()],
    "aten::keys": lambda values: [*values],
    "aten::list": list,
    "aten::mul": operator.mul,
    "aten::pop": lambda values, *key: values.pop(*key),
    "aten::reverse": _told(list.reverse),
    "aten::setdefault": dict.setdefault,
    "aten::slice": _cut,
    "aten::update": _told(dict.update),
    "aten::values": lambda values: [*values.values()],
}
"""Of lists and dicts, which are changed where they are."""
