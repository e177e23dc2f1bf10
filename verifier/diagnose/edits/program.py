"""The candidate's side of a region as a program: its own calls, wired, to be run again with something changed."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.graph.tensors import dense

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.diagnose.neighbourhood import Neighbourhood
    from verifier.graph import Graph, KeptCall

Key = int
"""A tensor of a program: the index of the site that makes it, -1 - k for the k-th input, or one that was made up."""

_FIRST_NEW = 1 << 40


class Edge(NamedTuple):
    """One operand of one step."""

    at: int
    slot: int


class Behind(NamedTuple):
    """Behind a tensor, for all that read it."""

    key: Key


Place = Edge | Behind | None
"""Where a step can be put; None for the end."""


@dataclass(frozen=True, eq=False)
class Step:
    """One call: what it is named after, where each of its operands comes from and the key of its first tensor.

    A source is None where the call brings the tensor along: a constant. `held` are the model's own tensors it uses.
    """

    name: str
    op: str
    call: KeptCall
    sources: tuple[Key | None, ...]
    first: Key
    held: tuple[str, ...] = ()

    def reading(self, slot: int, key: Key) -> Step:
        """The same step with one operand from elsewhere."""
        return replace(self, sources=(*self.sources[:slot], key, *self.sources[slot + 1 :]))


@dataclass(frozen=True)
class Trace:
    """What the steps of a program gave, by the step and by the key."""

    of_step: Mapping[int, Sequence[Tensor]]
    of_key: Mapping[Key, Tensor]


@dataclass(frozen=True)
class Program:
    """Steps in order of execution, what comes in from above (with names), and the key of what goes out."""

    steps: tuple[Step, ...]
    values: Mapping[Key, Tensor]
    result: Key
    names: Mapping[Key, str] = field(default_factory=dict)

    @classmethod
    def of(cls, side: Neighbourhood, values: Mapping[Key, Tensor]) -> Program | None:
        """One side of a region on given values; None for an output that no site gives."""
        steps, known = [], set()
        itself = () if side.site is None or side.call is None else ((side.site, side.call),)
        for site, call in (*side.between, *itself):
            number = side.graph.call_of[site.index]
            if number not in known:
                known.add(number)
                first = side.graph.calls[number].first
                name = site.name.partition("[")[0]
                held = tuple(use.name for use in site.tensors)
                steps.append(Step(name, site.op, call, tuple(site.operands), first, held))
        result = side.sources[0] if side.site is None else side.site.index
        names = {key: _named(side.graph, key) for key in values}
        return None if result is None else cls(tuple(steps), values, result, names)

    def run(self, base: Trace | None = None) -> Trace:
        """All tensors; steps that `base` holds and that read nothing that was changed are not run again.

        Raises:
            Exception: Whatever a call raises on other tensors than it was made with.
        """
        known: dict[Key, Tensor] = dict(self.values)
        made: dict[int, Sequence[Tensor]] = {}
        changed: set[Key] = set()
        alike = len({step.call.widens for step in self.steps}) == 1
        with torch.no_grad(), self.steps[0].call.surroundings() if alike else contextlib.nullcontext():
            for step in self.steps:
                before = None if base is None else base.of_step.get(id(step))
                if before is not None and changed.isdisjoint(step.sources):
                    tensors = before
                else:
                    operands = [
                        tensor if source is None else known.get(source, tensor)
                        for source, tensor in zip(step.sources, step.call.operands, strict=True)
                    ]
                    with contextlib.nullcontext() if alike else step.call.surroundings():
                        tensors = step.call.made_on(operands)
                    changed.update(range(step.first, step.first + len(tensors)))
                made[id(step)] = tensors
                known.update(enumerate(tensors, step.first))
        return Trace(made, known)

    def result_of(self, trace: Trace) -> Tensor:
        """What goes out."""
        return dense(trace.of_key[self.result])

    def with_step(self, at: int, *steps: Step) -> Program:
        """The same program with others in the place of one step."""
        return replace(self, steps=(*self.steps[:at], *steps, *self.steps[at + 1 :]))

    def with_call(self, at: int, call: KeptCall) -> Program:
        """The same program with one step's call changed."""
        return self.with_step(at, replace(self.steps[at], call=call))

    def on(self, values: Mapping[Key, Tensor]) -> Program:
        """The same program on other tensors."""
        return replace(self, values=values)

    def renamed(self, keys: Mapping[Key, Key], after: int = -1) -> Program:
        """The same program where all that stands behind a step reads other keys instead."""
        steps = tuple(
            step
            if k <= after or not any(source in keys for source in step.sources)
            else replace(step, sources=tuple(_other(source, keys) for source in step.sources))
            for k, step in enumerate(self.steps)
        )
        return replace(self, steps=steps, result=keys.get(self.result, self.result))

    def edges(self) -> Iterator[tuple[int, int, Key]]:
        """Where tensors are read: the step, which of its operands, and the key; constants are left out."""
        for k, step in enumerate(self.steps):
            for slot, source in enumerate(step.sources):
                if source is not None:
                    yield k, slot, source

    def maker(self, key: Key) -> int | None:
        """The step that makes a tensor; None for what comes in."""
        found = None
        for k, step in enumerate(self.steps):
            if step.first <= key and (found is None or step.first > self.steps[found].first):
                found = k
        return None if found is None or key in self.values else found

    def bypassed(self, at: int, slot: int) -> Program:
        """The same program without one step: what read it reads its operand. The step stays, unread."""
        step = self.steps[at]
        source = step.sources[slot]
        return self if source is None else self.renamed({step.first: source}, at)

    def unread(self, at: int, instead: Tensor) -> Program:
        """The same program where what reads a step's tensor brings another one along. The step stays."""
        key = self.steps[at].first
        steps = [_with_constant(step, key, instead) for step in self.steps[at + 1 :]]
        return replace(self, steps=(*self.steps[: at + 1], *steps))

    def places(self) -> list[Place]:
        """Where a step can be put: on each edge, behind each tensor that is read more than once, and at the end."""
        found: list[Place] = [Edge(at, slot) for at, slot, _ in self.edges()]
        readers = Counter(source for *_, source in self.edges())
        found += [Behind(key) for key, count in readers.items() if count > 1]
        return [*found, None]

    def read_at(self, place: Place) -> Key | None:
        """The tensor at a place."""
        if place is None:
            return self.result
        return place.key if isinstance(place, Behind) else self.steps[place.at].sources[place.slot]

    def reader_at(self, place: Place) -> Step | None:
        """The step that reads there, the first of several; None at the end."""
        if isinstance(place, Edge):
            return self.steps[place.at]
        return (
            None if place is None else next((step for step in self.steps if place.key in step.sources), None)
        )

    def index_at(self, place: Place) -> int:
        """Which step one that is put there would be."""
        if place is None:
            return len(self.steps)
        if isinstance(place, Edge):
            return place.at
        maker = self.maker(place.key)
        return 0 if maker is None else maker + 1

    def inserted(self, step: Step, slot: int, place: Place) -> Program:
        """The same program with a step at a place, which reads by `slot` what is read there."""
        source, index = self.read_at(place), self.index_at(place)
        if source is None:
            return self
        new = replace(step.reading(slot, source), first=fresh())
        if isinstance(place, Edge):
            changed = self.with_step(place.at, self.steps[place.at].reading(place.slot, new.first))
        else:
            changed = self.renamed({source: new.first}, index - 1)
        return replace(changed, steps=(*changed.steps[:index], new, *changed.steps[index:]))


def _with_constant(step: Step, key: Key, constant: Tensor) -> Step:
    """The same step where it brings a tensor along which it read under a key."""
    if key not in step.sources:
        return step
    operands = [
        constant if source == key else operand
        for source, operand in zip(step.sources, step.call.operands, strict=True)
    ]
    sources = tuple(None if source == key else source for source in step.sources)
    return replace(step, call=step.call.with_operands(operands), sources=sources)


def _named(graph: Graph, key: Key) -> str:
    """What a tensor that comes in is called: by its site without the module, which differs from place to place."""
    if key < 0:
        return f"input {-1 - key}"
    site = graph.sites[key]
    leaf = site.name.rpartition(".")[2]
    if leaf.isdigit():
        return site.op
    parts = graph.calls[graph.call_of[key]].count
    return f"{leaf}[0]" if parts > 1 and site.output == 0 else leaf


def _other(source: Key | None, keys: Mapping[Key, Key]) -> Key | None:
    return None if source is None else keys.get(source, source)


_numbers = itertools.count(_FIRST_NEW, 1 << 20)  # a step may give many tensors


def fresh() -> Key:
    """The key of a new step's first tensor."""
    return next(_numbers)
