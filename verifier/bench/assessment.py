"""One cell, from running it to judging it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace as replace_struct

from verifier.bench.bare import Calls, called_again
from verifier.bench.noise_floor import noise_floor
from verifier.bench.oracle import Standing, stand
from verifier.bench.probing import probing
from verifier.bench.repeatability import first_unrepeatable
from verifier.bench.running import (
    ORACLE,
    Caster,
    Measured,
    Subject,
    arguments,
    batch_size,
    batches,
    measure_cell,
    open_lane,
)
from verifier.diagnose import (
    Tried,
    diagnose,
    diagnose_inputs,
    exhibits,
    unreached,
    with_findings,
    with_unreached,
)
from verifier.environment import tf32
from verifier.errors import CannotRunError, GraphDepartureError, OutOfMemoryError
from verifier.graph.reductions import accumulated, reduction
from verifier.graph.tensors import tensors_in
from verifier.judge import (
    Cell,
    Compared,
    Judged,
    Policy,
    bare_rows,
    ends,
    hardware,
    judge_rows,
    left_open,
    less_accurate,
    numeric,
    numerics_budget,
    range_notes,
    semantics_budget,
    with_precision,
)
from verifier.metrics.agreement import agreement
from verifier.proof.guesses import wrong_guesses
from verifier.records import (
    Accuracy,
    Budget,
    CellResult,
    Exhibit,
    OutputAgreement,
    Precision,
    Repeatability,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verifier.align import Recipe
    from verifier.inputs import Inputs
    from verifier.lockstep import Lane, Meeting
    from verifier.records import Probe

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, the steps done in it and the steps it has."""


# What a pair may be off by, and what was measured there against float64.
_Limit = tuple[Budget, Accuracy | None, Precision | None]

WRONG_GUESS = "paired by its place at first, but its tensor turned up elsewhere in the other model"
_GUESSES = 3  # rounds of taking back pairs; one is enough unless a wrong pair hid another

LOCALISE = ("auto", "always", "never")
_ROUNDED = ("float", "bfloat", "complex")  # what names of dtypes begin with whose numbers are rounded


