"""How far both models are from the float64 oracle in one cell: the three run together and meet at every pair."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from verifier.bench.bare_calls import Called, called_again
from verifier.bench.measuring import met_in
from verifier.bench.subject import SIDES
from verifier.cells import ORACLE
from verifier.judge.budgets import SINGLE_ROUNDOFF
from verifier.lockstep import Comparing, Plan, run
from verifier.metrics import compare
from verifier.metrics.precision import collect, read
from verifier.metrics.systematic import systematic
from verifier.records import Accuracy, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.bench.bare_calls import Calls
    from verifier.bench.batched import Measured
    from verifier.bench.bench import Bench
    from verifier.bench.protocol import Protocol
    from verifier.lockstep import Meeting, Passes
    from verifier.metrics.precision import Reading


@dataclass(frozen=True)
class Standing:
    """Where both models stand to the oracle: for each pair, then each shared output, then each state.

    `same` says that the two models gave the same numbers everywhere. `calls` is what calling both once more has
    shown, with nothing that watches them; `outputs` is how far each shared output of the baseline is from float64.
    `freely` is what this run measured between the two, and `exactly` what the two in float64 beside it did, where
    that was asked for. `dtypes` holds what pairs are rounded to, `lost` why forced passes did not come to their end.
    """

    accuracies: tuple[Accuracy, ...]
    precisions: tuple[Precision | None, ...]
    same: bool
    calls: Calls
    outputs: tuple[float, ...]
    freely: Measured
    exactly: Measured | None
    dtypes: Mapping[int, torch.dtype]
    lost: tuple[str, ...] = ()


def stand(bench: Bench, protocol: Protocol, *, exactly: bool = False) -> Standing:
    """Run the oracle, the baseline and the candidate side by side in the bench's cell.

    The oracle is the baseline in float64, with the master weights: *total* distances are what the cell's arithmetic,
    its weights and its inputs cost in all. With `exactly` the candidate runs in float64 beside it, freely and, unless
    nothing is to be localised, forced; models that work in one memory cannot run so.
    """
    progress = protocol.steps(f"{bench.cell.name} against float64", bench.alignment, 1)
    layouts = bench.alignment.laid_out
    dtypes: dict[int, torch.dtype] = {}
    readings: dict[int, Reading] = {}

    def visit(pair: int, tensors: Sequence[Tensor]) -> None:
        oracle, one, two = tensors
        dtypes[pair] = one.dtype
        wide = oracle.dtype is torch.float64 and one.is_floating_point() and two.is_floating_point()
        if wide and oracle.shape == one.shape == two.shape and pair not in layouts:
            readings[pair] = read(oracle, one, two)

    baseline, candidate = SIDES
    wide = bench.at(cell=ORACLE)
    lanes = [
        wide.lane(baseline),
        bench.lane(baseline),
        bench.lane(candidate, inputs=bench.given(candidate)),
    ]
    copies = [each.model for each in lanes[1:]]
    # What the two agree in is measured once.
    comparisons = [Comparing(1, 2), Comparing(0, 1), Comparing(0, 2)]
    runs = [baseline, baseline, candidate]
    forced = None
    if exactly:
        lanes.append(wide.lane(candidate, inputs=bench.given(candidate)))
        comparisons.append(Comparing(0, 3))
        runs.append(candidate)
        if protocol.localise != "never":
            forced = len(comparisons)
            lanes.append(wide.lane(candidate))
            comparisons.append(Comparing(0, 4, force=True, after=None if bench.inputs.other else 3))
            runs.append(candidate)
    plan = Plan(
        [bench.paired_sites(each) for each in runs],
        comparisons,
        [bench.written(each) for each in runs],
        layouts,
        visited=3,
    )
    passes = run(lanes, plan, progress, visit=visit)
    returned = [lane.outputs for lane in lanes[1:3]]
    called = list(map(Called, copies, returned, passes.values[1:3]))
    calls = called_again(bench, called, by_order=protocol.by_order)
    shared_outputs = min(map(len, passes.outputs))  # one model may return more than the other
    total = [_distances(passes, k, shared_outputs) for k in (1, 2)]
    return Standing(
        accuracies=tuple(
            Accuracy(baseline_total=one, candidate_total=two) for one, two in zip(*total, strict=True)
        ),
        precisions=_placed(readings, len(total[0])),
        same=all(meeting.identical for meeting in _met(passes, 0, shared_outputs)),
        calls=calls,
        outputs=tuple(_distance(meeting) or 0.0 for meeting in passes.outputs[1]),
        freely=met_in(passes, 0, (1, 2), bench.inputs, bench.cell),
        exactly=met_in(passes, 3, (0, 3), bench.inputs, ORACLE, forced)
        if exactly and not passes.shared
        else None,
        dtypes=dtypes,
    )


def stepwise(bench: Bench, standing: Standing, protocol: Protocol, *, alike: bool = False) -> Standing:
    """A standing with what the arithmetic of each single step costs.

    The baseline runs in float64 with the cell's own weights; at every pair it is rounded to the cell's dtype and both
    models are overwritten with it. All then compute the next pair from the very same numbers, so the *intrinsic*
    distance is what this one step costs, the rounding of its result included: 0.42 unit roundoffs where nothing else
    is rounded. In half precisions the part of it that all samples share is measured as well.

    A candidate that gave the very same numbers as the baseline needs no run of its own. Where it did so on all
    samples (`alike`) only the device is asked, and the first pairs tell.
    """
    alignment = bench.alignment
    sides = SIDES[:1] if standing.same else SIDES
    # Lanes that come to the pairs in other orders cannot all stand there when they are overwritten.
    orders = {tuple(sorted(range(len(own)), key=own.__getitem__)) for own in map(bench.paired_sites, sides)}
    groups = [sides] if len(orders) == 1 else [(side,) for side in sides]
    progress = protocol.steps(f"{bench.cell.name}, step by step", alignment, len(groups))
    # Where all is computed in one precision, gains and offsets are rounded as everything else is.
    wanted = not standing.same and bench.cell.unit_roundoff > SINGLE_ROUNDOFF
    count = len(standing.accuracies)
    shared_outputs = count - len(alignment.pairs) - len(bench.subject.states)
    found: dict[str, list[float | None]] = {}
    shared: dict[str, dict[int, Tensor]] = {side: {} for side in SIDES}
    lost: list[str] = []

    def keep(group: Sequence[str], pair: int, tensors: Sequence[Tensor]) -> None:
        for side, tensor in zip(group, tensors[1:], strict=True):
            if wanted and pair not in alignment.laid_out:
                part = systematic(tensors[0], tensor)
                if part is not None:
                    shared[side][pair] = part

    for group in groups:
        runs = [SIDES[0], *group]
        passes = run(
            [bench.lane(SIDES[0], exactly=True), *map(bench.lane, group)],
            Plan(
                [bench.paired_sites(each) for each in runs],
                [Comparing(0, k, force=True) for k in range(1, len(runs))],
                [bench.written(each) for each in runs],
                alignment.laid_out,
                standing.dtypes,
                last=_FIRST if alike else None,
            ),
            progress,
            visit=partial(keep, group),
        )
        lost.extend(passes.lost)
        for k, side in enumerate(group):
            distances = _distances(passes, k, shared_outputs)
            found[side] = [*distances, *[None] * (count - len(distances))]
    intrinsic = [found[SIDES[0]], found.get(SIDES[1], found[SIDES[0]])]
    accuracies = [
        Accuracy(
            baseline_total=total.baseline_total,
            candidate_total=total.candidate_total,
            baseline_intrinsic=one,
            candidate_intrinsic=two,
            baseline_systematic=three,
            candidate_systematic=four,
        )
        for total, one, two, three, four in zip(
            standing.accuracies, *intrinsic, *(_fetched(shared[side], count) for side in SIDES), strict=True
        )
    ]
    return replace(standing, accuracies=tuple(accuracies), lost=() if standing.same else tuple(lost))


_FIRST = 256  # pairs, among which are sums of products of every kind that a network has


def _placed(readings: Mapping[int, Reading], count: int) -> tuple[Precision | None, ...]:
    found = dict(zip(readings, collect(list(readings.values())), strict=True))
    return tuple(found.get(k) for k in range(count))


def _fetched(parts: Mapping[int, Tensor], count: int) -> list[float | None]:
    """The numbers by position, after one transfer; None where there is none."""
    found: list[float | None] = [None] * count
    if parts:
        for k, value in zip(parts, torch.stack(list(parts.values())).tolist(), strict=True):
            found[k] = value
    return found


def _met(passes: Passes, k: int, outputs: int) -> list[Meeting]:
    return list(itertools.chain(passes.meetings[k], passes.outputs[k][:outputs], passes.states[k]))


def _distances(passes: Passes, k: int, outputs: int) -> list[float | None]:
    return [_distance(meeting) for meeting in _met(passes, k, outputs)]


def _distance(meeting: Meeting) -> float | None:
    """The relative L2 distance; None where the shapes differ, 0 where there is nothing to compare."""
    if meeting.moments is None:
        return None
    error = compare(meeting.moments)
    return 0.0 if error.elements == 0 else error.nrmse
