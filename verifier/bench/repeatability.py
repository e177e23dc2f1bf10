"""Whether a model gives the same numbers when it is run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.lockstep import Comparing, Plan, run

if TYPE_CHECKING:
    from verifier.bench.bench import Bench


def first_unrepeatable(bench: Bench, side: str, runs: int) -> str | None:
    """The first site, in execution order, at which a further run of a model did not give what its first run gave.

    Every further run goes side by side with a first one, from the same random state, so nothing is stored. Numbers
    must be equal; a NaN equals a NaN. None if all of `runs` runs agree everywhere.
    """
    graph = bench.graph(side)
    sites = [site.index for site in graph.comparable]
    for _ in range(runs - 1):
        lanes = [bench.lane(side, inputs=bench.given(side), stops=sites) for _ in range(2)]
        passes = run(lanes, Plan([sites, sites], [Comparing(0, 1)]), bench.progress)
        for site, meeting in zip(sites, passes.meetings[0], strict=True):
            if not meeting.identical:
                return graph.sites[site].name
    return None
