"""What an edit may draw on: the candidate's program, and what the baseline has in its place."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from verifier.diagnose.edits.leaves import is_number, leaves
from verifier.diagnose.neighbourhood import distance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from verifier.diagnose.edits.program import Key, Program, Trace


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
    notes: dict[str, Any] = field(default_factory=dict)

    def made(self, program: Program) -> Tensor | None:
        """What a program gives; None where it cannot be run.

        Raises:
            Exhausted: The search has cost enough.
        """
        self.meter.spend()
        try:
            return program.result_of(program.run(self.trace))
        except Exception:  # each operator refuses in a way of its own
            return None

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
