"""How far both models are from the float64 oracle in one cell: the three run together and meet at every pair."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from verifier.bench.bare_calls import Called, called_again
from verifier.bench.measuring import met_freely
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
    from verifier.bench.bench import Bench
    from verifier.bench.measuring import Measured
    from verifier.bench.protocol import Protocol
    from verifier.lockstep import Meeting, Passes
    from verifier.metrics.precision import Reading


@dataclass(frozen=True)
class Standing:
    """Where both models stand to the oracle: for each pair, then each shared output, then each state.

    `same` says that the two models gave the same numbers everywhere. `calls` is what calling both once more has
    shown, with nothing that watches them; `outputs` is how far each shared output of the baseline is from float64.
    `exactly` is what free passes of both in float64 measured, where that was asked for. `lost` says why forced passes
    did not come to their end.
    """

    accuracies: tuple[Accuracy, ...]
    precisions: tuple[Precision | None, ...]
    same: bool
    calls: Calls
    outputs: tuple[float, ...] = ()
    exactly: Measured | None = None
    lost: tuple[str, ...] = ()


def stand(bench: Bench, protocol: Protocol, *, exactly: bool = False) -> Standing:
    """Run the oracle, the baseline and the candidate side by side in the bench's cell.

    The free pass has the baseline in float64, with the master weights, for an oracle: *total* distances are what the
    cell's arithmetic, its weights and its inputs cost in all. In the forced passes each model meets the baseline in
    float64 with the cell's own weights; at every pair that one is rounded to the cell's dtype and the model is
    overwritten with it. Both then compute the next pair from the very same numbers, so the *intrinsic* distance
    is what the arithmetic of this one step costs, the rounding of its result included: 0.42 unit roundoffs where
    nothing else is rounded.

    In half precisions the part of the intrinsic error that all samples share is measured as well.

    A candidate that gave the very same numbers as the baseline needs no forced pass of its own. With `exactly` the
    candidate runs in float64 beside the oracle, which is the baseline there.
    """
    progress = protocol.steps(f"{bench.cell.name} against float64", bench.alignment, 3)
    layouts = bench.alignment.laid_out
    sites = {side: bench.paired_sites(side) for side in SIDES}
    states = {side: bench.written(side) for side in SIDES}
    dtypes: dict[int, torch.dtype] = {}
    readings: dict[int, Reading] = {}

    def visit(pair: int, tensors: Sequence[Tensor]) -> None:
        oracle, one, two = tensors[:3]
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
    if exactly:
        lanes.append(wide.lane(candidate, inputs=bench.given(candidate)))
        comparisons.append(Comparing(0, 3))
        runs.append(candidate)
    plan = Plan([sites[each] for each in runs], comparisons, [states[each] for each in runs], layouts)
    passes = run(lanes, plan, progress, visit=visit)
    called = [Called(model, values) for model, values in zip(copies, passes.values[1:3], strict=True)]
    measured = met_freely(passes, 3, (0, 3), bench.inputs, ORACLE) if exactly else None
    calls = called_again(bench, called, by_order=protocol.by_order)
    shared_outputs = min(map(len, passes.outputs))  # one model may return more than the other
    total = [_distances(passes, k, shared_outputs) for k in (1, 2)]
    intrinsic: list[list[float | None]] = [[None] * len(total[0])] * 2
    shared: list[dict[int, Tensor]] = [{}, {}]
    lost: list[str] = []
    same = all(meeting.identical for meeting in _met(passes, 0, shared_outputs))
    # Where all is computed in one precision, gains and offsets are rounded as everything else is.
    wanted = not same and bench.cell.unit_roundoff > SINGLE_ROUNDOFF

    def keep(side: int, pair: int, tensors: Sequence[Tensor]) -> None:
        if wanted and pair not in layouts:
            part = systematic(*tensors)
            if part is not None:
                shared[side][pair] = part

    def alone(side: str) -> list[float | None]:
        """What the arithmetic of each step costs one model: it starts from the baseline's very numbers."""
        passes = run(
            [bench.lane(baseline, exactly=True), bench.lane(side)],
            Plan(
                [sites[baseline], sites[side]],
                [Comparing(0, 1, force=True)],
                [states[baseline], states[side]],
                layouts if side == candidate else {},
                dtypes,
            ),
            progress,
            visit=partial(keep, SIDES.index(side)),
        )
        lost.extend(passes.lost)
        return _distances(passes, 0, shared_outputs)

    if protocol.localise != "never":
        intrinsic = [alone(baseline)] * 2
        if not same:
            intrinsic[1] = alone(candidate)
    return Standing(
        tuple(
            Accuracy(
                baseline_total=one,
                candidate_total=two,
                baseline_intrinsic=three,
                candidate_intrinsic=four,
                baseline_systematic=five,
                candidate_systematic=six,
            )
            for one, two, three, four, five, six in zip(
                *total, *intrinsic, *(_fetched(side, len(total[0])) for side in shared), strict=True
            )
        ),
        _placed(readings, len(total[0])),
        same,
        calls,
        tuple(_distance(meeting) or 0.0 for meeting in passes.outputs[1]),
        measured,
        () if same else tuple(lost),
    )


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
