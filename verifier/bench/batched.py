"""What was measured between baseline and candidate: in some batches, which merge, and in all."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from verifier.inputs.tally import Tally
from verifier.lockstep import Meeting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.metrics.agreement import Agreed
    from verifier.records import OutputAgreement

Meetings = tuple[Meeting, ...]


LOST = (
    "given other numbers than its own a run did not come to its end, and only totals tell of what lies behind"
)


class Run(NamedTuple):
    """Where two lanes met: at each pair, each shared output and each state."""

    pairs: Meetings
    outputs: Meetings
    states: Meetings

    @property
    def identical(self) -> bool:
        """Whether nothing differed."""
        return all(meeting.identical for meeting in itertools.chain(*self))

    def merge(self, later: Run) -> Run:
        """This run and that of a further batch."""
        return Run(*map(_merged_meetings, self, later))


@dataclass(frozen=True)
class Measured:
    """What a cell's passes measured, free and forced; None what was not run.

    `inputs` are there where the candidate was given its own. `output` says how well what a free pass returns agrees,
    `whole` for each shared output whether it holds whole numbers. `words` says how what the two return differs that
    is no number, `notes` what took another way than it might have, `narrowed` which calls of the baseline and of the
    candidate, by position, ran in float32 within float64. `ends` is what each returned for the last
    and the first sample; no other tensors are kept. `lost` says why forced runs did not come to their end.
    `shared` says that two lanes of one program wrote into one memory. `samples` is how many there were.
    """

    free: Run | None
    forced: Run | None
    inputs: Meetings
    output: OutputAgreement | None
    whole: tuple[bool, ...]
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    narrowed: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
    ends: tuple[Sequence[Tensor], ...] = ()
    lost: tuple[str, ...] = ()
    shared: bool = False
    samples: int = 0

    @property
    def identical(self) -> bool:
        """Whether the free passes ran and differed in nothing."""
        return (
            self.free is not None
            and self.free.identical
            and all(meeting.identical for meeting in self.inputs)
        )

    def with_forced(self, other: Measured) -> Measured:
        """These measurements of free passes, and others of forced ones."""
        return replace(
            self,
            forced=other.forced,
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
            lost=(*self.lost, *other.lost),
        )


@dataclass(frozen=True)
class Batched:
    """What the passes over some batches gave: nothing in it grows with their number.

    `agreed` is None where no free pass ran. `rows` are what each of the two returned for samples that are wanted, by
    number: a row of tensors that hold one for each sample, all of others.
    """

    free: Run | None
    forced: Run | None
    inputs: Meetings
    samples: int
    agreed: Agreed | None
    whole: tuple[bool, ...]
    rows: Mapping[int, tuple[Sequence[Tensor], Sequence[Tensor]]]
    words: tuple[str, ...]
    narrowed: tuple[frozenset[int], frozenset[int]]
    lost: tuple[str, ...] = ()
    shared: bool = False
    tally: Tally = field(default_factory=Tally)

    def merge(self, later: Batched) -> Batched:
        """These and further batches."""
        return Batched(
            free=self.free and later.free and self.free.merge(later.free),
            forced=self.forced and later.forced and self.forced.merge(later.forced),
            inputs=_merged_meetings(self.inputs, later.inputs),
            samples=self.samples + later.samples,
            agreed=self.agreed and later.agreed and self.agreed.merge(later.agreed),
            whole=tuple(one and two for one, two in zip(self.whole, later.whole, strict=False)),
            rows={**self.rows, **later.rows},
            words=tuple(dict.fromkeys((*self.words, *later.words))),
            narrowed=(self.narrowed[0] | later.narrowed[0], self.narrowed[1] | later.narrowed[1]),
            lost=tuple(dict.fromkeys((*self.lost, *later.lost))),
            shared=self.shared or later.shared,
            tally=self.tally.merge(later.tally),
        )

    def measured(self, notes: Sequence[str]) -> Measured:
        """What is kept."""
        numbers = sorted(self.rows, reverse=True)  # as `ends` has them
        return Measured(
            free=self.free,
            forced=self.forced,
            inputs=self.inputs,
            output=None if self.agreed is None else self.agreed.told(),
            whole=self.whole,
            words=self.words,
            narrowed=self.narrowed,
            notes=(*notes, *(f"{LOST}: {why}" for why in self.lost)),
            ends=tuple(_joined([self.rows[number][side] for number in numbers]) for side in (0, 1)),
            lost=self.lost,
            shared=self.shared,
            samples=self.samples,
        )


def _merged_meetings(a: Meetings, b: Meetings) -> Meetings:
    return tuple(one.merge(two) for one, two in zip(a, b, strict=True))


def _joined(found: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """What was returned for some samples: rows one below the other, and what is the same for all once."""
    return tuple(
        torch.cat(each) if all(one.dim() and one.shape[0] == 1 for one in each) else each[0]
        for each in zip(*found, strict=False)  # a forced lane that was lost has returned nothing
    )
