"""What is seen of a site where it stands: what it reads and what reads it, whether it may be another's partner."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.align.layouts import layouts
from verifier.graph.operators import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def fixed(graph: Graph, index: int) -> bool:
    """Whether a site gives the same whatever the inputs are; an operator's own weights may be used for either."""
    site = graph.sites[index]
    return not graph.reads_inputs[index] and not (site.tensors and site.op.startswith(_WEIGHING))


_WEIGHING = (*PRODUCTS, "embedding")
