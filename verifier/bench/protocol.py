"""How a comparison is made and judged, whatever the cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from verifier.judge import STRICT, Policy

if TYPE_CHECKING:
    from verifier.align import Alignment
    from verifier.bench.bench import Bench
    from verifier.cells import Cell
    from verifier.inputs import Inputs, Stream

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, the steps done in it and the steps it has."""

Ahead: TypeAlias = (
    "Callable[[Bench, Sequence[Inputs] | Stream, Sequence[Cell], Mapping[str, Cell], int, float], None]"
)
"""Called once two models are paired, with what is ahead of them (`verifier.estimate.told_ahead`)."""

LOCALISE = ("auto", "always", "never")


def silent(*_: object) -> None:
    """Progress that nobody wants to hear of."""


@dataclass(frozen=True)
class Protocol:
    """How a comparison is made and judged, whatever the cell.

    Attributes:
        policy: What a pair may be off by.
        localise: When to run forced passes, one of `LOCALISE`.
        repeat: How often each numerics cell is run to see whether it gives the same numbers.
        by_order: Whether outputs are paired in their order whatever they are called.
        progress: Told how far each stage has come.
        ahead: Told what is ahead once the two are paired; it may say how long that will take.
    """

    policy: Policy = STRICT
    localise: str = "auto"
    repeat: int = 1
    by_order: bool = False
    progress: Progress = silent
    ahead: Ahead = silent

    def steps(
        self, stage: str, alignment: Alignment, runs: int, samples: int | None = None, batch: int = 1
    ) -> Callable[[], None]:
        """What is to be called at every pair of a stage that takes so many runs.

        Of many `samples`, 0 for an unknown number, these are told, which go through in batches.
        """
        pairs = max(1, len(alignment.pairs))
        total, done = pairs * runs if samples is None else samples, 0

        def step() -> None:
            nonlocal done
            done += 1
            told = done if samples is None else done * batch // pairs
            self.progress(stage, min(told, total) if total else told, total)

        return step
