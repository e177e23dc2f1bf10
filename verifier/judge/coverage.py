"""How much of two models an alignment covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.graph.operators import MOVES, SELECTS
from verifier.records import Coverage, UnmatchedSite

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from verifier.align import Alignment
    from verifier.graph import Graph, Site

# Operators side by side that may be compared as a whole, at the next pair: an attention block has about twelve.
_WHOLE = 24


def coverage(alignment: Alignment, silent: Collection[str] = (), returned: Iterable[str] = ()) -> Coverage:
    """How much of both models was paired, and what was not; `returned` is how what they return differs otherwise.

    The shares are of the sites that compute something. A site without a partner counts as compared if it belongs to
    a few operators, all their weights mapped, that are compared as a whole where they lead to a pair; not if that
    pair multiplies by one of the baseline's `silent` parameters, all 0 or 1, which may hide them.
    """
    baseline, candidate = alignment.baseline, alignment.candidate
    mapped = (
        {name for assembly in alignment.parameters.values() for name in assembly.names},
        set(alignment.parameters),
    )
    paired = ({pair.baseline for pair in alignment.pairs}, {pair.candidate for pair in alignment.pairs})
    shares = []
    muted = (
        set(silent),
        {name for name, assembly in alignment.parameters.items() if {*assembly.names} & {*silent}},
    )
    ends: dict[tuple[str, int], str] = {}
    hidden: list[str] = []
    for side, graph, own, known, mute in zip(
        ("baseline", "candidate"), (baseline, candidate), paired, mapped, muted, strict=True
    ):
        regions = dict(_together(graph, own, known, mute))
        together = {site: end for site, end in regions.items() if end is not None}
        hidden.extend(graph.sites[site].name for site in sorted(regions.keys() - together.keys()))
        ends.update({(side, site): end for site, end in together.items()})
        lost = sum(
            site.index not in own and site.index not in together and _computes(site)
            for site in graph.comparable
        )
        covered = sum(site.index in own or _computes(site) for site in graph.comparable) - lost
        bare = not (baseline.tensors or candidate.tensors)  # then what comes out is all there is to compare
        shares.append(covered / (covered + lost) if covered and (alignment.pairs or bare) else 0.0)
    unmatched = []
    for u in alignment.unmatched:
        site = (baseline if u.side == "baseline" else candidate).sites[u.site]
        end = ends.get((u.side, u.site))
        unmatched.append(
            UnmatchedSite(side=u.side, name=site.name, op=site.op, reason=u.reason, compared_at=end)
        )
    return Coverage(
        compared=len(alignment.pairs),
        baseline_sites=len(baseline.comparable),
        candidate_sites=len(candidate.comparable),
        baseline_share=shares[0],
        candidate_share=shares[1],
        parameterised=sum(_weighs(site) for site in baseline.comparable),
        parameterised_compared=sum(_weighs(baseline.sites[pair.baseline]) for pair in alignment.pairs),
        outputs=(len(baseline.outputs), len(candidate.outputs)),
        unmatched=tuple(unmatched),
        hidden=tuple(hidden),
        returned=tuple(returned),
    )


def _computes(site: Site) -> bool:
    """Whether an operator does more than lay out, cut or repeat a tensor, which the next pair would show."""
    return site.op not in MOVES | SELECTS


def _weighs(site: Site) -> bool:
    """Whether an operator computes with parameters or buffers; to reshape one is not yet to compute with it."""
    return bool(site.tensors) and _computes(site)


def _together(
    graph: Graph, paired: Collection[int], mapped: Collection[str], muted: Collection[str]
) -> Iterator[tuple[int, str | None]]:
    """Sites without a partner that are compared as a whole, each with the name of what it leads to.

    None stands for sites that nothing can be said of, since a parameter of the `muted` ones hides what they make.
    That is a pair, or an output of the model, which is compared whether a pair makes it or not.
    """
    open_sites = {site.index for site in graph.comparable if site.index not in paired}
    while open_sites:
        start = open_sites.pop()
        region, stack = {start}, [start]
        ends: set[int] = set()
        while stack:
            here = stack.pop()
            ends.update(reader for reader in graph.consumers[here] if reader in paired)
            around = {*graph.consumers[here], *graph.sites[here].inputs} & open_sites
            open_sites -= around
            region |= around
            stack.extend(around)
        whole = sum(_computes(graph.sites[index]) for index in region) <= _WHOLE
        held = (use.name for index in region for use in graph.sites[index].tensors)
        hidden = any(
            use.name in muted
            for end in ends
            for use in graph.sites[end].tensors
            if graph.sites[end].op == "mul"
        )
        if hidden:
            yield from ((index, None) for index in region)
        elif whole and all(name in mapped for name in held):
            where = graph.sites[min(ends)].name if ends else "the output"
            yield from ((index, where) for index in region)
