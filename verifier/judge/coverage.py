"""How much of two models an alignment covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.graph.operators import MOVES, SELECTS
from verifier.result import Coverage, UnmatchedSite

if TYPE_CHECKING:
    from verifier.align import Alignment


def coverage(alignment: Alignment) -> Coverage:
    """How much of both models was paired, and what was not."""
    baseline, candidate = alignment.baseline, alignment.candidate
    unmatched = []
    for u in alignment.unmatched:
        site = (baseline if u.side == "baseline" else candidate).sites[u.site]
        unmatched.append(UnmatchedSite(side=u.side, name=site.name, op=site.op, reason=u.reason))
    compared = len(alignment.pairs)
    ours, theirs = len(baseline.comparable), len(candidate.comparable)
    lost = [
        sum(u.side == side and graph.sites[u.site].op not in MOVES | SELECTS for u in alignment.unmatched)
        for side, graph in (("baseline", baseline), ("candidate", candidate))
    ]
    return Coverage(
        compared=compared,
        baseline_sites=ours,
        candidate_sites=theirs,
        baseline_share=_share(compared, lost[0]),
        candidate_share=_share(compared, lost[1]),
        parameterised=sum(bool(site.tensors) for site in baseline.comparable),
        parameterised_compared=sum(bool(baseline.sites[pair.baseline].tensors) for pair in alignment.pairs),
        outputs=(len(baseline.outputs), len(candidate.outputs)),
        unmatched=tuple(unmatched),
    )


def _share(compared: int, lost: int) -> float:
    """Of the sites that are paired or compute something, the share that is paired.

    An operator that only lays out, cuts or repeats a tensor has nothing of its own to get wrong that the next
    paired site would not show.
    """
    return compared / (compared + lost) if compared else 0.0