@dataclass
class Assessor:
    """Runs and judges the cells of one subject.

    Attributes:
        subject: The two models.
        inputs: What the numerics cells run on, in batches.
        few: A few samples of it, for everything that runs in float64.
        policy: What a pair may be off by.
        localise: When to run forced passes, one of `LOCALISE`.
        progress: Told how far each stage has come.
        repeat: How often each numerics cell is run to see whether it gives the same numbers.
        by_order: Whether outputs are paired in their order whatever they are called.
        agreements: Agreement of the outputs, by cell name.
        exhibits: What the culprits look like, by cell name.
        calls: What calling both models once more has shown, by cell name.
        words: How what the two return differs that is no number, on any samples.
        tried: What sites that are written otherwise and give the same numbers gave alone, by row in float64.
    """

    subject: Subject
    inputs: Sequence[Inputs]
    few: Inputs
    policy: Policy
    localise: str
    progress: Progress
    repeat: int = 1
    by_order: bool = False
    agreements: dict[str, OutputAgreement | None] = field(default_factory=dict)
    exhibits: dict[str, tuple[Exhibit, ...]] = field(default_factory=dict)
    calls: dict[str, Calls] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    tried: dict[int, Tried] = field(default_factory=dict)
    _caster: Caster = field(default_factory=Caster)
    _standings: dict[Cell, Standing] = field(default_factory=dict)

    @property
    def batches(self) -> list[Inputs]:
        """Everything that went through both models at once."""
        return [self.few, *self.inputs]

    def semantics(self, inputs: Sequence[Inputs], probe: Cell, *, alone: bool = False) -> CellResult:
        """Is it the same program? Float64 on the CPU, free and forced side by side.

        `probe` is the numerics cell whose rounding noise tells how much the network amplifies rounding. Where no
        numerics cell will follow (`alone`), or the probe cannot run, the models are called bare here.
        """
        started = time.perf_counter()
        judged = self._semantics(inputs, probe, alone=alone)
        for _ in range(_GUESSES):
            wrong, right = wrong_guesses(self.subject, judged.rows, self.few, self._caster)
            if not wrong:
                break
            alignment = self.subject.alignment.repaired(wrong, right, WRONG_GUESS)
            self.subject = replace(self.subject, alignment=alignment)
            self._standings.clear()
            judged = self._semantics(inputs, probe, alone=alone)
        judged = self._excited(self._diagnosed(ORACLE, judged))
        self._exhibit(ORACLE, judged)
        return self._result(ORACLE, "semantics", inputs, judged, started)

    def _semantics(self, inputs: Sequence[Inputs], probe: Cell, *, alone: bool) -> Judged:
        amplification = [value / probe.unit_roundoff for value in self._noise(probe)]
        run = partial(measure_cell, self.subject, ORACLE, inputs, self._caster)
        wanted = self.localise != "never"
        # Models that gave the same numbers in the probe will do so here, and forcing would then change nothing.
        equal = wanted and probe in self._standings and self._standings[probe].same
        measured = run(forced=wanted and not equal, progress=self._steps("semantics", inputs))
        if equal and measured.identical:
            measured = replace(
                measured,
                intrinsic=measured.total,
                outputs_forced=measured.outputs,
                states_forced=measured.states,
            )
        elif equal:
            forced = run(free=False, progress=self._steps("semantics, forced", inputs))
            measured = measured.with_intrinsic(forced)
        self.agreements[ORACLE.name] = agreement(*measured.values)
        self.words += measured.words
        budgets = [semantics_budget(self.policy, value) for value in amplification]
        if alone or probe not in self._standings:
            self.calls[ORACLE.name] = called_again(
                self.subject, ORACLE, self.few, self._caster, by_order=self.by_order
            )
        return self._judge(ORACLE, measured, budgets)

    def probes(self, given: Inputs, known: Mapping[str, Recipe | None], seed: int) -> Iterator[Probe]:
        """What further inputs show that are drawn on purpose from all that were given."""
        return probing(self.subject, given, self.policy, self._caster, known, seed, self.progress)

    def numerics(
        self, cell: Cell, *, suspicious: bool = False, same_program: bool = False, named: bool = True
    ) -> CellResult:
        """Is it as accurate as the baseline in this dtype? `skipped`, with the reason, where it cannot run here.

        A forced pass follows the free one if the free one diverged, or if the models are `suspicious` already.
        `same_program` says that they agreed in float64, so that what is found here is a matter of arithmetic. Where
        memory runs out the batch is halved.
        """
        started = time.perf_counter()
        parts, notes = list(self.inputs), []
        while True:
            try:
                with tf32(allowed=cell.dtype == "tf32"):
                    judged = self._numerics(cell, parts, suspicious=suspicious, same_program=same_program)
                    repeatable = self._repeated(cell, parts[0])
                    floor = noise_floor(
                        self.subject,
                        cell,
                        self.few,
                        self._caster,
                        self._steps(f"noise of {cell.name}", [self.few]),
                    )
            except OutOfMemoryError as error:
                largest = max(map(batch_size, parts))
                if largest == 1:
                    return skipped(cell, str(error), named=named)
                parts = [half for part in parts for half in batches(part, (largest + 1) // 2)]
                notes = [f"out of memory with batches of {largest}: ran in batches of {(largest + 1) // 2}"]
            except GraphDepartureError:
                raise
            except CannotRunError as error:
                return skipped(cell, str(error), named=named)
            else:
                result = self._result(cell, "numerics", parts, judged, started)
                exact = hardware(self.policy, cell, judged.rows)
                return left_open(
                    replace_struct(
                        result,
                        named=named,
                        notes=(*notes, *range_notes(cell, judged.rows)),
                        repeatable=repeatable,
                        noise_floor=floor,
                        hardware=exact,
                    )
                )

    def _repeated(self, cell: Cell, inputs: Inputs) -> Repeatability | None:
        if self.repeat <= 1:
            return None
        steps = self._steps(f"{cell.name}, {self.repeat} runs", [inputs] * 2 * (self.repeat - 1))
        ours, theirs = (
            first_unrepeatable(self.subject, side, cell, inputs, self._caster, self.repeat, steps)
            for side in ("baseline", "candidate")
        )
        return Repeatability(runs=self.repeat, baseline=ours, candidate=theirs)

    def _numerics(
        self, cell: Cell, parts: Sequence[Inputs], *, suspicious: bool, same_program: bool
    ) -> Judged:
        standing = self._standing(cell)
        self.calls[cell.name] = standing.calls
        budgets = self._budgets(cell, standing)
        steps = self._steps
        measured = measure_cell(
            self.subject, cell, parts, self._caster, forced=False, progress=steps(cell.name, parts)
        )
        self.agreements[cell.name] = agreement(*measured.values)
        self.words += measured.words
        judged = self._judge(cell, measured, budgets, standing)
        wanted = suspicious or judged.verdict is Verdict.DIVERGED
        if self.localise == "always" or (self.localise == "auto" and wanted):
            forced = measure_cell(
                self.subject,
                cell,
                parts,
                self._caster,
                free=False,
                progress=steps(f"{cell.name}, forced", parts),
            )
            measured = measured.with_intrinsic(forced)
            judged = self._judge(cell, measured, budgets, standing)
            if not suspicious:
                told = all(less_accurate(row, own=True) or numeric(row.cause) for row in judged.culprits)
                if not (same_program and told):
                    judged = self._diagnosed(cell, judged)
                judged = judge_rows([with_precision(row, cell, proved=same_program) for row in judged.rows])
                self._exhibit(cell, judged)
        return judged

    def _budgets(self, cell: Cell, standing: Standing) -> list[Budget]:
        alignment = self.subject.alignment
        lengths = [
            max(reduction(alignment.baseline, pair.baseline), reduction(alignment.candidate, pair.candidate))
            for pair in alignment.pairs
        ]
        ours, theirs = accumulated(alignment.baseline), accumulated(alignment.candidate)
        longest = [max(ours[pair.baseline], theirs[pair.candidate]) for pair in alignment.pairs]
        rest = len(standing.accuracies) - len(lengths)  # outputs and states, behind all sums
        lengths += [1] * rest
        longest += [max(longest, default=1)] * rest
        return [
            numerics_budget(
                self.policy,
                cell.dtype,
                cell.unit_roundoff,
                _or_infinite(each.baseline_total),
                each.baseline_intrinsic,
                each.baseline_systematic,
                length,
                most,
            )
            for each, length, most in zip(standing.accuracies, lengths, longest, strict=True)
        ]

    def _noise(self, probe: Cell) -> list[float]:
        """The baseline's own rounding noise at every pair, output and state in a cell; 0 if it cannot run there."""
        try:
            with tf32(allowed=probe.dtype == "tf32"):
                return [_or_infinite(each.baseline_total) for each in self._standing(probe).accuracies]
        except GraphDepartureError:
            raise
        except CannotRunError:
            return [0.0] * (
                len(self.subject.alignment.pairs)
                + len(self.subject.alignment.same_outputs)
                + len(self.subject.states)
            )

    def _standing(self, cell: Cell) -> Standing:
        """Where both models stand to the float64 oracle in `cell`, measured once."""
        if cell not in self._standings:
            self._standings[cell] = stand(
                self.subject,
                cell,
                self.few,
                self._caster,
                forced=self.localise != "never",
                by_order=self.by_order,
                progress=self._steps(f"{cell.name} against float64", [self.few] * 3),
            )
        return self._standings[cell]

    def _judge(
        self, cell: Cell, measured: Measured, budgets: Sequence[Budget], standing: Standing | None = None
    ) -> Judged:
        nothing: Sequence[None] = [None] * len(budgets)
        limits: list[_Limit] = list(
            zip(budgets, nothing, nothing, strict=True)
            if standing is None
            else zip(budgets, standing.accuracies, standing.precisions, strict=True)
        )
        limits = [self._exact(limit, k, measured) for k, limit in enumerate(limits)]
        pairs = _compared(measured.total, measured.intrinsic, limits)
        rest = limits[len(pairs) :]
        outputs = _compared(measured.outputs, measured.outputs_forced, rest)
        states = _compared(measured.states, measured.states_forced, rest[len(outputs) :])
        named = list(zip(self.subject.states, states, strict=True))
        found = self.calls.get(cell.name, Calls())
        calls = [_compared(each, None, rest) for each in (found.first, found.second, found.others)]
        if self.few.other is None:
            return judge_rows(bare_rows(self.subject.alignment, pairs, outputs, named, (), calls))
        exact: list[_Limit] = [(budgets[0], None, None)] * len(measured.inputs) if budgets else []
        inputs = _compared(measured.inputs, measured.inputs, exact)
        return judge_rows(bare_rows(self.subject.alignment, pairs, outputs, named, inputs, calls))

    def _exact(self, limit: _Limit, k: int, measured: Measured) -> _Limit:
        """The limit of a pair or an output, 0 where it holds whole numbers in which the baseline makes no error."""
        alignment = self.subject.alignment
        output = k - len(alignment.pairs)
        if output < 0:
            sites = (
                alignment.baseline.sites[alignment.pairs[k].baseline],
                alignment.candidate.sites[alignment.pairs[k].candidate],
            )
            whole = not any(site.dtype.startswith(_ROUNDED) for site in sites)
        elif output < len(measured.outputs):
            whole = not any(
                side[output].is_floating_point() or side[output].is_complex() for side in measured.values
            )
        else:
            return limit
        budget = limit[0]
        if not whole or budget.noise_total:
            return limit
        return (replace_struct(budget, total=0.0, intrinsic=0.0), *limit[1:])

    def _diagnosed(self, cell: Cell, judged: Judged) -> Judged:
        """The judgement with causes, and with blame for what the forced pass could not look at."""
        if judged.verdict is not Verdict.DIVERGED or self.localise == "never":
            return judged
        open_lanes = functools.partial(self._two_lanes, cell)
        others = self._caster.state(self.subject.masters.baseline, cell)
        found = diagnose(self.subject.alignment, judged.rows, others, open_lanes)
        if self.few.other is not None:
            sides = (tensors_in(arguments(each, cell)) for each in (self.few, self.few.other))
            found.update(diagnose_inputs(judged.rows, *map(list, sides)))
        return judge_rows(with_findings(judged.rows, found))

    def _excited(self, judged: Judged) -> Judged:
        """The judgement with blame for sites whose difference, as written, the given inputs do not reach."""
        others = self._caster.state(self.subject.masters.baseline, ORACLE)
        open_lanes = functools.partial(self._two_lanes, ORACLE)
        self.tried = unreached(self.subject.alignment, judged.rows, others, open_lanes)
        rows = with_unreached(judged.rows, self.tried)
        return judged if rows == judged.rows else judge_rows(rows)

    def _exhibit(self, cell: Cell, judged: Judged) -> None:
        """Look at the culprits once more, for the report."""
        if judged.culprits and self.localise != "never":
            open_lanes = functools.partial(self._two_lanes, cell)
            self.exhibits[cell.name] = exhibits(
                self.subject.alignment, judged.rows, judged.culprits, open_lanes
            )

    def _two_lanes(
        self, cell: Cell, keep: Sequence[int] = (), keep_other: Sequence[int] = ()
    ) -> tuple[Lane, Lane]:
        """Both models on a few samples, keeping some calls of each."""
        return (
            open_lane(self.subject, "baseline", cell, self.few, self._caster, keep),
            open_lane(self.subject, "candidate", cell, self.few, self._caster, keep_other),
        )

    def _result(
        self, cell: Cell, role: str, inputs: Sequence[Inputs], judged: Judged, started: float
    ) -> CellResult:
        return CellResult(
            name=cell.name,
            role=role,
            verdict=judged.verdict,
            reason=judged.reason,
            batch_size=sum(map(batch_size, inputs)),
            first_divergence=judged.first_divergence,
            culprits=judged.culprits,
            layers=judged.rows,
            seconds=time.perf_counter() - started,
            output=self.agreements[cell.name],
            outputs=ends(self.subject.alignment, judged.rows),
            exhibits=self.exhibits.get(cell.name, ()),
        )

    def _steps(self, stage: str, inputs: Sequence[Inputs]) -> Callable[[], None]:
        total, done = len(self.subject.alignment.pairs) * len(inputs), 0

        def step() -> None:
            nonlocal done
            done += 1
            self.progress(stage, done, total)

        return step


def skipped(cell: Cell, reason: str, *, named: bool) -> CellResult:
    """The result of a cell that cannot run here."""
    return CellResult(
        name=cell.name, role="numerics", verdict=Verdict.SKIPPED, batch_size=0, reason=reason, named=named
    )


def _or_infinite(distance: float | None) -> float:
    return math.inf if distance is None else distance


def _compared(
    total: Sequence[Meeting],
    intrinsic: Sequence[Meeting] | None,
    limits: Sequence[_Limit],
) -> list[Compared]:
    return [
        Compared(
            shape=free.shape,
            candidate_shape=free.other_shape,
            total=free.error,
            intrinsic=None if intrinsic is None else intrinsic[k].error,
            budget=limits[k][0],
            accuracy=limits[k][1],
            precision=limits[k][2],
        )
        for k, free in enumerate(total)
    ]
