"""Names that a file gives to tensors and nodes: where in a module's tree they stand."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from torch import nn

from verifier.graph.interpreted import Node
from verifier.graph.traced import Origin
from verifier.records import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from verifier.graph import Graph
    from verifier.graph.sites import Site


def registered(program: nn.Module, name: str, tensor: Tensor) -> tuple[str, str]:
    """Keep a tensor under a dotted name, as a parameter if it is one, else as a buffer.

    Returns:
        The name of the module that holds it, and its own there, which is another one where the name is taken.
    """
    *path, leaf = [part or "_" for part in name.split(".")]
    owner = program
    for k, part in enumerate(path):
        free = part if part in owner._modules or not hasattr(owner, part) else f"{part}_"
        child = owner._modules.get(free) or nn.Module()
        owner._modules[free] = child
        path[k], owner = free, child
    while hasattr(owner, leaf):
        leaf += "_"
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(leaf, tensor)
    else:
        owner.register_buffer(leaf, tensor)
    return ".".join(path), leaf


def module_of(name: str) -> str:
    """The module that a node comes from by its name, as converters write it; empty where it does not say.

    `/layer1/layer1.0/conv1/Conv` (torch's older ONNX exporter) and `__module.layer1.0.conv1/aten::conv2d/Convolution`
    (OpenVINO's converter) are of `layer1.0.conv1`.
    """
    if name.startswith("__module."):
        return name.partition("/")[0].removeprefix("__module.")
    if not re.fullmatch(r"(/[^/]+)+", name):
        return ""
    module, before = "", ""
    for part in name.split("/")[1:-1]:
        inner = part.startswith(f"{before}.") and before
        module = f"{module}{part[len(before) :]}" if inner else f"{module}.{part}" if module else part
        before = part
    return module


def placed(origins: Sequence[Origin], names: Sequence[str], file: str, first: int = 1) -> list[Node]:
    """Where nodes come from; the only one of a module stands for it.

    Args:
        origins: The module of each.
        names: Their own names.
        file: What they are written in.
        first: The number of the first in it, which stands for a line.
    """
    alone = Counter(origin.module for origin in origins)
    return [
        Node(
            Origin(origin.module, leaf=origin.leaf or (bool(origin.module) and alone[origin.module] == 1)),
            Source(file=file, line=k, function=name),
        )
        for k, (origin, name) in enumerate(zip(origins, names, strict=True), first)
    ]


def numbered(graph: Graph) -> Iterator[tuple[int, Site]]:
    """The sites of a program of nodes, each with the number of its node (`placed`)."""
    return ((site.source.line, site) for site in graph.sites if site.source is not None)
