"""What follows in the backward pass from a site that differs in the forward pass: one fault, told once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.training.baseline_batch import GRADIENT, GRADIENT_OF_ACTIVATION
from verifier.training.records import Phase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from verifier.graph import Graph
    from verifier.training.baseline_batch import Place
    from verifier.training.pairing import Pairing


def consequences(pairing: Pairing, first: Mapping[Place, int]) -> set[Place]:
    """Gradients that differ because a site differs in the forward pass that lies before the next forced gradient.

    Args:
        pairing: The two models.
        first: The batch in which each place first differs.
    """
    alignment, graded = pairing.alignment, pairing.graded
    pairs = alignment.pairs
    differ = [int(place.subject) for place in first if place.phase is Phase.FORWARD]
    since = min((first[place] for place in first if place.phase is Phase.FORWARD), default=0)
    sides = tuple(
        (graph, {pairs[k][side] for k in differ}, {pairs[k][side] for k in graded})
        for side, graph in enumerate((alignment.baseline, alignment.candidate))
    )
    found: set[Place] = set()
    if not differ:
        return found
    for place in first:
        if place.phase is not Phase.BACKWARD or first[place] < since:
            continue
        for k, (graph, wrong, stops) in enumerate(sides):
            if place.what == GRADIENT_OF_ACTIVATION:
                starts: Iterable[int] = graph.consumers[pairs[int(place.subject)][k]]
            elif place.what == GRADIENT:
                names = _names(pairing, str(place.subject), k)
                starts = [
                    site.index for site in graph.sites if any(use.name in names for use in site.tensors)
                ]
            else:
                continue
            if _leads(graph, starts, wrong, stops):
                found.add(place)
    return found


def _names(pairing: Pairing, name: str, side: int) -> Collection[str]:
    recipe = pairing.masters.assemblies.get(name)
    return (name,) if side else () if recipe is None else recipe.names


def _leads(graph: Graph, starts: Iterable[int], wrong: Collection[int], stops: Collection[int]) -> bool:
    """Whether one of the sites, or what reads it before a gradient is forced, is wrong."""
    ahead, seen = list(starts), set()
    while ahead:
        site = ahead.pop()
        if site in seen or site < 0:
            continue
        seen.add(site)
        if site in wrong:
            return True
        if site not in stops:
            ahead.extend(graph.consumers[site])
    return False
