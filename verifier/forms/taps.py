"""What torch's compiler hands to a backend: graphs that are counted, and values in them that are kept.

A value that is kept is one more output of its graph, so nothing is fused across it: what is around it is compiled
otherwise than without it.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

from verifier.align.sequence import longest_common_subsequence
from verifier.graph.operators import operator_name
from verifier.graph.traced import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch.fx import GraphModule

    from verifier.graph import Graph


class Tap(NamedTuple):
    """A value inside: the number of its graph, in the order in which they are compiled, and its node's name there."""

    graph: int
    node: str


class Kept(NamedTuple):
    """A value of a graph that has run: where, of which operator, which of its outputs, and in which module.

    `part` is the module that was compiled, and `scope` the end of the name of the one inside, where that is known.
    """

    part: str
    tap: Tap
    operator: str
    output: int
    scope: str
    tensor: Tensor


@dataclass
class Log:
    """What a compiled program has done.

    Attributes:
        made: How many graphs the backend was handed; the compiler begins some anew.
        ran: The numbers of those that have run.
        kept: The values that were asked for, in the order in which they were computed.
    """

    made: int = 0
    ran: set[int] = field(default_factory=set)
    kept: list[Kept] = field(default_factory=list)


class Watching:
    """A backend that hands graphs on to another one.

    Args:
        backend: The other one.
        name: What it is called.
        log: Where it is told what is done.
        part: The module that is compiled, by its name in the program.
        taps: The values to keep, or None for all; graphs without any are handed on untouched.
    """

    def __init__(
        self,
        backend: Callable[..., Any],
        name: str,
        log: Log,
        part: str = "",
        taps: Collection[Tap] | None = (),
    ) -> None:
        self.__name__ = name  # by which the compiler calls a backend
        self._backend = backend
        self._log = log
        self._part = part
        self._taps = taps

    def __call__(self, graph: GraphModule, inputs: Sequence[Any], **options: Any) -> Callable[..., Any]:
        """What the other backend makes of a graph."""
        number, self._log.made = self._log.made, self._log.made + 1
        nodes = [
            node
            for node in graph.graph.nodes
            if isinstance(node.meta.get("example_value"), Tensor)
            and node.op in ("call_function", "call_method", "call_module")
            and (self._taps is None or Tap(number, node.name) in self._taps)
        ]
        told = [described(number, node) for node in nodes]
        count = _show(graph, nodes) if nodes else None
        compiled = self._backend(graph, inputs, **options)

        def run(*args: Any) -> Any:
            self._log.ran.add(number)
            found = compiled(*args)
            if count is None:
                return found
            self._log.kept += [
                Kept(self._part, *about, tensor) for about, tensor in zip(told, found[count:], strict=True)
            ]
            return found[:count]

        return run


def places(kept: Sequence[Kept], graph: Graph) -> list[int | None]:
    """For each value that was kept of a run the program's site that computes it, by index; None if there is none.

    Both computed the same operators in the same order, but for what the compiler adds or leaves out.
    """
    parts = sorted({each.part for each in kept}, key=len, reverse=True)
    found: list[int | None] = [None] * len(kept)
    values = [(each.part, each.operator, each.output, tuple(each.tensor.shape)) for each in kept]
    sites = [(_part_of(site.scope, parts), site.op, site.output, site.shape) for site in graph.sites]
    for k, index in longest_common_subsequence(values, sites):
        site, scope = graph.sites[index], kept[k].scope
        if not site.identity and f".{site.scope}".endswith(f".{scope}" if scope else ""):
            found[k] = index
    return found


def _part_of(scope: str, parts: Sequence[str]) -> str | None:
    """The part that a module lies in, of some that are sorted so that the innermost comes first."""
    return next((part for part in parts if not part or f"{scope}.".startswith(f"{part}.")), None)


def described(number: int, node: Node) -> tuple[Tap, str, int, str]:
    """What is known of a node; one that takes a tensor out of several stands for the call that made them."""
    target, output = node.target, 0
    if target is operator.getitem:
        several, key = node.args
        if isinstance(several, Node) and isinstance(key, int) and _is_several(several):
            target, output = several.target, key
    function = getattr(Tensor, target, target) if isinstance(target, str) else target
    name = operator_name(function) if callable(function) else str(target)
    return Tap(number, node.name), name, output, origin_of(node).module


def _is_several(node: Node) -> bool:
    return not isinstance(node.meta.get("example_value"), Tensor)


def _show(graph: GraphModule, nodes: Sequence[Node]) -> int:
    """Make a graph return some of its values, too, as they are when computed; how many it returned before."""
    shown = []
    for node in nodes:
        with graph.graph.inserting_after(node):
            copy = graph.graph.call_function(torch.clone, (node,))
        copy.meta["example_value"] = node.meta["example_value"]
        shown.append(copy)
    output = next(iter(reversed(graph.graph.nodes)))
    before: Sequence[Any] = output.args[0]
    output.args = ((*before, *shown),)
    graph.recompile()
    return len(before)
