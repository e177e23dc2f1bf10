"""What a site is, and what it stands in the middle of, as hashable values.

The context of a site is hashed over its whole ancestry (forward) and over everything that depends on it
(backward), as in Weisfeiler and Leman's colour refinement run to the end on a directed acyclic graph: equal
contexts mean equal computations up to there. Python's own tuple hash would be salted and shallow; values are
interned to small integers instead, which makes equality exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.graph.operators import COMMUTATIVE, IRRELEVANT, RESHAPES, canonical

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from verifier.graph import Graph, Site


class Interner:
    """Small integers for hashable values, the same integer for equal values, across both graphs."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def __call__(self, value: Hashable) -> int:
        """The number of `value`."""
        return self._numbers.setdefault(value, len(self._numbers))


def operator_class(site: Site) -> str:
    """The operator as the alignment sees it."""
    return "reshape" if site.op in RESHAPES else site.op


def loose(site: Site) -> Hashable:
    """What a site must share with its partner: the operator and the shapes of the tensors it uses."""
    return operator_class(site), site.output, tuple(use.shape for use in site.tensors)


def shaped(site: Site) -> Hashable:
    """What `loose` says, and the shape of what comes out."""
    return loose(site), site.shape


def strict(site: Site) -> Hashable:
    """Everything that can be seen of a site alone: operator, tensors, hyperparameters, output shape."""
    attributes = (
        ()
        if operator_class(site) == "reshape"
        else tuple(
            (name, canonical(value)) for name, value in site.attributes.items() if name not in IRRELEVANT
        )
    )
    roles = tuple((use.role, use.shape) for use in site.tensors)
    return operator_class(site), site.output, roles, attributes, site.shape


def valued(site: Site, values: Mapping[str, Hashable]) -> Hashable:
    """Everything that can be seen of a site, the values of its tensors included."""
    return strict(site), tuple(values.get(use.name) for use in site.tensors)


class Contexts:
    """Forward and backward context of every comparable site of one graph.

    Args:
        graph: The graph.
        own: What each site is, from `loose` or `strict`, for each site of the graph.
        number: Shared by both graphs, so that contexts compare across them.
        pins: For sites that are paired already, what stands for them: their contexts begin anew there.
    """

    def __init__(
        self,
        graph: Graph,
        own: Sequence[Hashable],
        number: Interner,
        pins: Mapping[int, Hashable] | None = None,
    ) -> None:
        pins = pins or {}
        sites = graph.sites
        self.forward = [-1] * len(sites)
        self.backward = [-1] * len(sites)
        for site in graph.comparable:
            if site.index in pins:
                self.forward[site.index] = number(("p", pins[site.index]))
                continue
            above = [self.forward[p] if p >= 0 else p for p in site.inputs]
            if site.op in COMMUTATIVE:
                above.sort()
            self.forward[site.index] = number(("f", own[site.index], tuple(above)))
        ends: dict[int, list[int]] = {}
        for position, producer in enumerate(graph.outputs):
            ends.setdefault(producer, []).append(position)
        for site in reversed(graph.comparable):
            if site.index in pins:
                self.backward[site.index] = number(("p", pins[site.index]))
                continue
            below = sorted(
                (self.backward[consumer], position)
                for consumer in graph.consumers[site.index]
                for position in _positions(sites[consumer], site.index)
            )
            self.backward[site.index] = number(
                ("b", own[site.index], tuple(below), tuple(ends.get(site.index, ())))
            )


def _positions(consumer: Site, producer: int) -> list[int]:
    """At which operand positions `consumer` reads `producer`; all zero where the order does not matter."""
    if consumer.op in COMMUTATIVE:
        return [0] * consumer.inputs.count(producer)
    return [k for k, source in enumerate(consumer.inputs) if source == producer]


def canonical_order(graph: Graph) -> list[int]:
    """The comparable sites in an order that does not depend on the order of execution or of commuting operands.

    Depth-first from the outputs, deepest operand first, so a main path comes before its shortcut.
    """
    sites = graph.sites
    depth = [0] * len(sites)
    for site in graph.comparable:
        depth[site.index] = 1 + max((depth[p] for p in site.inputs if p >= 0), default=0)

    def operands(index: int) -> list[int]:
        found = [p for p in dict.fromkeys(sites[index].inputs) if p >= 0]
        return sorted(found, key=lambda p: -depth[p]) if sites[index].op in COMMUTATIVE else found

    order: list[int] = []
    done: set[int] = set()
    for output in graph.outputs:
        stack = [(output, False)] if output >= 0 else []
        while stack:
            index, ready = stack.pop()
            if ready:
                order.extend([index] if sites[index].comparable else [])
            elif index not in done:
                done.add(index)
                stack.append((index, True))
                stack.extend((p, False) for p in reversed(operands(index)) if p not in done)
    return order
