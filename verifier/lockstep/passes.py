"""Running lanes in lockstep: free and forced passes over all pairs at once."""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, ParamSpec

import torch
from torch import Tensor

from verifier.errors import ModelError
from verifier.graph.tensors import dense, same_memory
from verifier.lockstep.meeting import Meeting, Met, kept, masks, met_at, resolve
from verifier.lockstep.memory import memory_held
from verifier.lockstep.schedule import meeting_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from verifier.align import Layout
    from verifier.lockstep.lane import Lane

    Visitor = Callable[[int, Sequence[Tensor]], None]
    Passing = Callable[[int, int, Tensor], None]


P = ParamSpec("P")


class Comparing(NamedTuple):
    """Which lanes to compare at every pair, by position; `force` overwrites the second with the first."""

    reference: int
    lane: int
    force: bool = False


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
    """

    sites: Sequence[Sequence[int]]
    comparisons: Sequence[Comparing]
    states: Sequence[Sequence[str]] = ()
    layouts: Mapping[int, Layout] = field(default_factory=dict)
    rounded: Mapping[int, torch.dtype] = field(default_factory=dict)


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
    """

    meetings: tuple[tuple[Meeting, ...], ...]
    outputs: tuple[tuple[Meeting, ...], ...]
    states: tuple[tuple[Meeting, ...], ...]
    values: tuple[tuple[Tensor, ...], ...]
    left: tuple[tuple[Tensor, ...], ...]
    words: tuple[Mapping[str, str], ...]
    narrowed: tuple[frozenset[int], ...]
    lost: tuple[str, ...] = ()


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
            lanes run.
        passing: Called with a lane's position, site and tensor where it stops at a site of no pair.
    """
    comparisons, layouts, rounded = plan.comparisons, plan.layouts, plan.rounded
    with contextlib.ExitStack() as around:
        for lane in reversed(lanes):
            around.callback(lane.close)
        around.enter_context(memory_held())
        around.enter_context(torch.no_grad())
        orders = [sorted(range(len(own)), key=own.__getitem__) for own in plan.sites]
        sizes = [
            [math.prod(lane.graph.sites[own[pair]].shape) for pair in order]
            for lane, own, order in zip(lanes, plan.sites, orders, strict=True)
        ]
        pinned = [any(c.force and c.lane == k for c in comparisons) for k in range(len(lanes))]
        travellers = [
            _Traveller(
                lane,
                {site: pair for pair, site in enumerate(own)},
                functools.partial(passing, k),
                {} if k else rounded,
            )
            for k, (lane, own) in enumerate(zip(lanes, plan.sites, strict=True))
        ]
        met: list[list[Met | None]] = [[None] * len(orders[0]) for _ in comparisons]
        for pair in meeting_order(orders, sizes, pinned) if orders[0] else ():
            reached = [traveller.reach(pair) for traveller in travellers]
            own = [tensor for tensor in reached if tensor is not None]
            tensors = dict(
                zip((k for k, t in enumerate(reached) if t is not None), _together(own), strict=True)
            )
            if len(tensors) == len(lanes):
                visit(pair, [dense(tensor) for tensor in tensors.values()])
            # Two lanes that hold the same numbers are equally far from a third, so that is measured once.
            alike: dict[int, int] = {}
            measured: dict[tuple[int, int], Met] = {}
            for k, comparing in enumerate(comparisons):
                reference = tensors[comparing.reference]
                if comparing.lane not in tensors:
                    met[k][pair] = _missed(reference)
                    continue
                other = tensors[comparing.lane]
                one_program = lanes[comparing.reference].graph is lanes[comparing.lane].graph
                layout = None if one_program else layouts.get(pair)
                between = (comparing.reference, alike.get(comparing.lane, comparing.lane))
                found = measured.get(between)
                if found is None:
                    laid = other if layout is None else _laid(layout, other, reference)
                    found = met_at(reference, laid, offset)
                met[k][pair] = measured[between] = found
                if found.same and other.is_complex() == reference.is_complex():  # else it counts its parts
                    alike[comparing.lane] = comparing.reference
                if comparing.force or pair in rounded:  # a lane holds other numbers from here on
                    measured.clear()
                    alike.clear()
                if pair in rounded and comparing.reference == 0:
                    reference = _rounded(own[0], rounded[pair], lanes[0]).to(reference.device)
                if comparing.force and found.differs:
                    if layout is not None:
                        reference = layout.forth(reference, other.shape)
                    travellers[comparing.lane].forced |= overwrite(other, reference, lanes[comparing.lane])
            del reached, own, tensors
            progress()
        for traveller in travellers:
            traveller.finish()
        lost = [bool(traveller.lost) for traveller in travellers]
        ends = [
            [
                _missed(a)
                for a, _ in zip(lanes[c.reference].outputs, lanes[c.lane].graph.outputs, strict=False)
            ]
            if lost[c.lane]
            else [
                met_at(a, b, offset)
                for a, b in zip(lanes[c.reference].outputs, lanes[c.lane].outputs, strict=False)
            ]
            for c in comparisons
        ]
        left = [
            tuple(lane.state(name) for name in names)
            for lane, names in zip(lanes, plan.states or [()] * len(lanes), strict=True)
        ]
        compared = [
            [
                _missed(a) if lost[c.lane] else met_at(a, b, 0)
                for a, b in zip(left[c.reference], left[c.lane], strict=True)
            ]
            for c in comparisons
        ]
        return Queued(
            tuple(tuple(m for m in row if m is not None) for row in met),
            tuple(map(tuple, ends)),
            tuple(map(tuple, compared)),
            tuple(tuple(lane.outputs) for lane in lanes),
            tuple(left),
            tuple(lane.words for lane in lanes),
            tuple(frozenset(lane.narrowed) for lane in lanes),
            tuple(traveller.lost for traveller in travellers if traveller.lost),
        )


def _missed(reference: Tensor) -> Met:
    """What is known of a pair that a lane did not come to."""
    return Met(tuple(reference.shape), tuple(reference.shape), None)


def _fetching(queueing: Callable[P, Queued]) -> Callable[P, Passes]:
    @functools.wraps(queueing)
    def run(*args: P.args, **kwargs: P.kwargs) -> Passes:
        return queueing(*args, **kwargs).fetch()

    return run


run = _fetching(queue)


class _Traveller:
    """A lane and the copies it left at pairs it passed before the others came there.

    One that holds other numbers than its own is `forced`; it may then be `lost`, which says why.
    """

    def __init__(
        self,
        lane: Lane,
        pair_of: Mapping[int, int],
        passing: Callable[[int, Tensor], None],
        rounded: Mapping[int, torch.dtype],
    ) -> None:
        self.lost = ""
        self.forced = False
        self._lane = lane
        self._pair_of = pair_of
        self._passing = passing
        self._rounded = rounded
        self._left: dict[int, Tensor] = {}

    def reach(self, pair: int) -> Tensor | None:
        """The lane's tensor at `pair`: where it stands after going there, or the copy it left; None if it is lost."""
        if pair in self._left:
            return self._left.pop(pair)
        while True:
            site = self._advance()
            if self.lost:
                return None
            if site is None or self._lane.tensor is None:
                raise AssertionError(f"{self._lane.role} ended before pair {pair}")
            here = self._pair_of.get(site)
            if here == pair:
                return self._lane.tensor
            if here is None:
                self._passing(site, self._lane.tensor)
            else:
                self._left[here] = self._lane.tensor.clone()
                if here in self._rounded:
                    _rounded(self._lane.tensor, self._rounded[here], self._lane)

    def finish(self) -> None:
        """Run the lane to its end."""
        while (site := self._advance()) is not None:
            if site not in self._pair_of and self._lane.tensor is not None:
                self._passing(site, self._lane.tensor)

    def _advance(self) -> int | None:
        try:
            return None if self.lost else self._lane.advance()
        except ModelError as error:
            if not self.forced:
                raise
            self.lost = str(error)
            return None


