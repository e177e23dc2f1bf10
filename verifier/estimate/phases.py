"""The phases of a verification, with the forward passes that each of them makes."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from verifier.bench.bench import Bench
from verifier.bench.pairing import pair
from verifier.bench.side import Side
from verifier.bench.subject import SIDES
from verifier.cells import ORACLE, missing_here, typical_of
from verifier.environment import preserved
from verifier.estimate.memory import known, resident
from verifier.estimate.parts import Parts
from verifier.estimate.rates import Rates, bytes_met
from verifier.graph.operators import converts
from verifier.inputs import headed
from verifier.inputs.samples import batch_size as count_of
from verifier.inputs.samples import batches, ends, picked
from verifier.judge.budgets import SINGLE_ROUNDOFF
from verifier.lockstep import pages_held
from verifier.records import Estimate, Forwards, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from verifier.cells import Cell, Request
    from verifier.inputs import Inputs


def estimated(
    baseline: nn.Module | str,
    candidate: nn.Module | str,
    inputs: Any,
    *,
    candidate_inputs: Any = None,
    requests: Sequence[Request],
    weights: str = "transfer",
    batch_size: int | None = None,
    batch_dim: int | None = 0,
    seed: int = 0,
    of: int = 1,
) -> Estimate:
    """Record and pair two models as `verify` does, run both for a moment, and add up what is left to do.

    Arguments are those of `verifier.verify`; `of` is how many ranks share the samples of a stream. What is told is
    then of the last of them, which has the most, with as many threads as this process.

    Raises:
        VerifierError: What `verify` would raise of the two models and their inputs.
    """
    missing = missing_here(requests)
    cells = [request.cell for request in requests if request.cell not in missing]
    typical = typical_of(cells)
    given, stream = headed(inputs, batch_dim, candidate_inputs)
    held = Parts(tuple(map(count_of, batches(given, batch_size))))
    parts = held if stream is None else Parts.of(stream, of)
    numbers = sorted(ends(count_of(given)))
    few = picked(given, numbers) if len(numbers) < count_of(given) else given
    with preserved(), pages_held(), torch.inference_mode(mode=False), torch.no_grad():
        started = time.perf_counter()
        sides = (
            Side.of("baseline", baseline, seed, apart=True),
            Side.of("candidate", candidate, seed, apart=True),
        )
        built = time.perf_counter()
        subject = pair(*sides, few, weights=weights, known={}, seed=seed)
        bench = Bench(subject, few)
        done = time.perf_counter()
        resting = float(resident("VmRSS")) if known() else 0.0
        own = {side.role: side.cell() for side in sides}
        wanted = [typical, ORACLE, *cells, *own.values()]
        rates = Rates.measured(bench, list(dict.fromkeys(wanted)))
        phases = (
            *_photographs(parts, given),
            Phase(name="building", cell="", seconds=built - started),
            Phase(
                name="recording, alignment and weights",
                cell="",
                seconds=done - built,
                forwards=_recorded(bench, own),
            ),
            *left(bench, rates, parts, cells, own, batch=count_of(given)),
        )
        cast = sum(_unique(bench.at(cell=cell)) for cell in dict.fromkeys([typical, ORACLE]))
    peak = resting + cast + max(phase.memory for phase in phases)
    told = tuple(f"{cell.name}: {why}" for cell, why in missing.items())
    return Estimate(
        phases=phases,
        alike=rates.alike,
        memory=peak if known() else None,
        missing=told,
        ranks=of,
        samples=parts.samples,
        uncounted=parts.uncounted,
    )


def _photographs(parts: Parts, given: Inputs) -> Iterator[Phase]:
    """What comparing two preprocessings on all takes, where they agree on the first batch."""
    if parts.streamed and given.preprocessing is not None and given.other is None:
        yield Phase(name="photographs, prepared twice", cell="", seconds=2 * parts.alone)


def _unique(bench: Bench) -> float:
    """Bytes of the tensors both compute with in a cell, beyond those that were given."""
    found = {}
    for side in SIDES:
        for tensor in bench.caster.state(bench.masters(side), bench.cell).values():
            found[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    given = {tensor.data_ptr() for side in SIDES for tensor in bench.masters(side).values()}
    return float(sum(size for place, size in found.items() if place not in given))


class _Cost:
    """What runs of the two models cost, by their rates."""

    def __init__(self, bench: Bench, rates: Rates, own: Mapping[str, Cell]) -> None:
        self.bench, self.rates, self.own = bench, rates, own
        self.pairs = len(bench.alignment.pairs)
        self.weights = sum(
            t.numel() * t.element_size() for side in SIDES for t in bench.masters(side).values()
        )

    def forward(self, side: str, cell: Cell, samples: int) -> tuple[float, float]:
        """Seconds and bytes of one bare pass."""
        found = self.rates.forwards[side, cell]
        return found.seconds.at(samples), found.memory.at(samples)

    def lockstep(
        self, name: str, cell: Cell, lanes: Sequence[tuple[str, Cell]], samples: int, comparisons: int
    ) -> Phase:
        """Lanes side by side over so many samples, with so many comparisons at each pair."""
        ran = [self.forward(side, where, samples) for side, where in lanes]
        few = count_of(self.bench.inputs)
        widest = max(lanes, key=lambda lane: lane[1].torch_dtype.itemsize)[1]
        read = bytes_met(self.bench.at(cell=widest), comparisons) * samples / few / self.rates.reading
        meeting = self.rates.meeting * self.pairs * max(len(lanes) / 2, comparisons)
        return Phase(
            name=name,
            cell=cell.name,
            seconds=sum(seconds for seconds, _ in ran) + read + meeting,
            memory=sum(memory for _, memory in ran),
            forwards=_told(lanes, samples),
        )

    def called_again(self, cell: Cell) -> Phase:
        """Two bare calls of both on the few, with weights of their own."""
        samples = count_of(self.bench.inputs)
        ran = [self.forward(side, cell, samples) for side in SIDES]
        copied = 2 * self.weights / self.rates.moving
        return Phase(
            name="called again",
            cell=cell.name,
            seconds=2 * sum(seconds for seconds, _ in ran) + copied,
            memory=self.weights / 2 + max(memory for _, memory in ran),
            forwards=_told([(side, cell) for side in SIDES] * 2, samples),
        )


def _recorded(bench: Bench, own: Mapping[str, Cell]) -> tuple[Forwards, ...]:
    """A pass of each as it is given, and one in float64 of what converts."""
    cells = []
    for side, cell in own.items():
        again = cell != ORACLE and any(converts(call.op) for call in bench.graph(side).calls)
        cells += [(side, cell), *([(side, ORACLE)] if again else [])]
    return _told(cells, count_of(bench.inputs))


def _told(lanes: Sequence[tuple[str, Cell]], samples: int) -> tuple[Forwards, ...]:
    counts = Counter(cell.dtype for _, cell in lanes)
    return tuple(Forwards(passes=count, samples=samples, dtype=dtype) for dtype, count in counts.items())


def _of_rebuilt(cost: _Cost, few: int) -> Iterator[Phase]:
    """What models that are built otherwise take: they are proved, tried alone, and run with other numbers."""
    if cost.bench.alignment.rebuilt:
        for name, runs in (("proof of the pairs", 2), ("what is not reached", 1), ("other numbers", 2)):
            yield cost.lockstep(name, ORACLE, [(side, ORACLE) for side in SIDES] * runs, few, runs)


def left(
    bench: Bench, rates: Rates, parts: Parts, cells: Sequence[Cell], own: Mapping[str, Cell], *, batch: int
) -> Iterator[Phase]:
    """The phases behind the pairing.

    Args:
        bench: The two models, paired, on a few samples.
        rates: What their runs take.
        parts: The batches that they are compared on.
        cells: The cells that will run.
        own: The cell that each side's model is in as it was given.
        batch: How many samples the few were taken from.
    """
    baseline, candidate = SIDES
    cost, few, typical = _Cost(bench, rates, own), count_of(bench.inputs), typical_of(cells)
    alike = rates.alike
    yield from _of_rebuilt(cost, few)
    numerics = [cell for cell in cells if cell != ORACLE]
    whole = few == batch and not parts.streamed
    exactly = whole or ORACLE not in cells  # float64 is asked of the few, which run beside its oracle
    for cell in dict.fromkeys([typical, *numerics]):
        lanes = [(baseline, ORACLE), (baseline, cell), (candidate, cell)]
        if cell == typical and exactly:
            lanes += [(candidate, ORACLE)] * (1 if alike else 2)
        yield cost.lockstep("against float64", cell, lanes, few, len(lanes) - (2 if alike else 0))
        yield cost.called_again(cell)
        if cell not in numerics:
            continue
        if not whole:
            yield from _over(cost, parts, cell, [(baseline, cell), (candidate, cell)], 1)
        if not alike:
            lanes = [(baseline, ORACLE), (baseline, cell), (candidate, cell)]
            yield cost.lockstep("step by step", cell, lanes, few, 2)
    if cells and not numerics:
        yield cost.lockstep("called again", ORACLE, [(side, ORACLE) for side in SIDES], few, 0)
        yield cost.called_again(ORACLE)
    if not exactly:
        yield from _over(
            cost, parts, ORACLE, [(baseline, ORACLE), *[(candidate, ORACLE)] * (1 if alike else 2)], 1
        )
    if few < batch and cells and all(cell.unit_roundoff > SINGLE_ROUNDOFF for cell in numerics):
        for samples in (few, batch):
            lanes = [(side, own) for side, own in cost.own.items()]
            yield cost.lockstep("few samples for all", cost.own[baseline], lanes, samples, 0)
    if parts.streamed and numerics and not alike:
        lanes = [(baseline, ORACLE), (baseline, typical), (candidate, typical), *[(candidate, ORACLE)] * 2]
        yield cost.lockstep("worst samples", ORACLE, lanes, few + 1, 5)
        yield cost.called_again(typical)


def _over(
    cost: _Cost, parts: Parts, cell: Cell, lanes: Sequence[tuple[str, Cell]], comparisons: int
) -> Iterator[Phase]:
    """A pass over all batches of a rank, with what reading them takes beyond it."""
    ran = [cost.lockstep("passes", cell, lanes, samples, comparisons) for samples in parts.sizes]
    yield from ran
    if parts.streamed:
        beside = sum(phase.seconds for phase in ran)
        yield Phase(name="reading", cell=cell.name, seconds=parts.reading(beside))
