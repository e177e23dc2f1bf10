"""Runs of the candidate, in float64 and in the dump's dtype, and what its tensors have in common with dumped ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from verifier.cells import ORACLE, Cell
from verifier.dumps.content import distance, fitting, likeness, mark, may_agree, partly
from verifier.dumps.matching import Agreement, Fit, Seen
from verifier.environment import tf32
from verifier.graph.tensors import dense
from verifier.judge import numerics_budget, semantics_budget
from verifier.judge.budgets import SINGLE_ROUNDOFF
from verifier.lockstep import Plan, meet, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from verifier.bench.bench import Bench
    from verifier.dumps.content import Conventions, Shape
    from verifier.graph import Graph
    from verifier.judge import Policy
    from verifier.records import Budget, Comparison

    Visit = Callable[[int, Tensor], None]

_SINGLE = Cell("cpu", "float32")


@dataclass(frozen=True)
class Runner:
    """The candidate, to be run again and again on the same inputs.

    A place is a site by its index, or behind these an output by its position. Of a first run `noise` has how far
    it is from itself in another precision there (NRMSE), `rounded` whether numbers are rounded, and `values` the
    outputs.
    """

    bench: Bench
    cell: Cell
    policy: Policy
    noise: dict[int, float] = field(default_factory=dict)
    rounded: dict[int, bool] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        """The candidate's graph."""
        return self.bench.graph("candidate")

    def first(self, visit: Visit) -> None:
        """Run it in both, see how far they are apart at every place, and visit the places."""
        other = self.cell if self.cell != ORACLE else _SINGLE

        def met(place: int, tensors: Sequence[Tensor]) -> None:
            wide, narrow = (dense(tensor).detach().cpu() for tensor in tensors)
            error = meet([wide], [narrow])[0].error
            self.noise[place] = _noise(error)
            judged = wide if self.cell == ORACLE else narrow
            self.rounded[place] = judged.is_floating_point() or judged.is_complex()
            if place >= len(self.graph.sites):
                self.values[place] = judged
            visit(place, judged)

        self._run([ORACLE, other], met)

    def again(self, visit: Visit) -> None:
        """Run it in the dump's dtype and visit the places."""
        self._run([self.cell], lambda place, tensors: visit(place, dense(tensors[0]).detach().cpu()))

    def _run(self, cells: Sequence[Cell], met: Callable[[int, Sequence[Tensor]], None]) -> None:
        stops = [site.index for site in self.graph.comparable]
        with tf32(allowed=False):
            passes = run(
                [self.bench.at(cell=cell).lane("candidate", stops=stops) for cell in cells],
                Plan([stops] * len(cells), [], [[]] * len(cells)),
                visit=lambda number, tensors: met(stops[number], tensors),
            )
        for k, values in enumerate(zip(*passes.values, strict=True)):
            met(len(self.graph.sites) + k, values)

    def loud(self, place: int) -> bool:
        """Whether rounding takes more than half of the digits there: then nothing can be told from them."""
        return self.cell != ORACLE and not self.noise[place] <= math.sqrt(self.cell.unit_roundoff)

    @property
    def input_budget(self) -> Budget:
        """What an input may be off by: it is rounded to the cell's dtype, and nothing else."""
        if self.cell == ORACLE:
            return semantics_budget(self.policy, 0.0)
        return _plain(
            numerics_budget(self.policy, self.cell.dtype, self.cell.unit_roundoff, 0.0, 0.0), exact=False
        )

    def budget(self, place: int) -> Budget:
        """What a place may be off by, from how far the candidate is from itself in another precision there."""
        noise = min(self.noise[place], 1.0)
        if self.cell == ORACLE:
            found = semantics_budget(self.policy, noise / SINGLE_ROUNDOFF)
        else:
            # What a step adds is not known apart from what comes in; the whole is allowed for either.
            found = numerics_budget(self.policy, self.cell.dtype, self.cell.unit_roundoff, noise, noise)
        exact = not noise and not self.rounded[place]
        return _plain(found, exact=exact)


def _plain(budget: Budget, *, exact: bool) -> Budget:
    if exact:  # whole numbers are not rounded
        return replace(budget, total=0.0, intrinsic=0.0)
    return replace(budget, intrinsic=budget.total, oracle_total=None, oracle_intrinsic=None)


