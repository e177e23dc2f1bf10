"""The comparison itself: two models paired, told apart in float64, then looked at cell by cell."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verifier.bench.as_given import AsGiven, with_runs
from verifier.bench.bench import Bench
from verifier.bench.naming import with_names
from verifier.bench.numerics import every_cell
from verifier.bench.pairing import pair, prove, recorded_again
from verifier.bench.progressive import progressive
from verifier.bench.semantics import semantics
from verifier.cells import ORACLE, typical_of
from verifier.diagnose import flag_differences, static_differences
from verifier.errors import DataError
from verifier.inputs.samples import batch_size, batches
from verifier.judge import numeric, regions
from verifier.proof.dependence import read
from verifier.proof.excited import excited, hidden
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.align import Assembly
    from verifier.bench.judging import Assessed
    from verifier.bench.probes import Draw
    from verifier.bench.protocol import Protocol
    from verifier.bench.side import Side
    from verifier.bench.specialised import Way
    from verifier.bench.subject import Subject
    from verifier.cells import Cell, Request
    from verifier.diagnose import Tried
    from verifier.inputs import Inputs, Stream
    from verifier.judge import Region
    from verifier.records import CellResult, StaticDifference, Step


@dataclass(frozen=True)
class Terms:
    """What two models are compared in and with.

    Attributes:
        requests: The cells.
        missing: Why some of them cannot run on this machine.
        weights: Where the tensors come from, see `verifier.weights.choose`.
        known: What is known of the parameter map.
        seed: For weights that are drawn.
        by_block: Whether blocks and stages are verified before the network.
        semantics: Whether float64 on a few samples comes first.
        batch_size: Samples that go through at once; None for all of them.
        stream: All samples, where what the models are given is only the first batch of them.
        recorded_anew: Whether both are recorded with the tensors they are compared with, and again in a cell in which
            a model departs from that.
        protocol: How everything is compared and judged.
        split: The batch size that was asked for and could not be kept to.
    """

    requests: tuple[Request, ...]
    missing: Mapping[Cell, str]
    weights: str
    known: Mapping[str, Assembly | None]
    seed: int
    by_block: bool
    semantics: bool
    batch_size: int | None
    protocol: Protocol
    stream: Stream | None = None
    recorded_anew: bool = False
    split: int | None = None

    def parts(self, given: Inputs) -> list[Inputs]:
        """What the models are given, in batches; the first batch of a stream is one."""
        return [given] if self.stream is not None else batches(given, self.batch_size)

    def anew(self) -> Terms:
        """The same terms where other samples, batches or weights have turned out to take another way.

        Raises:
            DataError: Samples are streamed: there is no one batch of all.
        """
        if self.stream is not None:
            raise DataError(
                "the models' control flow depends on what is in a batch, so all samples have to be in one; these are "
                "streamed. Give fewer of them, with --input."
            )
        return replace(self, batch_size=None, recorded_anew=True, split=self.batch_size)


@dataclass(frozen=True)
class Compared:
    """What a comparison has found.

    Attributes:
        bench: The two models on a few samples in float64, without pairs that numbers have disproved.
        batches: Everything that went through both models at once.
        static: What differs as written.
        steps: The blocks and stages that were verified first.
        cells: What was found in each cell.
        tried: What sites that are written otherwise gave alone, by their row in float64.
        read: Of regions without partners, whether what was compared depends on them, as far as that was asked: where
            nothing diverged, of those of many operators and of those that weights of 0 or 1 may hide.
        silent: The baseline's parameters that are all 0, and were not compared with other numbers in them.
        notes: What was done otherwise than it was asked for.
        runs: What the two models as they were given have shown.
        doubtful: Other samples or settings, with which a model does otherwise than with those that were compared.
        ways: Those that a model takes for other numbers, of which the other one was captured; asked where they part.
        stream: All samples, where they were streamed.
    """

    bench: Bench
    batches: tuple[Inputs, ...]
    static: tuple[StaticDifference, ...]
    steps: tuple[Step, ...]
    cells: tuple[Assessed, ...]
    tried: Mapping[int, Tried]
    read: Mapping[Region, bool]
    silent: tuple[str, ...]
    notes: tuple[str, ...] = ()
    runs: tuple[AsGiven, ...] = ()
    doubtful: tuple[Draw, ...] = ()
    ways: tuple[Way, ...] = ()
    stream: Stream | None = None

    @property
    def results(self) -> tuple[CellResult, ...]:
        """The records of all cells."""
        return with_names(with_runs([each.result for each in self.cells], self.runs), self.stream)

    @property
    def alone(self) -> bool:
        """Whether both models are known to give for samples by themselves what they give for them among all."""
        known = [each.alone for each in self.cells if each.alone is not None]
        return bool(known) and all(known)

    @property
    def samples_apart(self) -> tuple[int, ...]:
        """Samples on which the models part in a numerics cell, where float64 found nothing on its few."""
        if any(_reached(result) for result in self.results if result.role == "semantics"):
            return ()
        batch = batch_size(self.batches[1])  # rows have the shapes of the first
        rows = [
            row
            for result in self.results
            if result.role != "semantics" and result.verdict is Verdict.DIVERGED
            for row in (*result.culprits, result.first_divergence)
            if row is not None and row.shape[:1] == (batch,) and not numeric(row.cause)
        ]
        errors = [error for row in rows for error in (row.intrinsic, row.total) if error is not None]
        found = (error.max_abs_index[0] for error in errors if error.max_abs_index)
        return tuple(dict.fromkeys(found))[:_JOINING]

    @property
    def worst_samples(self) -> tuple[int, ...]:
        """Those on which the outputs are furthest apart in numerics cells, where they are apart at all."""
        errors = (
            each.output.sample_errors for each in self.results if each.output and each.role != "semantics"
        )
        return tuple(dict.fromkeys(each.worst for each in errors if each and each.largest))[:_JOINING]

    @property
    def diverged(self) -> bool:
        """Whether any cell diverged."""
        return any(each.result.verdict is Verdict.DIVERGED for each in self.cells)

    @property
    def sample_counts_differ(self) -> bool:
        """Whether the two models have given different numbers of samples anywhere."""
        return any(
            row.candidate_shape is not None and row.candidate_shape[:1] != row.shape[:1]
            for result in self.results
            for row in result.layers
        )


_JOINING = 2  # samples that join the few: the worst ones of the first culprits


def _reached(result: CellResult) -> bool:
    """Whether a cell tells the models apart on the given inputs."""
    return result.verdict is Verdict.DIVERGED and any(row.excited is None for row in result.culprits)


def compared(sides: tuple[Side, Side], given: Inputs, few: Inputs, terms: Terms) -> Compared:
    """Compare two models on `given`, and on a `few` samples of it wherever float64 is needed."""
    protocol = terms.protocol
    wanted = [request.cell for request in terms.requests if request.cell not in terms.missing]
    started = time.perf_counter()
    subject = pair(
        *sides,
        few,
        weights=terms.weights,
        known=terms.known,
        seed=terms.seed,
        proof=False,
        anew=terms.recorded_anew,
    )
    masters = subject.masters
    held = terms.parts(given)
    parts = held if terms.stream is None else terms.stream
    own = {side.role: side.cell() for side in sides}
    took = time.perf_counter() - started
    protocol.ahead(Bench(subject, few), parts, wanted, own, batch_size(given), took)
    bench = Bench(prove(subject, few), few)
    steps = progressive(bench, protocol.policy) if terms.by_block else ()
    exactly = None
    if terms.semantics or ORACLE in wanted:
        exactly = semantics(
            bench,
            parts if ORACLE in wanted else [few],
            typical_of(wanted),
            protocol,
            alone={*wanted} <= {ORACLE},
            anew=terms.recorded_anew,
        )
        bench = bench.at(subject=exactly.subject)
    verdict = exactly.assessed.result.verdict if exactly else None

    def in_cell(cell: Cell) -> Bench:
        return Bench(recorded_again(bench.subject, sides, given, terms.known, cell), given, cell)

    standings = exactly.standings if exactly else {}
    cells = every_cell(
        bench,
        parts,
        terms.requests,
        terms.missing,
        standings,
        protocol,
        verdict,
        anew=in_cell if terms.recorded_anew else None,
    )
    assessed = (*([exactly.assessed] if exactly else []), *cells)
    parted = any(each.result.verdict is Verdict.DIVERGED for each in assessed)
    reading, silent = ({}, masters.hiding) if parted else _read(bench)
    return Compared(
        bench,
        (few, *held),
        (*flag_differences(*(side.flags for side in sides)), *_as_written(subject, bench)),
        steps,
        assessed,
        exactly.tried if exactly else {},
        reading,
        silent,
        (*_not_in_batches(terms, batch_size(given)), *_rerouted(subject)),
        stream=terms.stream,
    )


def _read(bench: Bench) -> tuple[dict[Region, bool], tuple[str, ...]]:
    """Whether what was compared depends on regions without partners, and which parameters may still hide one."""
    silent = bench.subject.masters.hiding
    other = excited(bench) if regions(bench.alignment) else None
    shown = hidden(other.bench) if other is not None else {}
    if other is None or not shown:
        return read(bench), silent
    apart = {region: False for region, alike in shown.items() if not alike}
    left = tuple(name for name in silent if name not in other.names)
    return {**read(bench if apart else other.bench), **apart}, left


def _as_written(subject: Subject, bench: Bench) -> tuple[StaticDifference, ...]:
    """What differs as written, without tensors that are the other model's, rounded: a note tells of those."""
    masters, rounded = subject.masters, bench.subject.exact.get("candidate", {})
    return static_differences(
        subject.alignment, masters.baseline, masters.candidate, masters.assemblies, rounded
    )


def _rerouted(subject: Subject) -> tuple[str, ...]:
    if not subject.rerouted:
        return ()
    return (
        "with the tensors that were compared a model takes another way than with those it was given; what it does "
        "with its own alone was not compared (--weights as-is does)",
    )


def _not_in_batches(terms: Terms, samples: int) -> tuple[str, ...]:
    if terms.split is None or terms.split >= samples:
        return ()
    return (
        f"compared in one batch of {samples} samples, not in batches of {terms.split}: the models' control flow "
        "depends on what is in a batch, and batches of another content were not run",
    )
