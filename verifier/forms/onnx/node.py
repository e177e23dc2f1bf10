"""A node of an ONNX graph, with its attributes as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
        outputs: Names of the values it gives, likewise.
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
    """The number in an array or attribute of one element; a rounded decimal is the decimal.

    ONNX keeps single precision: 1e-05 is 9.99999975e-06 there, and meant is the shortest decimal that rounds to it.
    """
    scalar = np.asarray(value).reshape(-1)[0]
    if isinstance(scalar, np.float32 | np.float16):
        return float(str(scalar))
    return scalar.item()


def numbers(value: Any) -> list[Any]:
    """The numbers in an array of up to one dimension, or in a list."""
    return np.asarray(value).reshape(-1).tolist() if isinstance(value, np.ndarray) else list(value)
