"""A candidate compared with a recording, in each of its cells: total errors, as in a free pass."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from verifier.align import align
from verifier.cells import ORACLE, Cell
from verifier.certificates.content import as_graph
from verifier.certificates.judging import Setting, settled, written
from verifier.certificates.meeting import Met
from verifier.certificates.recording import alone
from verifier.certificates.tensors import Fitted, fitted, marks, with_tensors
from verifier.certificates.unreached import unreached
from verifier.diagnose import with_unreached, written_otherwise
from verifier.environment import tf32
from verifier.errors import CannotRunError, GraphDepartureError, InputError, ModelError, VerifierError
from verifier.graph.returned import words_apart
from verifier.graph.tensors import dense
from verifier.inputs.samples import batch_size
from verifier.judge import ends, judge_rows
from verifier.judge.budgets import SINGLE_ROUNDOFF
from verifier.lockstep import Plan, run
from verifier.metrics import collect, compare, measure
from verifier.metrics.agreement import agreement
from verifier.proof.dependence import read
from verifier.records import CellResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.align import Alignment, Assembly, State
    from verifier.bench.bench import Bench
    from verifier.bench.protocol import Protocol
    from verifier.bench.side import Side
    from verifier.certificates.arrays import Recording
    from verifier.certificates.certificate import Certificate
    from verifier.certificates.meeting import Error
    from verifier.diagnose import Tried
    from verifier.graph import Graph
    from verifier.inputs import Inputs
    from verifier.judge import Region
    from verifier.lockstep import Passes
    from verifier.records import OutputAgreement, StaticDifference

_LIVE = "which of the sites behind it are at fault themselves only a live baseline can tell"


@dataclass(frozen=True)
class Found:
    """What comparing with a certificate has found.

    `read` says of the candidate's regions of many operators whether what was compared depends on them, where nothing
    diverged; `silent` names parameters that are all 0, and may hide what they multiply.
    """

    alignment: Alignment
    fitted: Fitted
    cells: tuple[CellResult, ...]
    words: tuple[str, ...]
    read: Mapping[Region, bool]
    silent: tuple[str, ...]
    tried: Mapping[int, Tried]
    static: tuple[StaticDifference, ...]


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

    Raises:
        CannotRunError: The candidate takes all samples, and is made for no other number.
    """
    graph = as_graph(certificate.content.graph)
    own = _recorded(candidate, given, few).with_outputs_like(graph)
    told = marks(certificate, candidate.model)
    alignment = align(graph, own, told, known)
    fit = fitted(certificate, candidate, alignment, told[1], known)
    alignment = replace(alignment, parameters=fit.assemblies)
    bench = alone(candidate.model, own, fit.masters, few)
    recordings = {each.record.cell: each for each in certificate.recordings}
    unit = next((Cell.parse(name).unit_roundoff for name in recordings if name != ORACLE.name), 2.0**-24)
    results, words = [], []
    tried: Mapping[int, Tried] = {}
    for cell in (ORACLE, *cells):
        recording = recordings[cell.name]
        here = bench.at(cell=cell, inputs=few if cell == ORACLE else given)
        setting = Setting(
            recording, cell, protocol.policy, unit, certificate.full if cell == ORACLE else None
        )
        try:
            result, alignment, said, found = _cell(here, alignment, fit, setting, protocol)
        except GraphDepartureError:  # a candidate may go through its samples one by one
            if cell == ORACLE:
                raise
            whole = candidate.record(given).with_outputs_like(graph)
            other = replace(align(graph, whole, told, known), parameters=fit.assemblies)
            there = alone(candidate.model, whole, fit.masters, given).at(cell=cell)
            result, _, said, found = _cell(there, other, fit, setting, protocol)
            result = _unseen(result, cell, few)
        tried = found if cell == ORACLE else tried
        results.append(result)
        words += said
    reading: Mapping[Region, bool] = {}
    if not any(result.verdict is Verdict.DIVERGED for result in results):
        both = replace(bench.subject, alignment=alignment)
        reading = read(bench.at(subject=both, inputs=few), ("candidate",))
    silent = tuple(
        each.whole
        for name, each in fit.assemblies.items()
        if each.whole is not None and not fit.masters[name].any()
    )
    static = (*written_otherwise(alignment), *fit.differences)
    return Found(alignment, fit, tuple(results), tuple(dict.fromkeys(words)), reading, silent, tried, static)


