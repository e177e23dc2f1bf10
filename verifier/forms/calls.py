"""Nodes of other runtimes' graphs as calls of torch, and their inputs as arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Value = Tensor | np.ndarray | None
"""What flows between nodes: tensors, and as arrays what depends on no number of the inputs' (shapes, constants)."""


class Call(NamedTuple):
    """A node as a call of torch: under which name, of what, with which arguments."""

    name: str
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any] = {}


N = TypeVar("N")


class Readings(dict[str, Callable[[N, "Sequence[Value]"], Call | None]], Generic[N]):
    """Readings of nodes by operator: None where one has no words for a node."""

    def of(self, *ops: str) -> Callable[[_Reading[N]], _Reading[N]]:
        """Register a reading of some operators."""

        def registered(reading: _Reading[N]) -> _Reading[N]:
            self.update(dict.fromkeys(ops, reading))
            return reading

        return registered


_Reading = Callable[[N, "Sequence[Value]"], Call | None]


def number(value: Any) -> Any:
    """The number in an array or attribute of one element; of a float in few bits the one that is meant (`meant`)."""
    scalar = np.asarray(value).reshape(-1)[0]
    return meant(scalar) if isinstance(scalar, np.float32 | np.float16) else scalar.item()


def meant(stored: np.float32 | np.float16) -> float:
    """The plainest number that rounds to a stored one: which it is the rounding of, as far as anybody can tell.

    A short decimal (1e-05 is kept as 9.99999975e-06), a fraction of small numbers, a root of one (attention divides
    by the root of a size), or what constants of analysis give. Whichever it is, it is as near to what was meant as
    the stored number itself: within half a unit in its last place; of a root, which may have been taken of a number
    that was rounded before, within the next number.
    """
    plain = float(str(stored))
    if (
        not math.isfinite(plain)
        or plain == 0
        or len(f"{abs(plain):e}".partition("e")[0].rstrip("0")) <= _SHORT
    ):
        return plain
    if not _TINY < abs(plain) < 1 / _TINY:  # a bound, or what stands for infinity in a mask
        return float(stored)
    kind: Any = type(stored)
    size: Any = abs(stored)
    for each in (*_plain(plain, 1), *_CONSTANTS):
        if kind(each) == size:
            return math.copysign(each, plain)
    beside = {kind(np.nextafter(size, kind(0))), size, kind(np.nextafter(size, kind(np.inf)))}
    for each in (*_plain(plain, 2), *_plain(plain, 4)):
        if kind(each) in beside:
            return math.copysign(each, plain)
    return float(stored)  # which was learnt, or computed


def _plain(number: float, power: int) -> Iterator[float]:
    """Fractions of small numbers near the size of one, or of such the roots with a power."""
    size = abs(number)
    for turned in (False, True):  # a fraction, or one over a large number
        near = Fraction((1 / size if turned else size) ** power).limit_denominator(_LARGE)
        small = max(near.numerator, near.denominator) <= _SMALL
        if near and (small or min(near.numerator, near.denominator) == 1):
            root = float(near) ** (1 / power)
            yield 1 / root if turned else root


_SHORT = 6  # characters of a decimal with its point: of those with one more a tenth of all numbers has one
_SMALL, _LARGE, _TINY = 64, 4096, 1e-6  # numbers of a fraction, sizes, and what no root of them comes to
_CONSTANTS = tuple(
    each * factor
    for each in (math.pi, 1 / math.pi, math.sqrt(2 / math.pi), math.log(2), math.e)
    for factor in (0.5, 1.0, 2.0)
)


def numbers(value: Any) -> list[Any]:
    """The numbers in an array of up to one dimension, or in a list."""
    return np.asarray(value).reshape(-1).tolist() if isinstance(value, np.ndarray) else list(value)


def at(given: Sequence[Value], place: int) -> Value:
    """An input, None where it was left out."""
    return given[place] if place < len(given) else None


def operand(value: Value) -> Any:
    """An input as an argument: a tensor, or the number that it is."""
    if isinstance(value, np.ndarray):
        return number(value) if value.size == 1 and value.ndim <= 1 else as_tensor(value)
    return value


def as_tensor(value: Value) -> Tensor:
    """An input as a tensor."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if value is None:
        raise ValueError("a required input was left out")
    return value


def both_ends(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Padding as F.pad takes it: the last dimension first."""
    return [each for pair in zip(reversed(before), reversed(after), strict=True) for each in pair]


def each_end(padding: int | Sequence[int], count: int) -> list[int]:
    """Padding of `count` dimensions as F.pad takes it: given so, or alike at both ends of each or of all."""
    if isinstance(padding, int):
        return [padding] * 2 * count
    return [*padding] if len(padding) == 2 * count else both_ends(padding, padding)


def choice(given: Sequence[Value]) -> Call:
    """One of two values by a condition, as the call that is made of it where one of them is a number."""
    condition, one, two = as_tensor(given[0]), operand(given[1]), operand(given[2])
    if not isinstance(one, Tensor) and isinstance(two, Tensor):
        return Call("masked_fill", _filled, [two, condition, one])
    if not isinstance(two, Tensor) and isinstance(one, Tensor):
        return Call("where", _chosen, [condition, one, two])
    return Call("where", torch.where, [condition, as_tensor(given[1]), as_tensor(given[2])])


def _filled(input: Tensor, mask: Tensor, value: float) -> Tensor:  # noqa: A002 - torch's name for it
    return torch.where(mask, torch.tensor(value, dtype=input.dtype), input)


def _chosen(condition: Tensor, input: Tensor, other: float) -> Tensor:  # noqa: A002
    return torch.where(condition, input, torch.tensor(other, dtype=input.dtype))
