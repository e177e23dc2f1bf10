"""Is it as accurate as the baseline in this dtype?"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec.structs import replace as replace_struct

from verifier.bench.bare_calls import called_again
from verifier.bench.judging import Assessed, budgets_of, diagnosed, exhibited, judged_by, result_of, slower
from verifier.bench.measuring import measure
from verifier.bench.noise_floor import noise_floor
from verifier.bench.oracle import stand, stepwise
from verifier.bench.repeatability import first_unrepeatable
from verifier.bench.subject import SIDES
from verifier.environment import tf32
from verifier.errors import CannotRunError, GraphDepartureError, OutOfMemoryError
from verifier.inputs.samples import batch_size
from verifier.inputs.streams import Stream, sizes, split
from verifier.judge import (
    hardware,
    judge_rows,
    left_open,
    less_accurate,
    near_limit,
    numeric,
    range_notes,
    summed_up,
    with_precision,
)
from verifier.judge.budgets import SINGLE_ROUNDOFF
from verifier.records import Budget, CellResult, Repeatability, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from verifier.bench.batched import Measured
    from verifier.bench.bench import Bench
    from verifier.bench.oracle import Standing
    from verifier.bench.protocol import Protocol
    from verifier.cells import Cell, Request
    from verifier.inputs import Inputs
    from verifier.judge import Judged
    from verifier.records import Exhibit


def every_cell(
    bench: Bench,
    inputs: Sequence[Inputs],
    requests: Iterable[Request],
    missing: Mapping[Cell, str],
    standings: Mapping[Cell, Standing],
    protocol: Protocol,
    verdict: Verdict | None,
    *,
    anew: Callable[[Cell], Bench] | None = None,
) -> Iterator[Assessed]:
    """Every cell that was asked for but the one in float64; `missing` says why some cannot run here.

    Args:
        bench: The two models on a few samples, in float64.
        inputs: What the cells run on, in batches.
        requests: The cells.
        missing: Why some of them cannot run on this machine.
        standings: Where the models stand to the oracle in cells that were tried before.
        protocol: How they are compared and judged.
        verdict: What float64 said of the two models, None where it was not asked.
        anew: Records both in a cell in which one departs from what it did when it was recorded; None if that is an
            error.
    """
    for cell, named in requests:
        if cell in missing:
            yield Assessed(_skipped(cell, missing[cell], named=named))
        elif cell != bench.cell:
            try:
                yield numerics(
                    bench.at(cell=cell), inputs, protocol, standings.get(cell), verdict=verdict, named=named
                )
            except GraphDepartureError as error:
                if anew is None:
                    raise
                yield _alike(anew, cell, inputs, str(error), protocol, named=named)


def _alike(
    anew: Callable[[Cell], Bench],
    cell: Cell,
    inputs: Sequence[Inputs],
    departs: str,
    protocol: Protocol,
    *,
    named: bool,
) -> Assessed:
    """A match where both are the same program in a cell, site by site and bit for bit; else it is skipped.

    Float64 takes another way and judges no rounding here. In coarser cells than float32 equal bits say too little: a
    constant that is not the baseline's may be rounded away.
    """
    started = time.perf_counter()
    skipped = Assessed(_skipped(cell, departs, named=named))
    if cell.unit_roundoff > SINGLE_ROUNDOFF:
        return skipped
    try:
        with tf32(allowed=cell.dtype == "tf32"):
            bench = anew(cell)
            measured = measure(bench, inputs, forced=False)
            calls = called_again(bench, by_order=protocol.by_order)
            repeatable = _repeated(bench, inputs[0], protocol)
    except CannotRunError:
        return skipped
    exact = Budget(rule=f"bits/{cell.name}", total=0.0, intrinsic=0.0)
    places = len(bench.alignment.pairs) + len(bench.alignment.same_outputs) + len(bench.subject.states)
    judged = judged_by(bench, measured, [exact] * places, calls)
    otherwise = any(row.differences or row.status is Status.UNMATCHED for row in judged.rows)
    returned = [len(bench.graph(side).outputs) for side in SIDES]
    if otherwise or not measured.identical or measured.words or returned[0] != returned[1]:
        return skipped
    seconds = time.perf_counter() - started
    result = replace_struct(
        result_of(bench, "numerics", judged, measured, (), seconds),
        named=named,
        notes=(
            "in this cell both take another way than in float64, which says nothing of it: recorded here, they are "
            "one program site by site and agree bit for bit",
            *measured.notes,
        ),
        repeatable=repeatable,
    )
    return Assessed(left_open(result), calls, measured.words)


def numerics(
    bench: Bench,
    inputs: Sequence[Inputs],
    protocol: Protocol,
    standing: Standing | None = None,
    *,
    verdict: Verdict | None = None,
    named: bool = True,
) -> Assessed:
    """Is it as accurate as the baseline in the bench's cell? `skipped`, with the reason, where it cannot run here.

    A forced pass follows the free one if the free one diverged, or if float64 told the models apart already. Where
    it found them equal, what is found here is a matter of arithmetic. Where memory runs out the batch is halved.
    """
    started = time.perf_counter()
    cell, parts = bench.cell, inputs
    notes: tuple[str, ...] = ()
    calls = standing.calls if standing else None
    words: tuple[str, ...] = ()  # what was seen stays known where the rest cannot run
    alone: bool | None = None
    while True:
        try:
            with tf32(allowed=cell.dtype == "tf32"):
                standing = standing or stand(bench, protocol)
                calls = standing.calls
                measured = _measured(bench, parts, protocol, standing, verdict)
                words = measured.words
                if cell.unit_roundoff <= SINGLE_ROUNDOFF:  # else rounding hides what depends on a batch
                    alone = calls.alone(measured.ends, standing.outputs)
                standing = _with_steps(bench, protocol, standing, measured)
                measured = replace(measured, lost=(*standing.lost, *measured.lost))
                judged, measured, shown = _judged(bench, parts, protocol, standing, measured, verdict)
                repeatable = _repeated(bench, parts[0], protocol)
                stage = f"noise of {cell.name}"
                # It is there to tell a difference from noise: float64 has told, or there is none to speak of.
                wanted = verdict is not Verdict.DIVERGED and any(map(near_limit, judged.rows))
                steps = bench.at(progress=protocol.steps(stage, bench.alignment, 1))
                floor = noise_floor(steps) if wanted else None
        except OutOfMemoryError as error:
            largest = max(sizes(parts))
            if largest == 1:
                return Assessed(_skipped(cell, str(error), named=named), calls, words, alone=False)
            half = (largest + 1) // 2
            parts = split(parts, half)
            notes = (f"out of memory with batches of {largest}: ran in batches of {half}",)
        except GraphDepartureError:
            raise
        except CannotRunError as error:
            return Assessed(_skipped(cell, str(error), named=named), calls, words, alone=False)
        else:
            seconds = time.perf_counter() - started
            result = replace_struct(
                result_of(bench, "numerics", judged, measured, shown, seconds),
                named=named,
                notes=(*notes, *slower(cell), *measured.notes, *range_notes(cell, judged.rows)),
                repeatable=repeatable,
                noise_floor=floor,
                hardware=hardware(protocol.policy, cell, judged.rows),
            )
            return Assessed(left_open(result), standing.calls, measured.words, alone)


def _measured(
    bench: Bench,
    parts: Sequence[Inputs],
    protocol: Protocol,
    standing: Standing,
    verdict: Verdict | None,
) -> Measured:
    """Free passes, and forced ones beside them where these are wanted in any case; nothing runs again on the few."""
    forced = protocol.localise == "always" or (protocol.localise == "auto" and verdict is Verdict.DIVERGED)
    if len(parts) == 1 and parts[0] is bench.inputs and not (forced and not standing.same):
        return standing.freely
    return measure(_steps(bench, protocol, bench.cell.name, parts), parts, forced=forced)


def _with_steps(bench: Bench, protocol: Protocol, standing: Standing, measured: Measured) -> Standing:
    """The standing with what single steps cost, which says nothing of two models that gave the very same numbers.

    It may say something of the device all the same, if what has added up is more than one step may err by.
    """
    if protocol.localise == "never":
        return standing
    alike = standing.same and measured.identical
    if alike:
        budgets = budgets_of(protocol.policy, bench, standing)
        rows = judged_by(bench, measured, budgets, standing.calls, standing).rows
        if not summed_up(protocol.policy, bench.cell, rows):
            return standing
    return stepwise(bench, standing, protocol, alike=alike)


def _judged(
    bench: Bench,
    parts: Sequence[Inputs],
    protocol: Protocol,
    standing: Standing,
    measured: Measured,
    verdict: Verdict | None,
) -> tuple[Judged, Measured, tuple[Exhibit, ...]]:
    budgets = budgets_of(protocol.policy, bench, standing)
    judged = judged_by(bench, measured, budgets, standing.calls, standing)
    suspicious, same_program = verdict is Verdict.DIVERGED, verdict is Verdict.MATCH
    wanted = suspicious or judged.verdict is Verdict.DIVERGED
    if not (protocol.localise == "always" or (protocol.localise == "auto" and wanted)):
        return judged, measured, ()
    if measured.identical:
        measured = replace(measured, forced=measured.free)  # nothing would be overwritten
    elif measured.forced is None:
        steps = _steps(bench, protocol, f"{bench.cell.name}, forced", parts)
        measured = measured.with_forced(measure(steps, parts, free=False))
    judged = judged_by(bench, measured, budgets, standing.calls, standing)
    if suspicious:
        return judged, measured, ()
    told = all(less_accurate(row, intrinsic=True) or numeric(row.cause) for row in judged.culprits)
    if not (same_program and told):
        judged = diagnosed(bench, judged, protocol)
    judged = judge_rows([with_precision(row, bench.cell, proved=same_program) for row in judged.rows])
    return judged, measured, exhibited(bench, judged, protocol)


def _steps(bench: Bench, protocol: Protocol, stage: str, parts: Sequence[Inputs]) -> Bench:
    if not isinstance(parts, Stream):
        return bench.at(progress=protocol.steps(stage, bench.alignment, len(parts)))
    count, batch = parts.seen.samples or 0, batch_size(parts.head)
    return bench.at(progress=protocol.steps(stage, bench.alignment, len(parts), count, batch))


def _repeated(bench: Bench, inputs: Inputs, protocol: Protocol) -> Repeatability | None:
    runs = protocol.repeat
    if runs <= 1:
        return None
    steps = protocol.steps(f"{bench.cell.name}, {runs} runs", bench.alignment, 2 * (runs - 1))
    repeated = bench.at(inputs=inputs, progress=steps)
    first = [first_unrepeatable(repeated, side, runs) for side in SIDES]
    return Repeatability(runs=runs, baseline=first[0], candidate=first[1])


def _skipped(cell: Cell, reason: str, *, named: bool) -> CellResult:
    """The result of a cell that cannot run here."""
    return CellResult(
        name=cell.name, role="numerics", verdict=Verdict.SKIPPED, batch_size=0, reason=reason, named=named
    )
