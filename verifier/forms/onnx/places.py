"""Where the nodes of a graph come from: modules of the model that was exported, as far as the file tells."""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import TYPE_CHECKING

from verifier.graph.interpreted import Node
from verifier.graph.traced import CONTAINERS, Origin
from verifier.records import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.forms.onnx.node import OnnxNode


def places(nodes: Sequence[OnnxNode], file: str, first: int) -> list[Node]:
    """Where each node comes from: what the exporter wrote of it, else what its name says.

    Args:
        nodes: The nodes of one graph, in order.
        file: What it is written in.
        first: The number of the first among all nodes of the model.
    """
    found = [_told(node) or _from_name(node) for node in nodes]
    alone = Counter(origin.module for origin in found)
    return [
        Node(
            Origin(origin.module, leaf=origin.leaf or (bool(origin.module) and alone[origin.module] == 1)),
            Source(file=file, line=k, function=node.name),
        )
        for k, (origin, node) in enumerate(zip(found, nodes, strict=True), first)
    ]


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


def _from_name(node: OnnxNode) -> Origin:
    """What torch's older exporter writes: `/layer1/layer1.0/conv1/Conv`."""
    if not re.fullmatch(r"(/[^/]+)+", node.name):
        return Origin("", leaf=False)
    module, before = "", ""
    for part in node.name.split("/")[1:-1]:
        inner = part.startswith(f"{before}.") and before
        module = f"{module}{part[len(before) :]}" if inner else f"{module}.{part}" if module else part
        before = part
    return Origin(module, leaf=False)
