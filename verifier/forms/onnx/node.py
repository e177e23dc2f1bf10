"""A node of an ONNX graph, with its attributes as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx

Value = Tensor | np.ndarray | None
"""What flows between nodes: tensors, and as arrays what depends on no number of the inputs' (shapes, constants)."""


@dataclass(frozen=True)
class OnnxNode:
    """A node of the graph.

    Attributes:
        proto: As it is in the file.
        op: Its operator; those that are not ONNX's own with their domain (`com.microsoft.Gelu`).
        name: Its own name, or its first output's.
        inputs: Names of the values it reads, empty for one left out; then those that graphs inside it read.
        outputs: Names of the values it gives, likewise; but for those at the end that nobody reads, and it may leave
            out.
        attributes: By name: numbers, strings, lists of these; arrays for tensors.
        opset: The version of its operator's domain.
    """

    proto: onnx.NodeProto
    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 0

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or what it is where it is left out."""
        return self.attributes.get(name, default)


class Call(NamedTuple):
    """A node as a call of torch: under which name, of what, with which arguments."""

    name: str
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any] = {}


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
    kind: Any = type(stored)
    size: Any = abs(stored)
    for each in (*_plain(plain, 1), *_CONSTANTS):
        if kind(each) == size:
            return math.copysign(each, plain)
    beside = {kind(np.nextafter(size, kind(0))), size, kind(np.nextafter(size, kind(np.inf)))}
    for each in (*_plain(plain, 2), *_plain(plain, 4)):
        if kind(each) in beside:
            return math.copysign(each, plain)
    return plain


def _plain(number: float, power: int) -> Iterator[float]:
    """Fractions of small numbers near the size of one, or of such the roots with a power."""
    size = abs(number)
    if not _TINY < size < 1 / _TINY:
        return
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
