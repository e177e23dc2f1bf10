"""A candidate compared with a recording, in each of its cells: total errors, as in a free pass."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import torch

from verifier.align import align
from verifier.cells import ORACLE, Cell
from verifier.certificates.content import as_graph
from verifier.certificates.recording import alone
from verifier.certificates.summary import bits_of, compared, equal, summarise
from verifier.certificates.tensors import Fitted, fitted, marks
from verifier.environment import tf32
from verifier.graph.returned import words_apart
from verifier.graph.tensors import dense
from verifier.inputs.samples import batch_size
from verifier.judge import STRICT, PairErrors, bare_rows, ends, judge_rows, numerics_budget, semantics_budget
from verifier.judge.budgets import SINGLE_ROUNDOFF, narrowed_budget
from verifier.judge.statuses import differs
from verifier.lockstep import Plan, run
from verifier.metrics import collect, compare, measure
from verifier.metrics.agreement import agreement
from verifier.records import Budget, CellResult, Comparison, PairResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.align import Alignment, Assembly, State
    from verifier.bench.bench import Bench
    from verifier.bench.protocol import Protocol
    from verifier.bench.side import Side
    from verifier.certificates.certificate import Certificate, Recording
    from verifier.certificates.summary import Summary
    from verifier.inputs import Inputs
    from verifier.judge import Judged, Policy
    from verifier.lockstep import Passes
    from verifier.records import OutputAgreement

_LONG = (torch.int64, torch.uint64)
_EXACT = 2.0**106  # the square of the largest integer up to which float64 holds all
_ROUNDED = ("float", "bfloat", "complex")  # what names of dtypes begin with whose numbers are rounded
GUESSED = "paired by structure alone, and what came out agrees where this does not"
UNPROVED = (
    "built from different operators, what the two return agrees as float32 rounds: whether sites that differ belong "
    "together, or weights are stored rounded, only a live baseline tells"
)
_LIVE = "which of the sites behind it are at fault themselves only a live baseline can tell"


Error: TypeAlias = "tuple[tuple[int, ...], tuple[int, ...], Comparison | None]"
"""The recorded shape, the candidate's, and how far the two are apart where these agree."""


