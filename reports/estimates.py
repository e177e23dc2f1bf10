"""What a verification will take, as text."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from reports import wording
from reports.sections import Section, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.records import Estimate, Phase


def plain(name: str, estimate: Estimate) -> str:
    """One estimate: its headline, and its phases by cell."""
    memory = "" if estimate.memory is None else f", {estimate.memory / 2**30:.1f} GiB of memory"
    alike = "the same bits" if estimate.alike else "other bits, which are looked into"
    sections = [
        Section(
            "Phases",
            tuple(map(_row, _merged(estimate.phases))),
            ("phase", "cell", "seconds", "forward passes"),
        ),
        Section(
            "Taken for granted",
            (
                (f"on {wording.counted(2, 'sample')} the two return {alike}",),
                ("where the two diverge, what is searched for comes on top",),
                *(
                    [("only reading tells how many samples there are: this is for the first batch",)]
                    if estimate.uncounted
                    else []
                ),
                *((f"skipped: {each}",) for each in estimate.missing),
            ),
        ),
    ]
    number = "" if estimate.samples is None else f"{wording.counted(estimate.samples, 'sample')}, "
    each = f" for each of {estimate.ranks} ranks" if estimate.ranks > 1 else ""
    return text(f"{name}: {number}about {estimate.seconds:.0f} s{memory}{each}", sections)


def _merged(phases: Sequence[Phase]) -> list[list[Phase]]:
    """Batches of one phase together."""
    return [list(each) for _, each in groupby(phases, key=lambda phase: (phase.name, phase.cell))]


def _row(phases: Sequence[Phase]) -> tuple[str, ...]:
    times = f"{len(phases)} times " if len(phases) > 1 else ""
    seconds = sum(phase.seconds for phase in phases)
    forwards = ", ".join(
        f"{each.passes} on {wording.counted(each.samples, 'sample')} in {each.dtype}"
        for each in phases[0].forwards
    )
    return phases[0].name, phases[0].cell, f"{seconds:.1f}", times + forwards
