"""How fast the two models, and what watches them, run on this machine: measured once, in a second or so."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.bench.subject import SIDES
from verifier.estimate.memory import resident_peak
from verifier.graph.chance import same_chance
from verifier.graph.returned import Returned
from verifier.graph.tensors import same_numbers
from verifier.inputs.samples import batch_size, sample
from verifier.lockstep import Comparing, run
from verifier.lockstep import Plan as Meetings
from verifier.metrics import collect, measure
from verifier.models.casting import arguments, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.bench.bench import Bench
    from verifier.cells import Cell
    from verifier.inputs import Inputs


class Line(NamedTuple):
    """Seconds, or bytes, of a forward pass by its number of samples: a fixed part, and one for each."""

    fixed: float
    each: float

    def at(self, samples: int) -> float:
        """What so many samples take."""
        return self.fixed + self.each * samples

    @classmethod
    def through(cls, one: float, some: float, samples: int) -> Line:
        """The line through what one sample takes and what `samples` do; neither part is negative."""
        if samples < 2:
            return cls(0.0, one)
        each = min(max(0.0, (some - one) / (samples - 1)), some / samples)
        return cls(max(0.0, some - each * samples), each)


@dataclass(frozen=True)
class Forward:
    """What a bare forward pass takes: seconds, and bytes beside the model's own."""

    seconds: Line
    memory: Line


@dataclass(frozen=True)
class Rates:
    """What the parts of a verification take here.

    Attributes:
        forwards: A bare forward pass by side and cell.
        meeting: Seconds a pair costs in a lockstep of two lanes, beside reading its tensors.
        reading: Bytes a second that two tensors are compared with.
        moving: Bytes a second that memory is copied and hashed with, roughly.
        alike: Whether both models return the same bits.
    """

    forwards: dict[tuple[str, Cell], Forward]
    meeting: float
    reading: float
    moving: float
    alike: bool

    @classmethod
    def measured(cls, bench: Bench, cells: Sequence[Cell]) -> Rates:
        """Run both models bare on one sample and on the bench's few in every cell, and in lockstep in the first.

        Raises:
            CannotRunError: A model fails.
        """
        reading = _reading()
        forwards: dict[tuple[str, Cell], Forward] = {}
        returned: list[list[Tensor]] = []
        for cell in cells:
            for side in SIDES:
                found, values = _forward(bench.at(cell=cell), side)
                forwards[side, cell] = found
                returned.append(values)
        first = bench.at(cell=cells[0])
        alike = len(returned[0]) == len(returned[1]) and all(map(same_numbers, *returned[:2]))
        few = batch_size(bench.inputs)
        bare = sum(forwards[side, cells[0]].seconds.at(few) for side in SIDES)
        return cls(
            forwards,
            _meeting(first, bare, reading, rounds=2),
            reading,
            _moving(),
            alike and not bench.alignment.rebuilt,
        )

    @classmethod
    def briefly(cls, bench: Bench, cells: Sequence[Cell]) -> Rates:
        """From one pass of the baseline in each cell, on one sample, and one lockstep of both in the first.

        What a pass takes whatever the number of samples is measured in the first cell, and counts in all; the
        candidate is taken to be as fast, and both to return the same bits unless they are built otherwise.

        Raises:
            CannotRunError: The baseline fails.
        """
        few = bench.given(SIDES[0])
        count = batch_size(few)
        alone = sample(few, 1) if count > 1 else few
        seconds = {}
        for cell in cells:
            where = bench.at(cell=cell)
            seconds[cell] = _once(where, where.copied(SIDES[0]), alone).seconds
        first = bench.at(cell=cells[0])
        some = _once(first, first.copied(SIDES[0]), few).seconds
        fixed = Line.through(seconds[cells[0]], some, count).fixed
        nothing = Line(0.0, 0.0)
        forwards = {
            (side, cell): Forward(Line(min(fixed, took), max(0.0, took - fixed)), nothing)
            for cell, took in seconds.items()
            for side in SIDES
        }
        reading = _reading()
        meeting = _meeting(first, 2 * some, reading, rounds=2)  # the first may compile what compares
        return cls(forwards, meeting, reading, _moving(), not bench.alignment.rebuilt)


def bytes_met(bench: Bench, times: int) -> float:
    """Bytes of the baseline's and the candidate's tensors at all pairs, read so many times."""
    size = bench.cell.torch_dtype.itemsize
    sites = bench.alignment.baseline.sites
    elements = sum(math.prod(sites[pair.baseline].shape) for pair in bench.alignment.pairs)
    return 2.0 * times * elements * size


def _forward(bench: Bench, side: str) -> tuple[Forward, list[Tensor]]:
    """A bare pass on one sample and on the bench's; the first of all, unlike any other, does not count."""
    few = bench.given(side)
    count = batch_size(few)
    model = bench.copied(side)
    alone = sample(few, 1) if count > 1 else few
    _once(bench, model, alone)
    one = _once(bench, model, alone)
    some = _once(bench, model, few) if count > 1 else one
    seconds = Line.through(one.seconds, some.seconds, count)
    return Forward(seconds, Line.through(one.memory, some.memory, count)), some.values


class _Ran(NamedTuple):
    """What one pass took, and what it returned."""

    seconds: float
    memory: float
    values: list[Tensor]


def _once(bench: Bench, model: torch.nn.Module, inputs: Inputs) -> _Ran:
    args, kwargs = arguments(inputs, bench.cell)
    with torch.no_grad(), running(bench.cell), same_chance(), resident_peak() as memory:
        started = time.perf_counter()
        result = model(*args, **kwargs)
        seconds = time.perf_counter() - started
    return _Ran(seconds, float(memory.grown), Returned.of(result).values())


def _meeting(bench: Bench, bare: float, reading: float, rounds: int = 1) -> float:
    """Seconds a pair costs in a lockstep of two lanes, whose forward passes take `bare` seconds."""
    seconds = min(_lockstep(bench) for _ in range(rounds)) - bare - bytes_met(bench, 1) / reading
    return max(0.0, seconds) / max(1, len(bench.alignment.pairs))


def _lockstep(bench: Bench) -> float:
    lanes = [bench.lane(side, inputs=bench.given(side)) for side in SIDES]
    started = time.perf_counter()
    run(lanes, Meetings([bench.paired_sites(side) for side in SIDES], [Comparing(0, 1)]))
    return time.perf_counter() - started


def _reading() -> float:
    return max(_bandwidth(torch.rand(1 << 20)) for _ in range(3))  # the first may load the kernels


def _bandwidth(tensor: Tensor) -> float:
    other = tensor + 1
    started = time.perf_counter()
    collect([measure(tensor, other)])
    return 2 * tensor.numel() * tensor.element_size() / (time.perf_counter() - started)


def _moving() -> float:
    block = torch.zeros(1 << 22)
    started = time.perf_counter()
    block.clone()
    return block.numel() * block.element_size() / (time.perf_counter() - started)
