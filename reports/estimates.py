"""What a verification will take, as text."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from reports import wording
from reports.sections import Section, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.records import Estimate, Phase


def plain(name: str, estimate: Estimate) -> str:
    """One estimate: its headline, and its phases by cell."""
    memory = "" if estimate.memory is None else f", {estimate.memory / 2**30:.1f} GiB of memory"
    alike = "the same bits" if estimate.alike else "other bits, which are looked into"
    agreeing = f"on {wording.counted(2, 'sample')} the two return {alike}"
    sections = [
        Section(
            "Phases",
            tuple(map(_row, _merged(estimate.phases))),
            ("phase", "cell", "seconds", "forward passes"),
        ),
        Section(
            "Taken for granted",
            (
                *([] if estimate.sharded else [(agreeing,)]),
                *((each,) for each in _of_parts(estimate)),
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
    if estimate.sharded:
        least = "" if estimate.others is None else f", {estimate.others / 2**30:.1f} GiB on each other"
        each = f" on the first of {estimate.ranks} ranks{least}"
    return text(f"{name}: {number}about {estimate.seconds:.0f} s{memory}{each}", sections)


def _of_parts(estimate: Estimate) -> Iterator[str]:
    if not estimate.sharded:
        return
    yield "the parts were not built, which only torchrun can: all of this is told from the whole model"
    yield "each rank's pass takes as long, and leaves as many numbers, as the whole's; of the weights it has its part"
    yield "the candidate can be had in float64, as --no-semantics leaves out"
    yield "all ranks are on this machine, each with as many threads as this process"


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
