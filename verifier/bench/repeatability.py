"""Whether a model gives the same numbers when it is run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.bench.running import open_lane
from verifier.lockstep import Comparing, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.bench.running import Caster, Subject
    from verifier.cells import Cell
    from verifier.inputs import Inputs


def first_unrepeatable(
    subject: Subject,
    side: str,
    cell: Cell,
    inputs: Inputs,
    caster: Caster,
    runs: int,
    progress: Callable[[], None] = lambda: None,
) -> str | None:
    """The first site, in execution order, at which a further run of a model did not give what its first run gave.

    Every further run goes side by side with a first one, from the same random state, so nothing is stored. Numbers
    must be equal; a NaN equals a NaN. None if all of `runs` runs agree everywhere.
    """
    graph = subject.alignment.baseline if side == "baseline" else subject.alignment.candidate
    given = inputs if side == "baseline" else inputs.other or inputs
    sites = [site.index for site in graph.comparable]
    for _ in range(runs - 1):
        lanes = [open_lane(subject, side, cell, given, caster, stops=sites) for _ in range(2)]
        passes = run(lanes, [sites, sites], [Comparing(0, 1)], progress)
        for site, meeting in zip(sites, passes.meetings[0], strict=True):
            if not meeting.identical:
                return graph.sites[site].name
    return None
