"""What is seen of a site where it stands: what it reads and what reads it, whether it may be another's partner."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.align.layouts import layouts
from verifier.graph.operators import PRODUCTS, REPLACEABLE, kind

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from verifier.align.assembly import Assembly
    from verifier.align.layouts import Layout
    from verifier.graph import Graph, Site


def may_be_one(b: Site, c: Site, assemblies: Mapping[str, Assembly]) -> bool:
    """Whether two sites may give one tensor: as many elements, and weights of one made from the other's."""
    sizes = [sum(math.prod(use.shape) for use in site.tensors) for site in (b, c)]
    weighs = b.op.startswith(PRODUCTS) and sizes[0] == sizes[1]  # then another shape may be a fault
    if math.prod(b.shape) != math.prod(c.shape) and all(sizes) and not weighs:
        return False
    names = {use.name for use in b.tensors}
    made = [assemblies[use.name].names for use in c.tensors if use.name in assemblies]
    return not names or not made or any(not names.isdisjoint(each) for each in made)


def layout_between(baseline: Site, candidate: Site) -> Layout | None:
    """How the candidate's tensor is probably laid out; None where the shapes agree or cannot be the same tensor's."""
    if baseline.shape == candidate.shape:
        return None
    return next(layouts(baseline.shape, candidate.shape), None)


def place(graph: Graph, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where a site stands: what it reads, and which sites read it."""
    return tuple(dict.fromkeys(graph.sites[index].inputs)), tuple(sorted(graph.consumers[index]))


def replaceable(graph: Graph, sites: Iterable[int], pins: Mapping[int, int]) -> dict[Hashable, int]:
    """Those of some sites that another operator of their kind often stands for, by kind, shape and place.

    A place is what lies around it: the nearest sites above and below that are in `pins`, by what stands for them. All
    else there has weights, of which one may be folded into another: what takes several operators is none of these.
    """
    places: dict[Hashable, list[int]] = {}
    for index in sites:
        if not graph.sites[index].tensors:
            places.setdefault(_between(graph, index, pins), []).append(index)
    alone = {place: graph.sites[found[0]] for place, found in places.items() if len(found) == 1}
    return {
        (kind(site.op), fixed(graph, site.index), site.shape, place): site.index
        for place, site in alone.items()
        if kind(site.op) in REPLACEABLE
    }


def _between(graph: Graph, index: int, pins: Mapping[int, int]) -> tuple[frozenset[int], frozenset[int]]:
    def nearest(step: Callable[[int], Iterable[int]]) -> frozenset[int]:
        found, seen, waiting = set(), {index}, [index]
        while waiting:
            for each in step(waiting.pop()):
                if each < 0 or each in pins:
                    found.add(each if each < 0 else pins[each])
                elif each not in seen:
                    seen.add(each)
                    waiting.append(each)
        return frozenset(found)

    return nearest(lambda k: graph.sites[k].inputs), nearest(lambda k: graph.consumers[k])


def fixed(graph: Graph, index: int) -> bool:
    """Whether a site gives the same whatever the inputs are; an operator's own weights may be used for either."""
    site = graph.sites[index]
    return not graph.reads_inputs[index] and not (site.tensors and site.op.startswith(_WEIGHING))


_WEIGHING = (*PRODUCTS, "embedding")
