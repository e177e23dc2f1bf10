"""What is left of a run that has begun: told where it is long, from what has run and one more look at each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.border.ahead import listener
from verifier.border.signals import check_unanswered
from verifier.cells import ORACLE, typical_of
from verifier.estimate.parts import Parts
from verifier.estimate.phases import left
from verifier.estimate.rates import Rates
from verifier.inputs import Stream
from verifier.inputs.samples import batch_size
from verifier.judge.budgets import SINGLE_ROUNDOFF
from verifier.ranks import ranks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.bench.bench import Bench
    from verifier.cells import Cell
    from verifier.inputs import Inputs

LONG = 30.0
"""Seconds from which on a run says how long it will take."""

# What was recorded in less than this share of it never comes to so long, unless a narrow dtype runs far slower.
_SHARE = 1 / 60
_SLOW = 1 / 600


def told_ahead(
    bench: Bench,
    given: Sequence[Inputs] | Stream,
    cells: Sequence[Cell],
    own: Mapping[str, Cell],
    batch: int,
    recorded: float,
) -> None:
    """Tell who listens how many seconds are left, where these are more than `LONG`.

    Args:
        bench: The two models, paired, on a few samples.
        given: What they are compared on, in batches; of ranks each has its part.
        cells: The cells that will run.
        own: The cell that each side's model is in as it was given.
        batch: How many samples the few were taken from.
        recorded: Seconds that recording and pairing both on the few have taken.
    """
    tell = listener()
    narrow = any(cell.unit_roundoff > SINGLE_ROUNDOFF for cell in cells)
    if tell is None or recorded < LONG * (_SLOW if narrow or isinstance(given, Stream) else _SHARE):
        return
    wanted = dict.fromkeys([typical_of(cells), ORACLE, *cells, *own.values()])
    try:
        rates = Rates.briefly(bench, list(wanted))
        parts = (
            Parts.of(given, ranks().size)
            if isinstance(given, Stream)
            else Parts(tuple(map(batch_size, given)))
        )
    except Exception as error:  # on one sample, say; where it matters that is told
        check_unanswered(error)
        return
    seconds = sum(phase.seconds for phase in left(bench, rates, parts, cells, own, batch=batch))
    if seconds > LONG and not parts.uncounted:
        tell(seconds)
