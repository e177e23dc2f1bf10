"""How much of two models an alignment covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from verifier.graph.operators import MOVES, SELECTS
from verifier.records import Coverage, UnmatchedSite

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from verifier.align import Alignment
    from verifier.graph import Graph, Site

# Operators side by side that count as compared where they lead, unless a parameter hides them: an attention block has
# about twelve. Of more of them numbers must show that what is compared depends on them.
_FEW = 24


class Region(NamedTuple):
    """Sites of one side without partners that lead to one another.

    Attributes:
        side: `baseline` or `candidate`.
        sites: The sites, in order of execution.
        ends: The paired sites that read them.
        weights: Names of the parameters and buffers they use.
    """

    side: str
    sites: tuple[int, ...]
    ends: tuple[int, ...]
    weights: tuple[str, ...]


def coverage(
    alignment: Alignment,
    silent: Collection[str] = (),
    returned: Iterable[str] = (),
    read: Mapping[Region, bool] | None = None,
    *,
    own_weights: bool = False,
    resized: tuple[Collection[str], Collection[str]] = ((), ()),
) -> Coverage:
    """How much of both models was paired, and what was not; `returned` is how what they return differs otherwise.

    The shares are of the sites that compute something. A site without a partner counts as compared if it belongs to
    a region, all its weights mapped, that is compared as a whole where it leads: at pairs and outputs. Not if such a
    pair multiplies by one of the baseline's `silent` parameters, all 0, which may hide it, nor where `read` says
    that it hides. A region of many operators counts only where `read` says that what is compared depends on it in
    numbers. With `own_weights` both models compute with what they were given, so that none need be mapped; `resized`
    names tensors of either that stand in the other's place in another shape, and were kept.
    """
    baseline, candidate = alignment.baseline, alignment.candidate
    mapped = (
        set(baseline.tensors)
        if own_weights
        else {name for assembly in alignment.parameters.values() for name in assembly.names} | {*resized[0]},
        set(candidate.tensors if own_weights else alignment.parameters) | {*resized[1]},
    )
    paired = ({pair.baseline for pair in alignment.pairs}, {pair.candidate for pair in alignment.pairs})
    shares = []
    muted = (
        set(silent),
        {name for name, assembly in alignment.parameters.items() if {*assembly.names} & {*silent}},
    )
    ends: dict[tuple[str, int], str] = {}
    hidden: list[str] = []
    weighing = 0
    for side, graph, own, known, mute in zip(
        ("baseline", "candidate"), (baseline, candidate), paired, mapped, muted, strict=True
    ):
        together: set[int] = set()
        for region in _regions(side, graph, own):
            standing = _standing(graph, region, known, mute, read or {})
            if standing:
                where = graph.sites[region.ends[0]].name if region.ends else "the output"
                together.update(region.sites)
                ends.update({(side, site): where for site in region.sites})
            elif standing is False:
                hidden += [graph.sites[site].name for site in region.sites]
        lost = sum(
            site.index not in own and site.index not in together and _computes(site)
            for site in graph.comparable
        )
        covered = sum(site.index in own or _computes(site) for site in graph.comparable) - lost
        bare = not (baseline.tensors or candidate.tensors)  # then what comes out is all there is to compare
        shares.append(covered / (covered + lost) if covered and (alignment.pairs or bare or read) else 0.0)
        if side == "baseline":
            weighing = sum(
                _weighs(site) and (site.index in own or site.index in together) for site in graph.comparable
            )
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
        parameterised_compared=weighing,
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


def regions(alignment: Alignment, more_than: int = 0) -> list[Region]:
    """The regions on either side in which more operators than so many compute something."""
    return [
        region
        for side, graph, paired in (
            ("baseline", alignment.baseline, {pair.baseline for pair in alignment.pairs}),
            ("candidate", alignment.candidate, {pair.candidate for pair in alignment.pairs}),
        )
        for region in _regions(side, graph, paired)
        if _computing(graph, region) > more_than
    ]


def many(alignment: Alignment) -> list[Region]:
    """The regions of many operators on either side, which are compared where they lead only if numbers say so."""
    return regions(alignment, _FEW)


def _computing(graph: Graph, region: Region) -> int:
    return sum(_computes(graph.sites[index]) for index in region.sites)


def _regions(side: str, graph: Graph, paired: Collection[int]) -> Iterator[Region]:
    """Sites without a partner, those together that lead to one another."""
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
        weights = {use.name for index in region for use in graph.sites[index].tensors}
        yield Region(side, tuple(sorted(region)), tuple(sorted(ends)), tuple(sorted(weights)))


def _standing(
    graph: Graph, region: Region, mapped: Collection[str], muted: Collection[str], read: Mapping[Region, bool]
) -> bool | None:
    """Whether a region is compared where it leads; False where something hides it, None where that is not known."""
    if read.get(region) is False or any(
        use.name in muted
        for end in region.ends
        for use in graph.sites[end].tensors
        if graph.sites[end].op == "mul"
    ):
        return False
    if not all(name in mapped for name in region.weights):
        return None
    return True if _computing(graph, region) <= _FEW else read.get(region)
