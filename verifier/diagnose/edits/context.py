"""What an edit may draw on: the candidate's program, and what the baseline has in its place."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from verifier.diagnose.edits.leaves import is_number, leaves
from verifier.diagnose.edits.program import Behind, Edge
from verifier.diagnose.neighbourhood import distance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from verifier.diagnose.edits.program import Key, Place, Program, Step, Trace
    from verifier.diagnose.edits.repeats import Repeats


class Exhausted(Exception):  # noqa: N818 - no error: the end of a search
    """A search has cost as much as it may."""


@dataclass
class Meter:
    """Counts the runs of a program, and this thread's time, against what a search may cost."""

    runs: int
    seconds: float
    spent: int = 0

    def __post_init__(self) -> None:
        self._end = time.thread_time() + self.seconds

    def spend(self) -> None:
        """One more run.

        Raises:
            Exhausted: That was the last.
        """
        if self.spent >= self.runs or time.thread_time() > self._end:
            raise Exhausted
        self.spent += 1


@dataclass(frozen=True)
class Context:
    """Both sides of a region on the same tensors.

    Attributes:
        program: The candidate's side.
        trace: What it gives.
        baseline: The baseline's side.
        baseline_trace: What that gives.
        twins: For keys of the baseline's that come in from above, the candidate's key of the same tensor.
        wanted: What should come out.
        limit: The largest relative error (NRMSE) that is none.
        meter: What the search may cost.
        laid: Lays out a tensor of the baseline's as the candidate's of the same place is.
        repeats: The loops of the candidate's side, where an edit is made in all turns at once.
        notes: What several kinds of edits need and is found once.
    """

    program: Program
    trace: Trace
    baseline: Program
    baseline_trace: Trace
    twins: Mapping[Key, Key]
    wanted: Tensor
    limit: float
    meter: Meter
    laid: Callable[[Tensor, Tensor], Tensor]
    repeats: Repeats | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def made(self, program: Program) -> Tensor | None:
        """What a program gives; None where it cannot be run.

        Raises:
            Exhausted: The search has cost enough.
        """
        self.meter.spend()
        try:
            whole = self.whole(program)
            return None if whole is None else whole.result_of(whole.run(self.trace))
        except Exception:  # each operator refuses in a way of its own
            return None

    def whole(self, program: Program) -> Program | None:
        """A program after an edit, made in all turns of its loops; None where they are not alike there."""
        return program if self.repeats is None else self.repeats.everywhere(program)

    def steps(self) -> Sequence[tuple[int, Step]]:
        """The candidate's steps at which edits are looked for, with their places: of a loop those of one turn."""
        return [each for each in enumerate(self.program.steps) if not self._passed_over(each[1].first)]

    def places(self, program: Program) -> list[Place]:
        """The places of a program at which edits are looked for."""
        return [place for place in program.places() if not self._elsewhere(program, place)]

    def edges(self) -> list[tuple[int, int, Key]]:
        """Where the candidate's tensors are read: the step, which of its operands, and the key."""
        steps = self.program.steps
        return [each for each in self.program.edges() if not self._passed_over(steps[each[0]].first)]

    @cached_property
    def tensors(self) -> list[Key]:
        """The candidate's tensors: what comes in before what is made, the latter where edits are looked for."""
        makers = ((key, self.program.maker(key)) for key in self.trace.of_key)
        steps = self.program.steps
        return [key for key, at in makers if at is None or not self._passed_over(steps[at].first)]

    def _passed_over(self, first: Key) -> bool:
        return self.repeats is not None and first in self.repeats.passed_over

    def _elsewhere(self, program: Program, place: Place) -> bool:
        if isinstance(place, Edge):
            return self._passed_over(program.steps[place.at].first)
        maker = program.maker(place.key) if isinstance(place, Behind) else None
        return maker is not None and self._passed_over(program.steps[maker].first)

    def error(self, program: Program) -> float:
        """How far what a program gives is from what is wanted."""
        made = self.made(program)
        return float("inf") if made is None else distance(made, self.wanted)

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """The numbers written in the baseline's calls."""
        found = (leaf.value for step in self.baseline.steps for leaf in leaves(step.call))
        return tuple(dict.fromkeys(float(value) for value in found if is_number(value)))

    @cached_property
    def operators(self) -> frozenset[str]:
        """The baseline's operators."""
        return frozenset(step.op for step in self.baseline.steps)

    def written_in(self, op: str) -> tuple[Any, ...]:
        """What is written in the baseline's calls of one operator: numbers, flags and words."""
        found = (leaf.value for step in self.baseline.steps if step.op == op for leaf in leaves(step.call))
        return tuple(dict.fromkeys(value for value in found if isinstance(value, int | float | str)))

    def tensor(self, key: Key) -> Tensor:
        """A tensor of the candidate's."""
        return self.trace.of_key[key]
