"""Where the nodes of a graph come from: modules of the model that was exported, as far as the file tells."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verifier.forms.paths import module_of, placed
from verifier.graph.traced import CONTAINERS, Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.forms.onnx.node import OnnxNode
    from verifier.graph.interpreted import Node


def places(nodes: Sequence[OnnxNode], file: str, first: int) -> list[Node]:
    """Where each node comes from: what the exporter wrote of it, else what its name says.

    Args:
        nodes: The nodes of one graph, in order.
        file: What it is written in.
        first: The number of the first among all nodes of the model.
    """
    found = [_told(node) or Origin(module_of(node.name), leaf=False) for node in nodes]
    return placed(found, [node.name for node in nodes], file, first)


def _told(node: OnnxNode) -> Origin | None:
    """What torch's exporter tells of a node in its metadata."""
    kept = {each.key: each.value for each in node.proto.metadata_props}
    try:
        scopes = ast.literal_eval(kept["pkg.torch.onnx.name_scopes"])[:-1]
        kinds = ast.literal_eval(kept["pkg.torch.onnx.class_hierarchy"])[:-1]
    except (KeyError, SyntaxError, ValueError):
        return None
    if not scopes:
        return None
    kind = kinds[-1] if kinds else ""
    leaf = kind.startswith("torch.nn.") and kind.rpartition(".")[2] not in CONTAINERS
    return Origin(str(scopes[-1]), leaf)
