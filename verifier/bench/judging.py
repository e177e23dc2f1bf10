"""From what one cell's runs measured to what is judged there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from msgspec.structs import replace as replace_struct

from verifier.bench.bare_calls import Calls
from verifier.bench.batched import LOST
from verifier.diagnose import diagnose, diagnose_inputs, exhibits, with_findings
from verifier.graph.reductions import accumulated, stretches
from verifier.graph.tensors import tensors_given
from verifier.judge import PairErrors, bare_rows, ends, judge_rows, numerics_budget
from verifier.metrics.measure import slower_because
from verifier.models.casting import arguments
from verifier.records import Accuracy, Budget, CellResult, Precision, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.align import Alignment
    from verifier.bench.batched import Measured, Meetings
    from verifier.bench.bench import Bench
    from verifier.bench.oracle import Standing
    from verifier.bench.protocol import Protocol
    from verifier.cells import Cell
    from verifier.judge import Judged, Policy
    from verifier.records import Exhibit

_ROUNDED = ("float", "bfloat", "complex")  # what names of dtypes begin with whose numbers are rounded


@dataclass(frozen=True)
class Assessed:
    """The result of one cell, and what its runs have shown of the models besides.

    `calls` is what calling both once more has shown, None where they were not; `words` says how what the two return
    differs that is no number. `alone` says whether both gave for the first and the last sample of a batch by
    themselves what they gave for these among all, None where nothing is known of that.
    """

    result: CellResult
    calls: Calls | None = None
    words: tuple[str, ...] = ()
    alone: bool | None = None


class _Limit(NamedTuple):
    """What a pair may be off by, and what was measured there against float64."""

    budget: Budget
    accuracy: Accuracy | None = None
    precision: Precision | None = None


def judged_by(
    bench: Bench,
    measured: Measured,
    budgets: Sequence[Budget],
    calls: Calls | None,
    standing: Standing | None = None,
) -> Judged:
    """The verdict on what was measured: a budget for each pair, then each shared output, then each state."""
    limits = (
        [_Limit(budget) for budget in budgets]
        if standing is None
        else [_Limit(*each) for each in zip(budgets, standing.accuracies, standing.precisions, strict=True)]
    )
    limits = [_exact(limit, k, bench.alignment, measured) for k, limit in enumerate(limits)]
    assert measured.free is not None  # noqa: S101 - only where two programs part is it left out
    forced = measured.forced
    pairs = _compared(measured.free.pairs, forced and forced.pairs, limits)
    rest = limits[len(pairs) :]
    outputs = _compared(measured.free.outputs, forced and forced.outputs, rest)
    states = _compared(measured.free.states, forced and forced.states, rest[len(outputs) :])
    found = calls or Calls()
    exact = [_Limit(budgets[0])] * len(measured.inputs) if budgets else []
    return judge_rows(
        bare_rows(
            bench.alignment,
            pairs,
            outputs,
            list(zip(bench.subject.states, states, strict=True)),
            _compared(measured.inputs, measured.inputs, exact),
            [_compared(each, None, rest) for each in (found.first, found.second, found.others)],
        )
    )


def _exact(limit: _Limit, k: int, alignment: Alignment, measured: Measured) -> _Limit:
    """The limit of a pair or an output, 0 where it holds whole numbers in which the baseline makes no error."""
    output = k - len(alignment.pairs)
    if output < 0:
        sites = (
            alignment.baseline.sites[alignment.pairs[k].baseline],
            alignment.candidate.sites[alignment.pairs[k].candidate],
        )
        whole = not any(site.dtype.startswith(_ROUNDED) for site in sites)
    elif measured.free is not None and output < len(measured.free.outputs):
        whole = measured.whole[output]
    else:
        return limit
    if not whole or limit.budget.noise_total:
        return limit
    return limit._replace(budget=replace_struct(limit.budget, total=0.0, intrinsic=0.0))


def _compared(free: Meetings, forced: Meetings | None, limits: Sequence[_Limit]) -> list[PairErrors]:
    return [
        PairErrors(
            shape=met.shape,
            candidate_shape=met.other_shape,
            total=met.error,
            intrinsic=None if forced is None else forced[k].error,
            budget=limits[k].budget,
            accuracy=limits[k].accuracy,
            precision=limits[k].precision,
        )
        for k, met in enumerate(free)
    ]


def budgets_of(policy: Policy, bench: Bench, standing: Standing) -> list[Budget]:
    """What every pair, shared output and state may be off by in a numerics cell: a multiple of the baseline's own."""
    alignment, cell = bench.alignment, bench.cell
    graphs = alignment.baseline, alignment.candidate
    own = stretches(graphs[0], alignment.partner), stretches(graphs[1], alignment.partner_back)
    sums = accumulated(graphs[0], own[0]), accumulated(graphs[1], own[1])
    places = [*alignment.pairs, *zip(graphs[0].outputs, graphs[1].outputs, strict=False)]
    known = alignment.partner, alignment.partner_back

    def at(place: tuple[int, int], counts: Sequence[Sequence[int]], *, paired: bool) -> int:
        """The larger count at one of the two sites, 1 where a model hands through what it was given."""
        sites = [(k, site) for k, site in enumerate(place) if site >= 0 and (paired or site not in known[k])]
        return max([1, *(counts[k][site] for k, site in sites)])

    pairs = len(alignment.pairs)
    lengths = [at(place, own, paired=k < pairs) for k, place in enumerate(places)]
    longest = [at(place, sums, paired=True) for place in places]
    longest[pairs:] = [max(longest, default=1)] * (len(places) - pairs)
    elements: list[int | None] = [math.prod(graphs[0].sites[b].shape) if b >= 0 else None for b, _ in places]
    rest = len(standing.accuracies) - len(lengths)  # states, behind all sums
    elements += [None] * rest
    lengths += [1] * rest
    longest += [max(longest, default=1)] * rest
    return [
        numerics_budget(
            policy,
            cell.dtype,
            cell.unit_roundoff,
            or_infinite(each.baseline_total),
            each.baseline_intrinsic,
            each.baseline_systematic,
            length,
            most,
            count,
        )
        for each, length, most, count in zip(standing.accuracies, lengths, longest, elements, strict=True)
    ]


