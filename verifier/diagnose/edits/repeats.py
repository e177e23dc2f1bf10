"""Steps that a program takes again and again, as a loop does, and one edit carried over to all of its turns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from verifier.diagnose.edits.leaves import leaves
from verifier.diagnose.edits.program import Program, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.diagnose.edits.program import Key, Step, Trace
    from verifier.graph import KeptCall

_SHORTEST = 3  # steps of a turn: fewer than these are alike by chance
_LONGEST = 40  # as much as a region without a loop may have
_TURNS = 2


@dataclass(frozen=True, eq=False)
class Loop:
    """Turns of the same steps, in one or several runs, and the turn at which edits are looked for.

    Attributes:
        runs: For each run its turns, as steps in order; the last turn of a run may be cut short.
        at: The run and the turn that stand for all.
    """

    runs: tuple[tuple[tuple[Step, ...], ...], ...]
    at: tuple[int, int]

    @property
    def turn(self) -> tuple[Step, ...]:
        """The steps that stand for all."""
        return self.runs[self.at[0]][self.at[1]]

    @cached_property
    def places(self) -> dict[Key, tuple[int, int, int]]:
        """Run, turn and number in the turn of each step, by its first tensor."""
        return {
            step.first: (run, turn, k)
            for run, turns in enumerate(self.runs)
            for turn, steps in enumerate(turns)
            for k, step in enumerate(steps)
        }

    def others(self) -> Iterator[tuple[int, int]]:
        """All turns but the one that stands for all."""
        yield from (
            (run, turn)
            for run, turns in enumerate(self.runs)
            for turn in range(len(turns))
            if (run, turn) != self.at
        )

    def step(self, run: int, turn: int, k: int) -> Step | None:
        """One step; None where there is no such turn or it is cut short."""
        if not 0 <= turn < len(self.runs[run]) or k >= len(self.runs[run][turn]):
            return None
        return self.runs[run][turn][k]


@dataclass(frozen=True, eq=False)
class Repeats:
    """The loops of a program."""

    program: Program
    loops: tuple[Loop, ...]
    counts: Mapping[Key, int]

    @classmethod
    def of(cls, program: Program, trace: Trace) -> Repeats | None:
        """The loops of a program; None where it has none."""
        loops = tuple(_loops(program.steps))
        counts = {step.first: len(trace.of_step[id(step)]) for step in program.steps}
        return cls(program, loops, counts) if loops else None

    @property
    def turns(self) -> int:
        """How many turns the longest run has."""
        return max(len(run) for loop in self.loops for run in loop.runs)

    @cached_property
    def passed_over(self) -> frozenset[Key]:
        """The first tensors of the steps at which no edit is looked for."""
        return frozenset(
            step.first for loop in self.loops for run, turn in loop.others() for step in loop.runs[run][turn]
        )

    @cached_property
    def _others(self) -> dict[Loop, list[_Carried]]:
        return {loop: [_Carried(self, loop, run, turn) for run, turn in loop.others()] for loop in self.loops}

    @cached_property
    def _steps(self) -> dict[Key, Step]:
        return {step.first: step for step in self.program.steps}

    def everywhere(self, changed: Program) -> Program | None:
        """A program after an edit of the turn that stands for all, with the same edit in all other turns.

        None where the others differ in what is changed.
        """
        for loop in self.loops:
            known = {step.first for step in changed.steps}
            steps = self._steps
            edited = [step for step in changed.steps if step is not steps.get(step.first)]
            if not known >= steps.keys():
                return None  # an edit that takes steps out
            for other in self._others[loop]:
                carried = other.over(changed, edited, steps)
                if carried is None:
                    return None
                changed = carried
        return changed


class _Carried:
    """Tensors of one turn, and of what stands around it, by those of the turn that stands for all."""

    def __init__(self, repeats: Repeats, loop: Loop, run: int, turn: int) -> None:
        self._loop, self._run, self._turn = loop, run, turn
        self._keys: dict[Key, Key] = {}  # those of new steps come and go
        here = loop.runs[run][turn]
        for step, other in zip(loop.turn, here, strict=False):
            pairs = zip(step.sources, other.sources, strict=False)
            self._keys |= {one: two for one, two in pairs if one is not None and two is not None}
        for at, steps in enumerate(loop.runs[loop.at[0]]):  # turns before and behind
            for k, step in enumerate(steps):
                twin = loop.step(run, turn + at - loop.at[1], k)
                if twin is not None:
                    for output in range(min(repeats.counts[step.first], repeats.counts[twin.first])):
                        self._keys.setdefault(step.first + output, twin.first + output)

    def over(self, changed: Program, edited: Sequence[Step], steps: Mapping[Key, Step]) -> Program | None:
        """A program with an edit that was made for the one turn in this one as well."""
        new = [step for step in edited if step.first not in steps]
        added = [step for step in new if self._concerns(step, changed)]
        made = {step.first: fresh() for step in added}
        self._keys |= made
        for step in edited:
            if step.first in steps:
                carried = self._changed(changed, step, steps[step.first])
                if carried is None:
                    return None
                changed = carried
        for step in reversed(added):  # each stands before what reads it
            changed = self._inserted(changed, step, made[step.first])
        return changed

    def _key(self, key: Key | None) -> Key | None:
        return None if key is None else self._keys.get(key, key)

    def _concerns(self, step: Step, program: Program) -> bool:
        """Whether a new step belongs to the loop."""
        places = self._loop.places
        readers = (each.first for each in program.steps if step.first in each.sources)
        return any(self._key(source) != source for source in step.sources) or any(
            reader in places for reader in readers
        )

    def _changed(self, program: Program, step: Step, before: Step) -> Program | None:
        place = self._loop.places.get(step.first)
        if place is None:  # what reads the loop from outside
            return self._read(program, step, before)
        run, turn, k = place
        if run != self._loop.at[0]:
            return program
        twin = self._loop.step(self._run, self._turn + turn - self._loop.at[1], k)
        if twin is None or twin is before:
            return program
        at = next(k for k, each in enumerate(program.steps) if each.first == twin.first)
        call: KeptCall | None = program.steps[at].call
        sources = tuple(
            program.steps[at].sources[slot]
            if slot < len(before.sources) and before.sources[slot] == source and len(twin.sources) > slot
            else self._key(source)
            for slot, source in enumerate(step.sources)
        )
        if step.call is not before.call:
            call = self._call(step, before, twin)
        if call is None:
            return None
        return program.with_step(at, replace(twin, op=step.op, call=call, sources=sources))

    @staticmethod
    def _call(step: Step, before: Step, twin: Step) -> KeptCall | None:
        """The changed call on the twin's tensors; None where the two calls were not alike before."""
        written = [
            [(leaf.name, leaf.path, leaf.value) for leaf in leaves(each.call)] for each in (before, twin)
        ]
        if step.op == before.op and written[0] != written[1]:
            return None
        operands = step.call.operands
        there = twin.call.operands
        if len(there) == len(operands):
            operands = [
                one if source is None else other
                for one, other, source in zip(operands, there, step.sources, strict=True)
            ]
        return step.call.with_operands(operands)

    def _read(self, program: Program, step: Step, before: Step) -> Program:
        at = next(k for k, each in enumerate(program.steps) if each.first == step.first)
        for one, other in zip(before.sources, step.sources, strict=False):
            if one == other or one is None or self._key(one) == one:
                continue
            for slot, source in enumerate(before.sources):
                new = self._key(other)
                if source == self._key(one) and new is not None:
                    program = program.with_step(at, program.steps[at].reading(slot, new))
        return program

    def _inserted(self, program: Program, step: Step, first: Key) -> Program:
        """A copy of a new step, as late as its readers allow."""
        copy = replace(step, sources=tuple(self._key(source) for source in step.sources), first=first)
        at = next((k for k, each in enumerate(program.steps) if first in each.sources), len(program.steps))
        return replace(program, steps=(*program.steps[:at], copy, *program.steps[at:]))


