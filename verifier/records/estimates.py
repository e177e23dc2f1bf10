"""What a comparison will take, as it is told before it is made."""

from __future__ import annotations

from verifier.records.base import Record


class Forwards(Record, frozen=True, kw_only=True):
    """So many forward passes, of either model, on so many samples in a dtype."""

    passes: int
    samples: int
    dtype: str


class Phase(Record, frozen=True, kw_only=True):
    """One phase: its name, its cell (empty for none), its seconds, and bytes beside weights at its peak."""

    name: str
    cell: str
    seconds: float
    memory: float = 0.0
    forwards: tuple[Forwards, ...] = ()


class Estimate(Record, frozen=True, kw_only=True):
    """What a verification will take: its phases, and whether the two models return the same bits.

    `memory` is resident bytes at the peak, None where this system does not tell; `missing` says why cells cannot run
    here. What is searched for where the two diverge comes on top. Of a candidate that `ranks` processes hold between
    them (`sharded`) it is the first one's, and `others` that of each other.
    """

    phases: tuple[Phase, ...]
    alike: bool
    memory: float | None
    missing: tuple[str, ...] = ()
    ranks: int = 1
    samples: int | None = None
    uncounted: bool = False
    sharded: bool = False
    others: float | None = None

    @property
    def seconds(self) -> float:
        """All phases together."""
        return sum(phase.seconds for phase in self.phases)