def _laid(layout: Layout, tensor: Tensor, reference: Tensor) -> Tensor:
    """`tensor` as the reference is laid out; as it is where their sizes do not allow that."""
    try:
        return layout.back(tensor, reference.shape)
    except RuntimeError:
        return tensor


def overwrite(tensor: Tensor, reference: Tensor, lane: Lane) -> bool:
    """Write into a lane's tensor where it lies, but not into state nor where elements overlap; whether it did."""
    if tensor.is_nested or tensor.layout != torch.strided:
        with contextlib.suppress(RuntimeError):  # where other elements are stored, it stays as it is
            tensor.copy_(reference)
            return True
        return False
    overlapping = any(
        stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
    if overlapping or same_memory(tensor) in lane.state_memory:
        return False
    tensor.copy_(reference)
    return True


def _rounded(tensor: Tensor, dtype: torch.dtype, lane: Lane) -> Tensor:
    """`tensor` with its values rounded to `dtype`, in place where it can be overwritten."""
    if not (tensor.is_floating_point() and dtype.is_floating_point):
        return tensor
    values = tensor.to(dtype).to(tensor.dtype)
    strided = tensor.layout == torch.strided and not tensor.is_nested
    # A mask is the lowest number of its dtype, not minus infinity.
    if strided and bool((infinite := values.isinf()).any()) and bool((infinite & masks(tensor)).any()):
        most = torch.finfo(dtype).max
        values = torch.where(masks(tensor), tensor.clamp(-most, most), values)
    overwrite(tensor, values, lane)
    return values


def _together(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors, those of the CPU on the CUDA device of the others, if there are any: each is moved once.

    From page-locked memory, which torch keeps until the copy is done, so that nothing waits for it.
    """
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
    if device is None:
        return tensors
    return [t if t.is_cuda else t.pin_memory().to(device, non_blocking=True) for t in tensors]
