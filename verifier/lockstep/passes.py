"""Running lanes in lockstep: free and forced passes over all pairs at once."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, ParamSpec

import torch
from torch import Tensor

from verifier.graph.tensors import dense, same_memory
from verifier.lockstep.meeting import Meeting, Met, kept, met_at, resolve
from verifier.lockstep.memory import Gaps, memory_held
from verifier.lockstep.schedule import meeting_order
from verifier.lockstep.traveller import Traveller, as_rounded, overwrite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from verifier.align import Layout
    from verifier.lockstep.lane import Lane

    Visitor = Callable[[int, Sequence[Tensor]], None]
    Passing = Callable[[int, int, Tensor], None]


P = ParamSpec("P")


class Comparing(NamedTuple):
    """Which lanes to compare at every pair, by position; `force` overwrites the second with the first.

    `after` is an earlier comparison with the same reference, by position, whose lane does freely what this one's does
    where it is forced. Until those two differ nothing would be overwritten: this lane is not run till then, or never,
    and what is known of the other one holds of it.
    """

    reference: int
    lane: int
    force: bool = False
    after: int | None = None


@dataclass(frozen=True)
class Plan:
    """Where lanes meet, and what is done there.

    Attributes:
        sites: For each lane, its site at each pair; all of one length.
        comparisons: What to compare at each pair and at the outputs.
        states: For each lane, the parameters and buffers to compare at the end; all of one length.
        layouts: For pairs, by position, whose second lane lays its tensor out otherwise: how. It is compared, and
            overwritten, as the first lane would lay it out. What `visit` finds on the way may be put there.
        rounded: For pairs, by position: the dtype to which the first lane's tensor is rounded there, in place, after
            it was compared and before others are overwritten with it.
        visited: How many lanes, from the first, are shown to `visit`; None for all.
        last: At how many pairs they meet; None for all.
    """

    sites: Sequence[Sequence[int]]
    comparisons: Sequence[Comparing]
    states: Sequence[Sequence[str]] = ()
    layouts: Mapping[int, Layout] = field(default_factory=dict)
    rounded: Mapping[int, torch.dtype] = field(default_factory=dict)
    visited: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Queued:
    """What a lockstep run measured, much of which a CUDA device may still have to compute; fields as in `Passes`."""

    meetings: tuple[tuple[Met, ...], ...]
    outputs: tuple[tuple[Met, ...], ...]
    states: tuple[tuple[Met, ...], ...]
    values: tuple[tuple[Tensor, ...], ...]
    left: tuple[tuple[Tensor, ...], ...]
    words: tuple[Mapping[str, str], ...]
    narrowed: tuple[frozenset[int], ...]
    lost: tuple[str, ...] = ()
    shared: bool = False

    def fetch(self) -> Passes:
        """All of it, once the device has come to its end."""
        return Passes(
            tuple(map(resolve, self.meetings)),
            tuple(map(resolve, self.outputs)),
            tuple(map(resolve, self.states)),
            self.values,
            self.left,
            self.words,
            self.narrowed,
            self.lost,
            self.shared,
        )

    def kept(self, offset: int) -> Queued:
        """A copy in memory of its own, with coordinates for a batch that starts at `offset`."""
        values, left = (
            tuple(tuple(t.clone() for t in tensors) for tensors in lanes)
            for lanes in (self.values, self.left)
        )
        return Queued(
            tuple(kept(row, offset) for row in self.meetings),
            tuple(kept(row, offset) for row in self.outputs),
            tuple(kept(row, 0) for row in self.states),
            values,
            left,
            self.words,
            self.narrowed,
            self.lost,
            self.shared,
        )


@dataclass(frozen=True)
class Passes:
    """What one lockstep run measured.

    Attributes:
        meetings: For each comparison, a meeting for each pair, in the order the pairs were given.
        outputs: For each comparison, a meeting for each output tensor the two models share by position.
        states: For each comparison, a meeting for each tensor asked for, as the run has left it.
        values: The output tensors of each lane.
        left: The states of each lane, as tensors.
        words: What each lane returned that is no number, by place.
        narrowed: The calls of each lane, by position, that had to run in float32 within float64.
        lost: Why forced lanes did not come to their end; what they missed has no moments.
        shared: Whether two lanes of one program wrote into one memory, so that what they hold may be the other's.
    """

    meetings: tuple[tuple[Meeting, ...], ...]
    outputs: tuple[tuple[Meeting, ...], ...]
    states: tuple[tuple[Meeting, ...], ...]
    values: tuple[tuple[Tensor, ...], ...]
    left: tuple[tuple[Tensor, ...], ...]
    words: tuple[Mapping[str, str], ...]
    narrowed: tuple[frozenset[int], ...]
    lost: tuple[str, ...] = ()
    shared: bool = False


class Enough(Exception):  # noqa: N818 - nothing went wrong
    """Raised by `visit`: no more pairs are wanted. All lanes run to their ends, and no outputs are compared."""


def queue(
    lanes: Sequence[Lane],
    plan: Plan,
    progress: Callable[[], None] = lambda: None,
    offset: int = 0,
    visit: Visitor = lambda *_: None,
    passing: Passing = lambda *_: None,
) -> Queued:
    """Advance `lanes` from pair to pair and compare them there.

    Tensors are compared where they lie and freed by the models themselves. Only where lanes visit pairs in
    different orders is a tensor copied, until the others have come to its pair. A forced lane's tensor is
    overwritten in place, so views of it and in-place operators on it stay what they are; left alone are
    tensors that share memory with a parameter, a buffer or an input, and tensors whose elements overlap (`expand`),
    whose source was forced before. Numbers that are not its own can make a forced lane take another way than it was
    recorded on, or fail (indices of another's longer list): the others then go on without it.

    All lanes are closed when this returns or raises, Ctrl-C included.

    Args:
        lanes: Freshly made lanes whose stops are the plan's sites.
        plan: Where they meet, and what is done there.
        progress: Called once a pair.
        offset: Position of the first sample in the whole input, for coordinates in what is measured.
        visit: Called with each pair, by position, and the lanes' tensors there, before any is overwritten, while all
            lanes run. It may raise `Enough`.
        passing: Called with a lane's position, site and tensor where it stops at a site of no pair.
    """
    with contextlib.ExitStack() as around:
        for lane in reversed(lanes):
            around.callback(lane.close)
        around.enter_context(memory_held())
        around.enter_context(torch.no_grad())
        running = _Running(lanes, plan, offset, visit, passing)
        left, gaps = iter(running.order), Gaps()
        with contextlib.suppress(Enough):
            for pair in itertools.islice(left, plan.last):
                running.meet(pair)
                progress()
                gaps.look()
        running.finish(left)
        return running.queued()


class _Running:
    """Lanes on their way from pair to pair, and what has been measured."""

    def __init__(
        self, lanes: Sequence[Lane], plan: Plan, offset: int, visit: Visitor, passing: Passing
    ) -> None:
        self.lanes, self.plan, self.offset, self.visit = lanes, plan, offset, visit
        orders = [sorted(range(len(own)), key=own.__getitem__) for own in plan.sites]
        sizes = [
            [math.prod(lane.graph.sites[own[pair]].shape) for pair in order]
            for lane, own, order in zip(lanes, plan.sites, orders, strict=True)
        ]
        pinned = [any(c.force and c.lane == k for c in plan.comparisons) for k in range(len(lanes))]
        self.order = meeting_order(orders, sizes, pinned) if orders[0] else []
        self.to_end = False
        self.travellers = [
            Traveller(
                lane,
                {site: pair for pair, site in enumerate(own)},
                functools.partial(passing, k),
                {} if k else plan.rounded,
            )
            for k, (lane, own) in enumerate(zip(lanes, plan.sites, strict=True))
        ]
        self.waiting = {c.lane: c.after for c in plan.comparisons if c.after is not None}
        self.met: list[dict[int, Met]] = [{} for _ in plan.comparisons]
        self.values: dict[int, tuple[Tensor, ...]] = dict.fromkeys(range(len(lanes)), ())
        self.shared = False

    def meet(self, pair: int) -> None:
        """Bring all lanes to a pair, compare them there, and overwrite those that are forced."""
        lanes, plan = self.lanes, self.plan
        reached = [None if k in self.waiting else each.reach(pair) for k, each in enumerate(self.travellers)]
        own = [tensor for tensor in reached if tensor is not None]
        tensors = dict(zip((k for k, t in enumerate(reached) if t is not None), _together(own), strict=True))
        self.shared = self.shared or _share_memory(lanes, reached)
        if all(k in tensors for k in range(len(lanes) if plan.visited is None else plan.visited)):
            self.visit(pair, [dense(tensor) for tensor in list(tensors.values())[: plan.visited]])
        at_pair = _AtPair(reached, tensors, lanes, plan.layouts.get(pair), self.offset)
        for k, comparing in enumerate(plan.comparisons):
            if comparing.lane in self.waiting:
                same_as = self.met[self.waiting[comparing.lane]][pair]
                if not same_as.differs:
                    self.met[k][pair] = same_as
                    continue
                del self.waiting[comparing.lane]
                late = self.travellers[comparing.lane].come(pair, [*self.met[0]])
                if late is not None:
                    reached[comparing.lane] = late
                    tensors[comparing.lane] = late.to(tensors[comparing.reference].device)
            self.met[k][pair] = at_pair.compared(comparing)
        if pair in plan.rounded:
            tensors[0] = as_rounded(own[0], plan.rounded[pair], lanes[0]).to(tensors[0].device)
        for k, comparing in enumerate(plan.comparisons):
            if comparing.force and comparing.lane in tensors and self.met[k][pair].differs:
                self.travellers[comparing.lane].forced |= at_pair.overwritten(comparing)

    def finish(self, left: Iterable[int]) -> None:
        """Run all lanes that have begun to their ends, side by side: models may have to leave what they entered."""
        begun = [(k, each) for k, each in enumerate(self.travellers) if k not in self.waiting]
        self.to_end = all(len(row) == len(self.order) for row in self.met)
        for pair in left:
            for _, traveller in begun:
                traveller.reach(pair)
        for k, traveller in begun:
            traveller.finish()
            if self.to_end:  # what it returns may lie where the next lane returns its own
                self.values[k] = tuple(tensor.clone() for tensor in self.lanes[k].outputs)

    def queued(self) -> Queued:
        """What was measured, outputs and states included if all have come to their ends."""
        lanes, comparisons = self.lanes, self.plan.comparisons
        # A lane that has never run is spoken for by the one that it waited for.
        ran = [comparisons[self.waiting[k]].lane if k in self.waiting else k for k in range(len(lanes))]
        outputs = [self.values[k] for k in ran]
        lost = [bool(traveller.lost) for traveller in self.travellers]
        ends = [
            [_missed(a) for a, _ in zip(outputs[c.reference], lanes[c.lane].graph.outputs, strict=False)]
            if lost[c.lane]
            else [
                met_at(a, b, self.offset) for a, b in zip(outputs[c.reference], outputs[c.lane], strict=False)
            ]
            for c in comparisons
        ]
        names = self.plan.states if self.plan.states and self.to_end else [()] * len(lanes)
        left = [tuple(map(lanes[k].state, own)) for k, own in zip(ran, names, strict=True)]
        compared = [
            [
                _missed(a) if lost[c.lane] else met_at(a, b, 0)
                for a, b in zip(left[c.reference], left[c.lane], strict=True)
            ]
            for c in comparisons
        ]
        return Queued(
            tuple(tuple(row.get(pair, _UNMET) for pair in range(len(self.order))) for row in self.met),
            tuple(map(tuple, ends)),
            tuple(map(tuple, compared)),
            tuple(outputs),
            tuple(left),
            tuple(lanes[k].words for k in ran),
            tuple(frozenset(lanes[k].narrowed) for k in ran),
            tuple(traveller.lost for traveller in self.travellers if traveller.lost),
            self.shared,
        )


def _share_memory(lanes: Sequence[Lane], tensors: Sequence[Tensor | None]) -> bool:
    """Whether two lanes of one program stand at one memory that is neither state nor input."""
    seen: set[tuple[int, int]] = set()
    for lane, tensor in zip(lanes, tensors, strict=True):
        memory = None if tensor is None else same_memory(tensor)
        if memory is None or memory in lane.state_memory:
            continue
        if (id(lane.graph), memory) in seen:
            return True
        seen.add((id(lane.graph), memory))
    return False


class _AtPair:
    """The lanes' tensors at one pair, where they lie and on one device; lost lanes and waiting ones lack them."""

    def __init__(
        self,
        reached: Sequence[Tensor | None],
        tensors: Mapping[int, Tensor],
        lanes: Sequence[Lane],
        layout: Layout | None,
        offset: int,
    ) -> None:
        self._reached = reached
        self._tensors = tensors
        self._lanes = lanes
        self._layout = layout
        self._offset = offset
        # Two lanes that hold the same numbers are equally far from a third, so that is measured once.
        self._alike: dict[int, int] = {}
        self._measured: dict[tuple[int, int], Met] = {}

    def _laid_out(self, comparing: Comparing) -> Layout | None:
        one_program = self._lanes[comparing.reference].graph is self._lanes[comparing.lane].graph
        return None if one_program else self._layout

    def compared(self, comparing: Comparing) -> Met:
        """Two of them, compared where they lie, before any is overwritten."""
        reference, other = self._tensors[comparing.reference], self._tensors.get(comparing.lane)
        if other is None:
            return _missed(reference)
        between = (comparing.reference, self._alike.get(comparing.lane, comparing.lane))
        found = self._measured.get(between)
        if found is None:
            layout = self._laid_out(comparing)
            laid = other if layout is None else _laid(layout, other, reference)
            self._measured[between] = found = met_at(reference, laid, self._offset)
        if found.same and other.is_complex() == reference.is_complex():  # else it counts its parts
            self._alike[comparing.lane] = comparing.reference
        return found

    def overwritten(self, comparing: Comparing) -> bool:
        """Whether one of them could be overwritten with another."""
        layout, other = self._laid_out(comparing), self._reached[comparing.lane]
        if other is None:
            return False
        reference = self._tensors[comparing.reference].to(other.device)
        if layout is not None:
            reference = layout.forth(reference, other.shape)
        return overwrite(other, reference, self._lanes[comparing.lane])


_UNMET = Met((), (), None)


def _missed(reference: Tensor) -> Met:
    """What is known of a pair that a lane did not come to."""
    return Met(tuple(reference.shape), tuple(reference.shape), None)


def _fetching(queueing: Callable[P, Queued]) -> Callable[P, Passes]:
    @functools.wraps(queueing)
    def run(*args: P.args, **kwargs: P.kwargs) -> Passes:
        return queueing(*args, **kwargs).fetch()

    return run


run = _fetching(queue)


def _laid(layout: Layout, tensor: Tensor, reference: Tensor) -> Tensor:
    """`tensor` as the reference is laid out; as it is where their sizes do not allow that."""
    try:
        return layout.back(tensor, reference.shape)
    except RuntimeError:
        return tensor


def _together(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors, those of the CPU on the CUDA device of the others, if there are any: each is moved once.

    From page-locked memory, which torch keeps until the copy is done, so that nothing waits for it.
    """
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
    if device is None:
        return tensors
    return [t if t.is_cuda else t.pin_memory().to(device, non_blocking=True) for t in tensors]
