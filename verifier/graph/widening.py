"""Float64 for programs that fix float32 inside: casts to it widen, and a step without a float64 kernel runs alone.

Two programs are compared in float64 because nothing but a real difference shows there. A cast to float32 in the
middle of one (`x.float()`, `softmax(dtype=torch.float32)`, a table built in float32) would leave 1e-8 behind, which
is rounding and not a difference. Narrower casts are meant, and stay what they are.
"""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from verifier.graph.operators import writes_in_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

_WIDE: Mapping[Any, Any] = {
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
    "torch.FloatTensor": "torch.DoubleTensor",
    torch.FloatTensor: torch.DoubleTensor,
}
_WIDER: Mapping[Callable[..., Any], Callable[..., Any]] = {
    Tensor.float: Tensor.double,
    Tensor.cfloat: Tensor.cdouble,  # type: ignore[attr-defined] # torch's stubs lack both
}
_NARROW: Mapping[torch.dtype, torch.dtype] = {
    torch.float64: torch.float32,
    torch.complex128: torch.complex64,
}
# These read given bits as numbers of a dtype: another dtype would be other numbers.
_OF_BITS = frozenset({Tensor.view, torch.frombuffer, torch.from_file})


_OF_DTYPES = re.compile(r"double|float|dtype|scalar type|not implemented|not supported", re.IGNORECASE)


class _Here(threading.local):
    """What a thread is in: how many modes that widen, and how many steps have run narrowed in it."""

    modes = 0
    narrowed = 0


_here = _Here()


class Widening(TorchFunctionMode):
    """Casts to float32 give float64, in every torch-level call of the thread.

    A call that fails on float64 and does not on float32 is made in float32, and its floating-point results are
    float64 again (`narrowed` counts them).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make the call with float64 wherever it names float32."""
        kwargs = kwargs or {}
        try:
            return wider(func)(*widened(func, args), **widened(func, kwargs))
        except (AssertionError, NotImplementedError, RuntimeError) as error:
            # Kernels of float32 need not check sizes that those of float64 refuse: they end the process.
            if not (isinstance(error, NotImplementedError) or _OF_DTYPES.search(str(error))):
                raise
            result = _narrowed(func, args, kwargs)
            if result is NotImplemented:
                raise
            _here.narrowed += 1
            return result

    def __enter__(self) -> Widening:
        _here.modes += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the mode; exceptions pass through."""
        _here.modes -= 1
        super().__exit__(exc_type, exc_value, traceback)  # type: ignore[no-untyped-call]


def widens() -> bool:
    """Whether casts to float32 widen in this thread now."""
    return _here.modes > 0


def narrowed() -> int:
    """How many steps have run in float32 in this thread, since they have no float64 kernel."""
    return _here.narrowed


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """What factories make that are not told a dtype; None for as it is."""
    if dtype is None:
        yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def fixes_single(op: str, attributes: Mapping[str, object]) -> bool:
    """Whether a call, by its operator and its readable arguments, asks for float32."""
    return op in {"float", "cfloat"} or not _ASKED.isdisjoint(map(str, attributes.values()))


_ASKED = frozenset({"torch.float32", "torch.complex64", "torch.FloatTensor"})


def wider(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that does in float64 what this one does in float32."""
    return _WIDER.get(function, function)


def widened(function: Callable[..., Any], given: Any) -> Any:
    """Arguments of a call, by position or by name, with float64 in the place of every float32 they name."""
    if function in _OF_BITS:
        return given
    if isinstance(given, dict):
        return {name: _wide(value) for name, value in given.items()}
    return tuple(map(_wide, given))


def _wide(value: Any) -> Any:
    return _WIDE.get(value, value) if isinstance(value, torch.dtype | str | type) else value


def _narrowed(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a call gives in float32, widened again; `NotImplemented` where that does not go either."""
    lower: dict[int, tuple[Tensor, Tensor]] = {}

    def narrow(tensor: Tensor) -> Tensor:
        if tensor.dtype not in _NARROW:
            return tensor
        return lower.setdefault(id(tensor), (tensor, tensor.to(_NARROW[tensor.dtype])))[1]

    given, named = pytree.tree_map_only(Tensor, narrow, (tuple(args), dict(kwargs)))
    if not lower:
        return NotImplemented
    try:
        result = function(*given, **named)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError):
        return NotImplemented
    if writes_in_place(function, kwargs):
        back = {id(low): tensor.copy_(low) for tensor, low in lower.values()}
        return pytree.tree_map_only(Tensor, lambda tensor: back.get(id(tensor), tensor), result)
    wide = {low: high for high, low in _NARROW.items()}
    return pytree.tree_map_only(Tensor, lambda t: t.to(wide[t.dtype]) if t.dtype in wide else t, result)