def _noise(error: Comparison | None) -> float:
    if error is None or error.nonfinite_mismatched or math.isnan(error.nrmse):
        return math.inf
    return error.nrmse if error.elements and error.max_abs else 0.0


def seen(runner: Runner, tensors: Mapping[str, Tensor]) -> Seen:
    """What a first run shows: shapes, and which dumped tensors have the numbers of which places."""
    marks = {name: mark(tensor) for name, tensor in tensors.items()}
    shapes: dict[int, Shape] = {}
    agreeing: dict[str, dict[int, list[Agreement]]] = {}

    def visit(place: int, tensor: Tensor) -> None:
        shapes[place] = tuple(tensor.shape)
        if runner.loud(place):
            return
        own, limit = mark(tensor), runner.budget(place).total
        for name, dumped in tensors.items():
            if not may_agree(marks[name], own, limit):
                continue
            for layout in fitting(tuple(dumped.shape), shapes[place]):
                error = distance(dumped, tensor, layout)
                if error is not None and error.within(limit):
                    agreeing.setdefault(name, {}).setdefault(place, []).append(Agreement(layout, error))

    runner.first(visit)
    return Seen(shapes, {name: tuple(each.shape) for name, each in tensors.items()}, marks, agreeing)


def resembling(
    runner: Runner, tensors: Mapping[str, Tensor], columns: Sequence[int], conventions: Conventions
) -> dict[tuple[str, int], Fit | None]:
    """How much dumped tensors resemble those of places; None where another shape stands that may be a fault."""
    found: dict[tuple[str, int], Fit | None] = {}
    wanted = set(columns)

    def visit(place: int, tensor: Tensor) -> None:
        if place not in wanted:
            return
        other = tuple(tensor.shape)
        for name, dumped in tensors.items():
            shape = tuple(dumped.shape)
            layout = conventions.between(shape, other)
            fits = [layout] if layout is not None else list(fitting(shape, other))
            if fits:
                sizes = [sorted(size for size in each if size != 1) for each in (shape, other)]
                found[name, place] = Fit(
                    max(likeness(dumped, tensor, each) for each in fits), plain=sizes[0] == sizes[1]
                )
            elif nearly(shape, other, conventions):
                found[name, place] = None

    runner.again(visit)
    return found


def nearly(shape: Shape, other: Shape, conventions: Conventions) -> bool:
    """Whether two shapes of as many dimensions share half of their sizes, as the dump lays tensors out."""
    laid = as_dumped(shape, other, conventions)
    return len(shape) == len(laid) > 1 and 2 * sum(a == b for a, b in zip(shape, laid, strict=True)) >= len(
        shape
    )


def as_dumped(shape: Shape, other: Shape, conventions: Conventions) -> Shape:
    """The candidate's shape with its dimensions in the dump's order, as far as a convention or the sizes tell it."""
    if len(shape) != len(other):
        return other
    layout = conventions.order(shape, other)
    if layout is not None and len(layout.order) == len(other):
        return tuple(other[layout.order.index(k)] for k in range(len(other)))
    options = [other]
    if len(other) > 2:  # channels last or first
        options += [(other[0], *other[2:], other[1]), (other[0], other[-1], *other[1:-1])]
    return max(options, key=lambda each: sum(a == b for a, b in zip(each, shape, strict=True)))


def measured(
    runner: Runner, tensors: Mapping[str, Tensor], places: Mapping[str, int], conventions: Conventions
) -> dict[str, tuple[Agreement | None, Shape]]:
    """How far dumped tensors are from those of their places, laid out as others are; and the candidate's shape."""
    found: dict[str, tuple[Agreement | None, Shape]] = {}
    at: dict[int, list[str]] = {}
    for name, place in places.items():
        at.setdefault(place, []).append(name)

    def visit(place: int, tensor: Tensor) -> None:
        for name in at.get(place, ()):
            dumped = tensors[name]
            shape, other = tuple(dumped.shape), tuple(tensor.shape)
            layout = conventions.between(shape, other)
            fits = [layout] if layout is not None else list(fitting(shape, other))
            best: Agreement | None = None
            for each in fits:
                error = distance(dumped, tensor, each)
                if error is not None and (best is None or error.nrmse < best.error.nrmse):
                    best = Agreement(each, error, partly(dumped, tensor, each, runner.budget(place).total))
                if shape == other and layout is None:  # as it is, where nothing says otherwise
                    break
            found[name] = best, other

    runner.again(visit)
    return found
