"""Where the operators of a traced program (FX, torch.export) came from: modules of the model that was traced."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import FrameType

    from torch.fx import GraphModule, Node

CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict"})
_ROOT = re.compile(r"^L\['\w+'\]")  # what torch's compiler calls the module that it was called for


class Origin(NamedTuple):
    """The module that an operator was traced in: its qualified name, and whether it is one of torch.nn's own."""

    module: str
    leaf: bool


def origin(traced: GraphModule) -> Origin:
    """The module that the node comes from which `traced` runs now, in this thread; no name where none is known."""
    node = _running(traced)
    return Origin("", leaf=False) if node is None else origin_of(node)


def origin_of(node: Node) -> Origin:
    """The module that a node comes from; no name where none is known."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return Origin("", leaf=False)
    name, kind = next(reversed(stack.values()))
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    name = _ROOT.sub("", name).lstrip(".")
    return Origin(name, kind.startswith("torch.nn.") and kind.rpartition(".")[2] not in CONTAINERS)


def _running(traced: GraphModule) -> Node | None:
    """The node whose line of the generated code runs now."""
    code = getattr(type(traced).forward, "__code__", None)
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    lines = getattr(traced, "_lineno_map", None)
    if frame is None or lines is None:
        return None
    # torch keeps both for its own error messages; lines count from the first one of `forward`.
    number = lines.get(frame.f_lineno - traced._prologue_start)
    nodes = list(traced.graph.nodes)
    return nodes[number] if number is not None and number < len(nodes) else None
