"""A site that diverged first, what is known of it, and what may be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from verifier.records import Cause
from verifier.sharded.placing import Placement, by_shape, join
from verifier.sharded.slices import close, tolerance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.records import Comparison
    from verifier.sharded.comparing import Bench, Found
    from verifier.sharded.parameters import Spread
    from verifier.sharded.watching import Key

_MOST = 32  # how many of the baseline's sites above one are looked through


@dataclass(frozen=True)
class Blame:
    """Which site is at fault and why, and how its pieces should have been placed; None where that is not known.

    `on_trial` says that the cause stands only if what diverged agrees once the site is put right. `read` is how far
    the pieces of a site that agrees once they are joined are from it as they are read. `given` is the module that was
    given something wrong: that is put right, and lies as `placed` says. Behind what is `harmless` no number is
    wrong.
    """

    key: Key
    cause: Cause
    placed: Placement | None
    on_trial: bool = False
    read: Comparison | None = None
    given: Key | None = None
    harmless: bool = False


@dataclass(frozen=True)
class Case:
    """A site that diverged first, with all that is known of it."""

    bench: Bench
    found: Found
    whole: Tensor
    pieces: Sequence[Tensor]
    sites: Mapping[Key, Found]
    spreads: Mapping[str, Spread]
    parameters: Mapping[str, Tensor]

    @property
    def slack(self) -> float:
        """By how much single numbers may be off."""
        return tolerance(self.whole, self.found.budget.total)

    @property
    def together(self) -> Tensor | None:
        """The pieces put together by their shapes alone; None where that is no one tensor."""
        shaped = by_shape(self.whole, self.pieces)
        if shaped is None or (
            self.full and not all(close(p, self.pieces[0], self.slack) for p in self.pieces)
        ):
            return None
        return join(shaped, self.whole, self.pieces)

    @property
    def ranks(self) -> int:
        """How many processes there are."""
        return len(next(iter(self.bench.aligned.parts.values())))

    @property
    def uses(self) -> list[Spread]:
        """The parameters that the site uses."""
        return [self.spreads[name] for name in self.found.event.uses if name in self.spreads]

    @property
    def full(self) -> bool:
        """Whether all pieces have the whole's size."""
        return all(piece.shape == self.whole.shape for piece in self.pieces)

    def blame(self, code: str, summary: str, *evidence: str, remedy: str, confirmed: bool = True) -> Blame:
        """The site itself is at fault."""
        shaped = by_shape(self.whole, self.pieces)
        cause = Cause(code=code, summary=summary, confirmed=confirmed, evidence=evidence, remedy=remedy)
        return Blame(self.found.key, cause, shaped)


def nearest(case: Case, above: tuple[Key, ...]) -> Iterator[Found]:
    """The sites that were compared of those that are read, through such as were not."""
    stack: list[tuple[Key, ...]] = [above]
    seen: set[Key] = set()
    while stack and len(seen) < _MOST:
        for key in stack.pop():
            if key in seen:
                continue
            seen.add(key)
            if key in case.sites:
                yield case.sites[key]
            elif key in case.bench.baseline.events:
                stack.append(case.bench.baseline.events[key].above)