@dataclass(frozen=True)
class Found:
    """What comparing with a certificate has found."""

    alignment: Alignment
    fitted: Fitted
    cells: tuple[CellResult, ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class _Setting:
    """A recording, the run it is compared with, and what both are judged by."""

    recording: Recording
    cell: Cell
    policy: Policy
    unit: float  # roundoff of the cell that the noise was measured in


def compared_with(
    certificate: Certificate,
    candidate: Side,
    given: Inputs,
    few: Inputs,
    cells: Sequence[Cell],
    known: Mapping[str, Assembly | None],
    protocol: Protocol,
) -> Found:
    """Compare a candidate with a recording.

    Args:
        certificate: The recording.
        candidate: The candidate.
        given: What both are run on.
        few: What float64 was recorded on.
        cells: The numerics cells to compare in, all of them recorded.
        known: What is known of the parameter map.
        protocol: How it is judged.
    """
    graph = as_graph(certificate.content.graph)
    own = candidate.record(few).with_outputs_like(graph)
    told = marks(certificate, candidate.model)
    alignment = align(graph, own, told, known)
    fit = fitted(certificate, candidate.model, alignment, told[1], known)
    alignment = replace(alignment, parameters=fit.assemblies)
    bench = alone(candidate.model, own, fit.masters, few)
    recordings = {each.record.cell: each for each in certificate.recordings}
    unit = next((Cell.parse(name).unit_roundoff for name in recordings if name != ORACLE.name), 2.0**-24)
    results, words = [], []
    for cell in (ORACLE, *cells):
        recording = recordings[cell.name]
        here = bench.at(cell=cell, inputs=few if cell == ORACLE else given)
        setting = _Setting(recording, cell, protocol.policy, unit)
        result, alignment, said = _cell(here, alignment, setting, protocol)
        results.append(result)
        words += said
    return Found(alignment, fit, tuple(results), tuple(dict.fromkeys(words)))


class _Met:
    """What meets a recording while the candidate runs: for each pair, how far apart the two are."""

    def __init__(self, recording: Recording, alignment: Alignment) -> None:
        self._recording = recording
        self._alignment = alignment
        self._row = {site: k for k, site in enumerate(recording.record.sites)}
        self.errors: dict[int, Error] = {}

    def meet(self, number: int, tensors: Sequence[Tensor]) -> None:
        """Compare the candidate's tensor at a pair with what is recorded of the baseline's."""
        pair = self._alignment.pairs[number]
        row = self._row[pair.baseline]
        shape = self._recording.record.shapes[row]
        tensor = dense(tensors[0])
        layout = self._alignment.layouts.get(pair)
        if layout is not None:
            with contextlib.suppress(RuntimeError):  # where sizes do not allow it, the shapes differ
                tensor = layout.back(tensor, shape)
        self.errors[number] = shape, tuple(tensor.shape), self.distance(row, shape, tensor)

    def distance(self, row: int, shape: tuple[int, ...], tensor: Tensor) -> Comparison | None:
        """How far a tensor is from a recorded one; None where the shapes differ."""
        if tuple(tensor.shape) != shape:
            return None
        known: Summary = self._recording.summaries[row]
        bits = bits_of(tensor)
        if bits == known.bits:
            return equal(known)
        found = compared(known, summarise(tensor, bits))
        if found.max_abs == 0 and tensor.dtype in _LONG and known.moments.squares > _EXACT:
            # float64 does not tell them apart; they differ all the same
            found = msgspec.structs.replace(found, max_abs=1.0, mse=1.0 / found.elements, nrmse=2.0**-53)
        return found


def _cell(
    bench: Bench, alignment: Alignment, setting: _Setting, protocol: Protocol
) -> tuple[CellResult, Alignment, list[str]]:
    started = time.perf_counter()
    record = setting.recording.record
    met = _Met(setting.recording, alignment)
    states = [
        state
        for state in alignment.states(_whole(alignment))
        if state.baseline in {s.name for s in record.states}
    ]
    stops = [pair.candidate for pair in alignment.pairs]
    with tf32(allowed=bench.cell.dtype == "tf32"):
        lane = bench.lane("candidate", stops=stops)
        passes = run(
            [lane],
            Plan([stops], [], [[state.candidate for state in states]]),
            protocol.steps(bench.cell.name, alignment, 1),
            visit=met.meet,
        )
    outputs, agreed = _outputs(met, setting.recording, passes)
    left = _states(met, setting.recording, states, passes)
    judged, alignment = _judged(
        alignment, met.errors, outputs, list(zip(states, left, strict=True)), setting, passes
    )
    words = [
        said for said, may_say_nothing in words_apart(record.words, passes.words[0]) if not may_say_nothing
    ]
    role = "semantics" if setting.cell == ORACLE else "numerics"
    carried = any(row.status.value in ("carries", "amplifies") for row in judged.rows)
    result = CellResult(
        name=setting.cell.name,
        role=role,
        verdict=judged.verdict,
        reason=judged.reason,
        batch_size=batch_size(bench.inputs),
        first_divergence=judged.first_divergence,
        culprits=judged.culprits,
        layers=judged.rows,
        seconds=time.perf_counter() - started,
        output=agreed,
        outputs=ends(alignment, judged.rows),
        noise_floor=record.floor,
        notes=(f"compared with a recording: {_LIVE}",) if carried else (),
    )
    return result, alignment, words


def _whole(alignment: Alignment) -> dict[str, str]:
    return {name: each.whole for name, each in alignment.parameters.items() if each.whole is not None}


def _outputs(met: _Met, recording: Recording, passes: Passes) -> tuple[list[Error], OutputAgreement | None]:
    """How far apart the outputs are: exactly, where they are kept in full."""
    found: list[Error] = []
    first = len(recording.record.sites)
    values = [dense(tensor) for tensor in passes.values[0]]
    kept: list[tuple[Tensor, Tensor]] = []
    for k, (record, tensor) in enumerate(zip(recording.record.outputs, values, strict=False)):
        shape = tuple(tensor.shape)
        full = recording.outputs.get(k)
        if full is not None and shape == record.shape:
            full = full.to(tensor.device)
            kept.append((full, tensor))
            found.append((record.shape, shape, compare(collect([measure(full, tensor)])[0])))
        else:
            found.append((record.shape, shape, met.distance(first + k, record.shape, tensor)))
    whole = len(kept) == len(recording.record.outputs) == len(values)
    return found, agreement(*zip(*kept, strict=True)) if kept and whole else None


def _states(met: _Met, recording: Recording, states: Sequence[State], passes: Passes) -> list[Error]:
    record = recording.record
    first = len(record.sites) + len(record.outputs)
    rows = {each.name: (first + k, each.shape) for k, each in enumerate(record.states)}
    found = []
    for state, tensor in zip(states, passes.left[0], strict=True):
        row, shape = rows[state.baseline]
        found.append((shape, tuple(tensor.shape), met.distance(row, shape, dense(tensor))))
    return found


def _judged(
    alignment: Alignment,
    by_pair: Mapping[int, Error],
    outputs: Sequence[Error],
    states: Sequence[tuple[State, Error]],
    setting: _Setting,
    passes: Passes,
) -> tuple[Judged, Alignment]:
    record = setting.recording.record
    row_of = {site: k for k, site in enumerate(record.sites)}
    noise = record.noise or (0.0,) * record.rows
    narrow = _first_narrowed(alignment, record.narrowed, passes.narrowed[0])

    def errors(error: Error, row: int, place: int, dtypes: Sequence[str] = _ROUNDED) -> PairErrors:
        shape, other, total = error
        budget = _budget(setting, noise[row], narrowed=narrow is not None and place >= narrow)
        if not noise[row] and not any(dtype.startswith(_ROUNDED) for dtype in dtypes):
            budget = msgspec.structs.replace(
                budget, total=0.0, intrinsic=0.0
            )  # whole numbers are not rounded
        return PairErrors(shape=shape, candidate_shape=other, total=total, intrinsic=None, budget=budget)

    def rows(of: Alignment, numbers: Sequence[int]) -> tuple[PairResult, ...]:
        pairs = []
        for k in numbers:
            b, c = alignment.pairs[k]
            dtypes = [alignment.baseline.sites[b].dtype, alignment.candidate.sites[c].dtype]
            pairs.append(errors(by_pair[k], row_of[b], b, dtypes))
        end = len(alignment.baseline.sites)
        first = len(record.sites)
        names = {each.name: first + len(record.outputs) + k for k, each in enumerate(record.states)}
        return bare_rows(
            of,
            pairs,
            [errors(each, first + k, end, [record.outputs[k].dtype]) for k, each in enumerate(outputs)],
            [(state, errors(each, names[state.baseline], end)) for state, each in states],
        )

    everything = list(range(len(alignment.pairs)))
    bare = rows(alignment, everything)
    if alignment.rebuilt and outputs and all(_alike(each, setting, noise) for each in outputs):
        wrong = [k for k, row in zip(everything, _of_pairs(bare, alignment), strict=True) if differs(row)]
        if wrong:
            alignment_now = alignment.repaired([alignment.pairs[k] for k in wrong], (), GUESSED)
            bare = rows(alignment_now, [k for k in everything if k not in set(wrong)])
            return judge_rows(with_intrinsic(bare)), alignment_now
    judged = judge_rows(with_intrinsic(bare))
    guessed = alignment.rebuilt or bool(alignment.unmatched)
    if guessed and judged.verdict is Verdict.DIVERGED and _explained(outputs, noise[len(record.sites) :]):
        judged = replace(judged, verdict=Verdict.INCONCLUSIVE, reason=UNPROVED)
    return judged, alignment


def _explained(outputs: Sequence[Error], noise: Sequence[float]) -> bool:
    """Whether what comes out differs by no more than rounding in float32 does: folded weights are stored in it."""
    return bool(outputs) and all(
        total is not None
        and total.within(numerics_budget(STRICT, "float32", SINGLE_ROUNDOFF, own, None).total)
        for (_, _, total), own in zip(outputs, noise, strict=False)
    )


def _of_pairs(rows: Sequence[PairResult], alignment: Alignment) -> list[PairResult]:
    named = {(row.baseline, row.candidate): row for row in rows if row.kind == "site"}
    graphs = alignment.baseline, alignment.candidate
    return [
        named[graphs[0].sites[pair.baseline].name, graphs[1].sites[pair.candidate].name]
        for pair in alignment.pairs
    ]


def _alike(error: Error, setting: _Setting, noise: Sequence[float]) -> bool:
    budget = _budget(setting, max(noise, default=0.0), narrowed=False)
    return error[2] is not None and error[2].within(budget.total)


def _budget(setting: _Setting, noise: float, *, narrowed: bool) -> Budget:
    if setting.cell == ORACLE:
        if narrowed:
            return narrowed_budget(setting.policy, noise, 1, here=True)
        return semantics_budget(setting.policy, noise / setting.unit)
    budget = numerics_budget(setting.policy, setting.cell.dtype, setting.cell.unit_roundoff, noise, None)
    return msgspec.structs.replace(budget, intrinsic=budget.total, oracle_total=None, noise_intrinsic=None)


def _first_narrowed(alignment: Alignment, recorded: Sequence[int], here: frozenset[int]) -> int | None:
    """The baseline's first site at or behind a step that ran in float32 on either side; None where none did."""
    baseline, candidate = alignment.baseline, alignment.candidate
    places = [baseline.calls[call].first for call in recorded]
    for call in here:
        first = candidate.calls[call].first
        places.append(next((b for b, c in alignment.pairs if c >= first), len(baseline.sites)))
    return min(places, default=None)


def with_intrinsic(rows: Sequence[PairResult]) -> tuple[PairResult, ...]:
    """The rows, with the intrinsic error where the total one is that: what they read is the same on both sides.

    Inputs that agree but for rounding count as the same for a row that is beyond what rounding explains.
    """
    found = []
    for row in rows:
        above = [rows[k] for k in row.above]
        exact = all(each.total is not None and each.total.max_abs == 0 for each in above)
        own = exact or (differs(row) and not any(differs(each) for each in above))
        found.append(msgspec.structs.replace(row, intrinsic=row.total) if own else row)
    return tuple(found)
