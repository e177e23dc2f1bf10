"""A node of an OpenVINO graph, with its attributes as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.forms.calls import Value


@dataclass(frozen=True)
class OpenvinoNode:
    """A node of the graph.

    Attributes:
        op: Its operator.
        name: Its own name.
        inputs: Names of the values it reads.
        outputs: Names of the values it gives, up to the last that is read.
        attributes: By name: numbers, strings, lists of these.
        opset: The set of operators that its own is of, such as `opset8`.
        kinds: The element types of its outputs.
        place: Its number in the order of execution; of several that are one, the last one's.
        shapes: Of inputs that torch has in another shape, by number: the one that they have here.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: str
    kinds: tuple[str, ...]
    place: int
    shapes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or what it is where it is left out."""
        return self.attributes.get(name, default)


def axes(value: Value, dims: int) -> list[int] | None:
    """The axes in an input, none negative; None where they are computed from the inputs' numbers."""
    if not isinstance(value, np.ndarray):
        return None
    return [int(axis) % max(dims, 1) for axis in value.reshape(-1)]
