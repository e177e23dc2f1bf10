"""What a comparison with a recording is judged by: budgets, pairs in doubt, what only a live baseline can tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from verifier.cells import ORACLE
from verifier.certificates.doubts import disproved, only_doubted
from verifier.judge import (
    STRICT,
    PairErrors,
    bare_rows,
    differs,
    judge_rows,
    numerics_budget,
    semantics_budget,
)
from verifier.judge.budgets import SINGLE_ROUNDOFF, narrowed_budget
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from verifier.align import Alignment, Pair, State
    from verifier.bench.bench import Bench
    from verifier.cells import Cell
    from verifier.certificates.arrays import Recording
    from verifier.certificates.content import RecordingRecord
    from verifier.certificates.keeping import Kept
    from verifier.certificates.meeting import Error, Met
    from verifier.judge import Judged, Policy
    from verifier.lockstep import Passes
    from verifier.records import Budget, Comparison, PairResult

_ROUNDED = ("float", "bfloat", "complex")  # what names of dtypes begin with whose numbers are rounded
_GUESSES = 3  # rounds of taking back pairs; one is enough unless a wrong pair hid another
WRONG_GUESS = "paired by its place at first, but what is recorded of its tensor disproved that"
GUESSED = "paired by structure alone, and what came out agrees where this does not"
UNPROVED = (
    "built from different operators, what the two return agrees as float32 rounds: whether sites that differ belong "
    "together, or weights are stored rounded, only a live baseline tells"
)


@dataclass(frozen=True)
class Setting:
    """A recording, the run it is compared with, and what both are judged by."""

    recording: Recording
    cell: Cell
    policy: Policy
    unit: float  # roundoff of the cell that the noise was measured in
    full: Kept | None = None


def settled(
    bench: Bench,
    alignment: Alignment,
    met: Met,
    outputs: Sequence[Error],
    states: Mapping[tuple[str, str], Error],
    setting: Setting,
    passes: Passes,
) -> tuple[Judged, Alignment]:
    """The judgement, and the alignment: in float64 without the pairs that what is recorded disproves."""
    judged, noise = _judged(alignment, met.errors, outputs, states, setting, passes)
    if setting.cell == ORACLE:
        for _ in range(_GUESSES):
            if judged.first_divergence is None:
                break
            wrong, right = disproved(bench, alignment, judged.rows, met.known(), met.error)
            if not wrong:
                break
            met.errors |= {pair: (met.shape(pair), met.shape(pair), error) for pair, error in right.items()}
            alignment = alignment.repaired(wrong, right, WRONG_GUESS)
            judged, noise = _judged(alignment, met.errors, outputs, states, setting, passes)
    if outputs and all(_alike(each, setting, noise) for each in outputs):
        guesses = setting.cell == ORACLE and alignment.rebuilt
        wrong = [
            pair
            for pair in _differing(alignment, judged.rows)
            if not _firm(alignment, pair) and (guesses or not _as_many(alignment, pair))
        ]
        if wrong:
            alignment = alignment.repaired(wrong, (), GUESSED)
            judged, noise = _judged(alignment, met.errors, outputs, states, setting, passes)
    if setting.full is not None and judged.first_divergence is not None:
        judged = _alone(judged, alignment, *met.forced(bench, alignment))
    guessed = alignment.rebuilt or bool(alignment.unmatched) or only_doubted(alignment, judged.rows)
    at_ends = noise[len(setting.recording.record.sites) :]
    if guessed and judged.verdict is Verdict.DIVERGED and _explained(outputs, at_ends):
        judged = replace(judged, verdict=Verdict.INCONCLUSIVE, reason=UNPROVED)
    return judged, alignment


def _alone(
    judged: Judged, alignment: Alignment, errors: Mapping[Pair, Comparison], held: Collection[Pair]
) -> Judged:
    """The judgement where what stands above some rows was made equal: their intrinsic errors are known."""
    graphs = alignment.baseline, alignment.candidate
    named = {
        (graphs[0].sites[pair.baseline].name, graphs[1].sites[pair.candidate].name): pair for pair in errors
    }
    pairs = {row.index: named.get((row.baseline or "", row.candidate or "")) for row in judged.rows}
    equal = {k for k, pair in pairs.items() if pair and (pair in held or errors[pair].max_abs == 0)}
    rows = [
        msgspec.structs.replace(
            row,
            intrinsic=errors[pair]
            if (pair := pairs[row.index]) and row.kind == "site" and equal.issuperset(row.above)
            else row.intrinsic,
        )
        for row in judged.rows
    ]
    return judge_rows(rows)


def _judged(
    alignment: Alignment,
    by_pair: Mapping[Pair, Error],
    outputs: Sequence[Error],
    states: Mapping[tuple[str, str], Error],
    setting: Setting,
    passes: Passes,
) -> tuple[Judged, Sequence[float]]:
    """What the errors of all pairs, outputs and states make of an alignment; and the noise they are judged by."""
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

    pairs = []
    for pair in alignment.pairs:
        b, c = pair
        dtypes = [alignment.baseline.sites[b].dtype, alignment.candidate.sites[c].dtype]
        pairs.append(errors(by_pair[pair], row_of[b], b, dtypes))
    end, first = len(alignment.baseline.sites), len(record.sites)
    names = {each.name: first + len(record.outputs) + k for k, each in enumerate(record.states)}
    left = [
        (state, errors(states[state.baseline, state.candidate], names[state.baseline], end))
        for state in written(alignment, record)
    ]
    ends_at = [errors(each, first + k, end, [record.outputs[k].dtype]) for k, each in enumerate(outputs)]
    return judge_rows(with_intrinsic(bare_rows(alignment, pairs, ends_at, left))), noise


def written(alignment: Alignment, record: RecordingRecord) -> list[State]:
    """What either model writes and the recording holds."""
    known = {each.name for each in record.states}
    return [state for state in alignment.states(whole(alignment)) if state.baseline in known]


def _explained(outputs: Sequence[Error], noise: Sequence[float]) -> bool:
    """Whether what comes out differs by no more than rounding in float32 does: folded weights are stored in it."""
    return bool(outputs) and all(
        total is not None
        and total.within(numerics_budget(STRICT, "float32", SINGLE_ROUNDOFF, own, None).total)
        for (_, _, total), own in zip(outputs, noise, strict=False)
    )


def _differing(alignment: Alignment, rows: Sequence[PairResult]) -> list[Pair]:
    graphs = alignment.baseline, alignment.candidate
    wrong = {(row.baseline, row.candidate) for row in rows if row.kind == "site" and differs(row)}
    return [
        pair
        for pair in alignment.pairs
        if (graphs[0].sites[pair.baseline].name, graphs[1].sites[pair.candidate].name) in wrong
    ]


def _firm(alignment: Alignment, pair: Pair) -> bool:
    """Whether a pair stands on weights, which say more than a place does."""
    b, c = alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate]
    return bool(b.tensors and c.tensors) and _as_many(alignment, pair)


def _as_many(alignment: Alignment, pair: Pair) -> bool:
    """Whether the tensors of a pair hold as many numbers."""
    b, c = alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate]
    return math.prod(b.shape) == math.prod(c.shape)


def _alike(error: Error, setting: Setting, noise: Sequence[float]) -> bool:
    budget = _budget(setting, max(noise, default=0.0), narrowed=False)
    return error[2] is not None and error[2].within(budget.total)


def _budget(setting: Setting, noise: float, *, narrowed: bool) -> Budget:
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


def whole(alignment: Alignment) -> dict[str, str]:
    """The baseline's tensor for each of the candidate's that is that one as a whole."""
    return {name: each.whole for name, each in alignment.parameters.items() if each.whole is not None}