def _recorded(candidate: Side, given: Inputs, few: Inputs) -> Graph:
    """The candidate's graph on what float64 was recorded on."""
    try:
        return candidate.record(few)
    except (InputError, ModelError) as error:
        if batch_size(few) == batch_size(given):
            raise
        try:
            candidate.record(given)
        except VerifierError:
            raise error from None
        raise CannotRunError(
            f"the recording holds float64 on {batch_size(few)} samples, and the candidate {candidate.spec} takes "
            f"{batch_size(given)} alone. This is a limit of the verifier: compare it with the baseline itself, or "
            "make it for any number of samples."
        ) from None


_OTHER_WAY = (
    "the candidate takes another way for so many samples than for the {few} that were recorded in float64, and "
    "{cell} rounds too coarsely to tell whether that is the same function"
)


def _unseen(result: CellResult, cell: Cell, few: Inputs) -> CellResult:
    """A cell on samples of which float64 has seen none: half precision alone does not say that all is well."""
    if result.verdict is not Verdict.MATCH or cell.unit_roundoff <= SINGLE_ROUNDOFF:
        return result
    reason = _OTHER_WAY.format(few=batch_size(few), cell=cell.name)
    return msgspec.structs.replace(result, verdict=Verdict.INCONCLUSIVE, reason=reason)


def _cell(
    bench: Bench, alignment: Alignment, fit: Fitted, setting: Setting, protocol: Protocol
) -> tuple[CellResult, Alignment, list[str], Mapping[int, Tried]]:
    started = time.perf_counter()
    record = setting.recording.record
    met = Met(setting.recording, alignment, setting.full)
    states = written(alignment, record)
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
    judged, alignment = settled(bench, alignment, met, outputs, left, setting, passes)
    judged = with_tensors(judged, alignment, fit)
    tried: Mapping[int, Tried] = {}
    if setting.cell == ORACLE and judged.verdict is Verdict.MATCH:
        tried = unreached(bench, alignment, judged.rows)
        rows = with_unreached(judged.rows, tried)
        judged = judged if rows == judged.rows else judge_rows(rows)
    words = [
        said for said, may_say_nothing in words_apart(record.words, passes.words[0]) if not may_say_nothing
    ]
    role = "semantics" if setting.cell == ORACLE else "numerics"
    carried = any(
        row.status.value in ("carries", "amplifies") and row.intrinsic is None for row in judged.rows
    )
    result = CellResult(
        name=setting.cell.name,
        role=role,
        batch_size=batch_size(bench.inputs),
        **judged.told(),
        seconds=time.perf_counter() - started,
        output=agreed,
        outputs=ends(alignment, judged.rows),
        noise_floor=record.floor,
        notes=(f"compared with a recording: {_LIVE}",) if carried else (),
    )
    return result, alignment, words, tried


def _outputs(met: Met, recording: Recording, passes: Passes) -> tuple[list[Error], OutputAgreement | None]:
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


def _states(
    met: Met, recording: Recording, states: Sequence[State], passes: Passes
) -> dict[tuple[str, str], Error]:
    record = recording.record
    first = len(record.sites) + len(record.outputs)
    rows = {each.name: (first + k, each.shape) for k, each in enumerate(record.states)}
    found = {}
    for state, tensor in zip(states, passes.left[0], strict=True):
        row, shape = rows[state.baseline]
        error = shape, tuple(tensor.shape), met.distance(row, shape, dense(tensor))
        found[state.baseline, state.candidate] = error
    return found
