"""A node of an ONNX graph, with its attributes as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx


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