def or_infinite(distance: float | None) -> float:
    """A distance, infinite where there is none because the shapes differ."""
    return math.inf if distance is None else distance


def diagnosed(bench: Bench, judged: Judged, protocol: Protocol) -> Judged:
    """The judgement with causes, and with blame for what the forced pass could not look at."""
    if judged.verdict is not Verdict.DIVERGED or protocol.localise == "never":
        return judged
    given = bench.caster.state(bench.subject.masters.baseline, bench.cell)
    found = diagnose(bench.alignment, judged.rows, given, bench.lanes)
    if bench.inputs.other is not None:
        sides = (tensors_given(arguments(each, bench.cell)) for each in (bench.inputs, bench.inputs.other))
        found.update(diagnose_inputs(judged.rows, *sides))
    return judge_rows(with_findings(judged.rows, found))


def exhibited(bench: Bench, judged: Judged, protocol: Protocol) -> tuple[Exhibit, ...]:
    """The culprits, looked at once more for the report."""
    if not judged.culprits or protocol.localise == "never":
        return ()
    return exhibits(bench.alignment, judged.rows, judged.culprits, bench.lanes)


def slower(cell: Cell) -> tuple[str, ...]:
    """What is to be said where pairs are not read by the kernel that was made for it."""
    why = slower_because(torch.device(cell.device))
    return (
        (f"pairs were read by several torch operations each, not by one compiled kernel: {why}",)
        if why
        else ()
    )


def result_of(
    bench: Bench,
    role: str,
    judged: Judged,
    measured: Measured,
    shown: tuple[Exhibit, ...],
    seconds: float,
) -> CellResult:
    """The record of a cell; what only totals tell of is no match."""
    verdict, reason = judged.verdict, judged.reason
    if verdict is Verdict.MATCH and measured.lost:
        verdict, reason = Verdict.INCONCLUSIVE, f"{LOST}: {measured.lost[0]}"
    return CellResult(
        name=bench.cell.name,
        role=role,
        verdict=verdict,
        reason=reason,
        batch_size=measured.samples,
        first_divergence=judged.first_divergence,
        culprits=judged.culprits,
        layers=judged.rows,
        seconds=seconds,
        output=measured.output,
        outputs=ends(bench.alignment, judged.rows),
        exhibits=shown,
    )
