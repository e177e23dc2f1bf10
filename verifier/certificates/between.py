"""How far two recordings are apart: at each pair, output and written state, judged by roundings alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from verifier.align import Pair, align
from verifier.certificates.judging import with_intrinsic
from verifier.certificates.summary import compared, equal
from verifier.graph.returned import words_apart
from verifier.judge import (
    PairErrors,
    bare_rows,
    differs,
    ends,
    judge_rows,
    left_between,
    recorded_budget,
    roundings,
)
from verifier.metrics import collect, compare, measure
from verifier.metrics.agreement import agreement
from verifier.records import CellResult, Comparison, Verdict

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from verifier.align import Alignment, Assembly, State
    from verifier.certificates.runs import Run
    from verifier.certificates.summary import Summary
    from verifier.graph import Graph
    from verifier.judge import Judged, Policy
    from verifier.records import Budget, OutputAgreement, PairResult

LAID_OUT = "laid out in two ways, which recordings cannot be compared across"
UNLIKE = "one of the recordings has read more of it than the other"
GUESSED = "paired by structure alone, and what came out agrees where this does not"
CHANCE = "random numbers were drawn, and did not begin alike in the two"
UNPROVED = (
    "built from different operators, what the two return agrees as rounding explains: whether sites that differ "
    "belong together, only live models can tell"
)


@dataclass(frozen=True)
class Between:
    """What was found of two runs."""

    alignment: Alignment
    result: CellResult
    words: tuple[str, ...]


def between(baseline: Run, candidate: Run, known: Mapping[str, Assembly | None], policy: Policy) -> Between:
    """Compare two recorded runs on the same inputs.

    Args:
        baseline: The trusted one.
        candidate: The one under test.
        known: What is known of the parameter map.
        policy: How it is judged.
    """
    graph = candidate.graph.with_outputs_like(baseline.graph)
    alignment = align(baseline.graph, graph, (_marks(baseline), _marks(candidate)), known)
    both = _Both(baseline, candidate, policy, graph.output_order)
    alignment = both.comparable(both.by_content(alignment))
    judged, rows, alignment = both.settled(alignment)
    draws = baseline.graph.draws or candidate.graph.draws
    if draws and baseline.chance != candidate.chance and judged.verdict is not Verdict.MATCH:
        judged = replace(judged, verdict=Verdict.INCONCLUSIVE, reason=CHANCE)
    words = words_apart(baseline.recording.record.words, candidate.recording.record.words)
    result = CellResult(
        name=candidate.cell.name,
        role="numerics",
        batch_size=candidate.recording.record.samples,
        **judged.told(),
        seconds=0.0,
        output=both.agreement(),
        outputs=ends(alignment, rows),
    )
    return Between(alignment, result, tuple(said for said, may_say_nothing in words if not may_say_nothing))


def _marks(run: Run) -> dict[str, Hashable]:
    return {name: None if each.constant else each.digest for name, each in run.tensors.items()}


class _Both:
    """The rows of two recordings, side by side."""

    def __init__(self, baseline: Run, candidate: Run, policy: Policy, order: tuple[int, ...] | None) -> None:
        self._runs = baseline, candidate
        self._policy = policy
        records = [run.recording.record for run in self._runs]
        self._row = [{site: k for k, site in enumerate(record.sites)} for record in records]
        count = len(records[1].outputs)
        self._order = order or tuple(range(count))

    def _summary(self, side: int, site: int) -> Summary:
        return self._runs[side].recording.summaries[self._row[side][site]]

    def _shape(self, side: int, site: int) -> tuple[int, ...]:
        return self._runs[side].recording.record.shapes[self._row[side][site]]

    def by_content(self, alignment: Alignment) -> Alignment:
        """The alignment with sites paired that have no partner and hold the same bits, as no other such site does."""
        keyed: list[dict[tuple[object, ...], list[int]]] = [{}, {}]
        for each in alignment.unmatched:
            side = int(each.side == "candidate")
            if each.site in self._row[side]:
                found = self._summary(side, each.site)
                if found.moments.numbers > 1 and found.moments.low < found.moments.high:
                    keyed[side].setdefault((self._shape(side, each.site), found.bits), []).append(each.site)
        right = [
            Pair(sites[0], keyed[1][key][0])
            for key, sites in keyed[0].items()
            if len(sites) == 1 and len(keyed[1].get(key, ())) == 1
        ]
        return alignment.repaired((), right, "") if right else alignment

    def comparable(self, alignment: Alignment) -> Alignment:
        """The alignment without the pairs of which the recordings say nothing."""
        laid = [pair for pair in alignment.pairs if pair in alignment.layouts]
        unlike = [
            pair
            for pair in alignment.pairs
            if pair not in alignment.layouts
            and self._runs[0].reads(self._shape(0, pair.baseline))
            != self._runs[1].reads(self._shape(1, pair.candidate))
        ]
        return alignment.repaired(laid, (), LAID_OUT).repaired(unlike, (), UNLIKE)

    def settled(self, alignment: Alignment) -> tuple[Judged, tuple[PairResult, ...], Alignment]:
        """The judgement; where what comes out agrees, pairs that structure alone has made, and differ, are undone."""
        judged, agrees = self._judged(alignment)
        if judged.verdict is Verdict.DIVERGED and agrees and alignment.rebuilt:
            names = {(row.baseline, row.candidate) for row in judged.rows if differs(row)}
            sites = alignment.baseline.sites, alignment.candidate.sites
            wrong = [
                pair
                for pair in alignment.pairs
                if (sites[0][pair.baseline].name, sites[1][pair.candidate].name) in names
                and not (sites[0][pair.baseline].tensors and sites[1][pair.candidate].tensors)
            ]
            alignment = alignment.repaired(wrong, (), GUESSED)
            judged, agrees = self._judged(alignment)
        if judged.verdict is Verdict.DIVERGED and agrees and (alignment.rebuilt or alignment.unmatched):
            judged = replace(judged, verdict=Verdict.INCONCLUSIVE, reason=UNPROVED)
        return judged, judged.rows, alignment

    def _judged(self, alignment: Alignment) -> tuple[Judged, bool]:
        errors = {pair: self._distance(pair) for pair in alignment.pairs}
        exact = [
            {pair[side] for pair, error in errors.items() if error is not None and error.max_abs == 0}
            for side in (0, 1)
        ]
        own, total = self._roundings(alignment, exact)
        cell = max((run.cell for run in self._runs), key=lambda cell: cell.unit_roundoff)

        def budget(pair: Pair | None, dtypes: Sequence[str], most: float = 0.0) -> Budget:
            at = max(total[side][pair[side]] for side in (0, 1)) if pair else most
            alone = max(own[side][pair[side]] for side in (0, 1)) if pair else most
            whole = not any(map(_rounded, dtypes))
            return recorded_budget(self._policy, cell.dtype, cell.unit_roundoff, at, alone, whole=whole)

        pairs = []
        for pair, error in errors.items():
            dtypes = [
                alignment.baseline.sites[pair.baseline].dtype,
                alignment.candidate.sites[pair.candidate].dtype,
            ]
            shapes = self._shape(0, pair.baseline), self._shape(1, pair.candidate)
            pairs.append(PairErrors(*shapes, error, None, budget(pair, dtypes)))
        outputs = []
        for k, (one, two, error) in enumerate(self._outputs()):
            sources = alignment.baseline.outputs[k], alignment.candidate.outputs[k]
            most = max(
                total[side][source] if source >= 0 else max(total[side], default=0.0)
                for side, source in enumerate(sources)
            )
            outputs.append(
                PairErrors(one.shape, two.shape, error, None, budget(None, [one.dtype, two.dtype], most))
            )
        most = max((max(each, default=0.0) for each in total), default=0.0)
        states = [
            (state, PairErrors(*shapes, error, None, budget(None, ["float32"], most)))
            for state, shapes, error in self._states(alignment)
        ]
        judged = left_between(judge_rows(with_intrinsic(bare_rows(alignment, pairs, outputs, states))))
        agrees = bool(outputs) and all(
            each.total is not None
            and (each.total.max_abs == 0 or each.total.within(each.budget.noise_total or 0.0))
            for each in outputs
        )
        return judged, agrees

    def _roundings(
        self, alignment: Alignment, exact: Sequence[set[int]]
    ) -> tuple[list[list[float]], list[list[float]]]:
        found = [
            roundings(graph, _units(graph, run), equal_sites, self._policy)
            for graph, run, equal_sites in zip(
                (alignment.baseline, alignment.candidate), self._runs, exact, strict=True
            )
        ]
        return [own for own, _ in found], [total for _, total in found]

    def _distance(self, pair: Pair) -> Comparison | None:
        if self._shape(0, pair.baseline) != self._shape(1, pair.candidate):
            return None
        return distance(self._summary(0, pair.baseline), self._summary(1, pair.candidate))

    def _outputs(self) -> list[tuple[_Shaped, _Shaped, Comparison | None]]:
        """What the two return, side by side, exactly where it is kept in full."""
        b, c = (run.recording for run in self._runs)
        found = []
        for k, one in enumerate(b.record.outputs):
            if k >= len(self._order):
                break
            at = self._order[k]
            two = c.record.outputs[at]
            error = None
            if one.shape == two.shape:
                rows = b.summaries[len(b.record.sites) + k], c.summaries[len(c.record.sites) + at]
                error = distance(*rows)
                if error.max_abs != 0 and k in b.outputs and at in c.outputs:
                    error = compare(collect([measure(b.outputs[k], c.outputs[at])])[0])
            found.append((_Shaped(one.shape, one.dtype), _Shaped(two.shape, two.dtype), error))
        return found

    def agreement(self) -> OutputAgreement | None:
        """What becomes of the outputs, where both recordings keep all of them."""
        b, c = (run.recording for run in self._runs)
        if len(b.outputs) != len(b.record.outputs) or len(c.outputs) != len(c.record.outputs):
            return None
        kept = [(b.outputs[k], c.outputs[at]) for k, at in zip(sorted(b.outputs), self._order, strict=False)]
        alike = kept and all(one.shape == two.shape for one, two in kept)
        return agreement(*zip(*kept, strict=True)) if alike else None

    def _states(
        self, alignment: Alignment
    ) -> list[tuple[State, tuple[tuple[int, ...], tuple[int, ...]], Comparison | None]]:
        rows = []
        for run in self._runs:
            record = run.recording.record
            first = len(record.sites) + len(record.outputs)
            rows.append({each.name: (first + k, each.shape) for k, each in enumerate(record.states)})
        whole = {name: each.whole for name, each in alignment.parameters.items() if each.whole is not None}
        found = []
        for state in alignment.states(whole):
            if state.baseline in rows[0] and state.candidate in rows[1]:
                (k, one), (n, two) = rows[0][state.baseline], rows[1][state.candidate]
                summaries = self._runs[0].recording.summaries[k], self._runs[1].recording.summaries[n]
                found.append((state, (one, two), distance(*summaries) if one == two else None))
        return found


@dataclass(frozen=True)
class _Shaped:
    shape: tuple[int, ...]
    dtype: str


def distance(baseline: Summary, candidate: Summary) -> Comparison:
    """How far two tensors of one shape are apart, as far as both were read."""
    return equal(baseline) if baseline.bits == candidate.bits else compared(baseline, candidate)


def _units(graph: Graph, run: Run) -> list[float]:
    lowered = run.cell.unit_roundoff if run.cell.dtype == "tf32" else 0.0
    return [max(_unit(site.dtype), lowered if site.dtype == "float32" else 0.0) for site in graph.sites]


def _unit(name: str) -> float:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not (dtype.is_floating_point or dtype.is_complex):
        return 0.0
    return float(torch.finfo(dtype).eps / 2)


def _rounded(dtype: str) -> bool:
    return _unit(dtype) > 0
