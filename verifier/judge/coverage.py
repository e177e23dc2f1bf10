"""How much of two models an alignment covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    return Coverage(
        compared=compared,
        baseline_sites=ours,
        candidate_sites=theirs,
        baseline_share=compared / ours if ours else 0.0,
        candidate_share=compared / theirs if theirs else 0.0,
        parameterised=sum(bool(site.tensors) for site in baseline.comparable),
        parameterised_compared=sum(bool(baseline.sites[pair.baseline].tensors) for pair in alignment.pairs),
        outputs=(len(baseline.outputs), len(candidate.outputs)),
        unmatched=tuple(unmatched),
    )