def _loops(steps: Sequence[Step]) -> Iterator[Loop]:
    """Runs of the same operators, the longest first; what is alike elsewhere is of the same loop."""
    ops = [(step.op, len(step.sources)) for step in steps]
    taken = [False] * len(ops)
    while True:
        start, period, length = _longest(ops, taken)
        if length < _TURNS * period or not period:
            return
        runs = [_turns(steps, start, period, length)]
        taken[start : start + length] = [True] * length
        body = ops[start : start + period]
        at = 0
        while at + period <= len(ops):
            more = 0
            while at + more < len(ops) and not taken[at + more] and ops[at + more] == body[more % period]:
                more += 1
            if more >= _TURNS * period:
                runs.append(_turns(steps, at, period, more))
                taken[at : at + more] = [True] * more
                at += more
            else:
                at += 1
        whole = [len([turn for turn in turns if len(turn) == period]) for turns in runs]
        yield Loop(tuple(runs), (0, whole[0] // 2))


def _turns(steps: Sequence[Step], start: int, period: int, length: int) -> tuple[tuple[Step, ...], ...]:
    return tuple(
        tuple(steps[at : min(at + period, start + length)]) for at in range(start, start + length, period)
    )


def _longest(ops: Sequence[tuple[str, int]], taken: Sequence[bool]) -> tuple[int, int, int]:
    """Where the longest run of a pattern begins, how long the pattern is and how long the run; zeros for none."""
    best = (0, 0, 0)
    for period in range(_SHORTEST, min(len(ops) // _TURNS, _LONGEST) + 1):
        start = alike = 0
        for at in range(len(ops)):
            free = not taken[at]
            if free and at - start >= period and ops[at] == ops[at - period]:
                alike = at + 1 - start
            elif not free or at - start >= period:
                if alike >= _TURNS * period and alike > best[2]:
                    best = (start, period, alike)
                start = at + 1 if not free else max(start, at - period + 1)
                alike = 0
        if alike >= _TURNS * period and alike > best[2]:
            best = (start, period, alike)
    return best
