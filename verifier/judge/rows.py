"""The rows of a cell before anything is judged: what was paired with what, and what was measured there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from verifier.graph.operators import IRRELEVANT, canonical
from verifier.graph.sites import UNTRACED
from verifier.records import (
    Accuracy,
    Budget,
    Cause,
    Comparison,
    PairResult,
    Precision,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from verifier.align import Alignment, State
    from verifier.graph import Graph, Site


@dataclass(frozen=True, slots=True)
class PairErrors:
    """How far apart the two are at one pair or output: shapes on both sides, errors where the shapes agree."""

    shape: tuple[int, ...]
    candidate_shape: tuple[int, ...]
    total: Comparison | None
    intrinsic: Comparison | None
    budget: Budget
    accuracy: Accuracy | None = None
    precision: Precision | None = None


def bare_rows(
    alignment: Alignment,
    pairs: Sequence[PairErrors],
    outputs: Sequence[PairErrors],
    states: Sequence[tuple[State, PairErrors]] = (),
    inputs: Sequence[PairErrors] = (),
    calls: Sequence[Sequence[PairErrors]] = ((), (), ()),
) -> tuple[PairResult, ...]:
    """One row an input (where the candidate has its own), pair, unmatched site, written state and output.

    An output that a pair produces needs none, unless it was changed since, where no site could show it; all are in
    order of execution.

    Args:
        alignment: The pairs.
        pairs: What was measured at each of them, in their order.
        outputs: What was measured at each output the two models share by position.
        states: What the models wrote into their parameters and buffers, which follow the pair that uses them.
        inputs: What was measured at the inputs, where the candidate was given its own; they come first.
        calls: What was measured at each output of bare first calls and of second calls, as far as they gave other
            numbers than the run that was watched, and of calls on samples in another order; they come last, of the
            third kind those that differ where nothing did before.
    """
    order = [("input", k) for k in range(len(inputs))]
    shown = [k for k, found in enumerate(outputs) if not _seen_before(alignment, k, found, pairs)]
    order += _order(alignment, shown, [state.pair for state, _ in states])
    index_of_pair = {number: index for index, (kind, number) in enumerate(order) if kind == "pair"}
    sources = _Sources(alignment, index_of_pair, len(inputs))
    rows: list[PairResult] = []
    for index, (kind, number) in enumerate(order):
        if kind == "pair":
            pair = alignment.pairs[number]
            b, c = alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate]
            row = _row(index, b.name, c.name, b.op, pairs[number])
            layout = alignment.layouts.get(pair)
            row = msgspec.structs.replace(
                row,
                differences=_differences(b, c),
                candidate_op=None if b.op == c.op else c.op,
                unread=pair in alignment.unread,
                layout="" if layout is None else f"{layout.text} gives {c.shape}",
                **sources.of(b.inputs, c.inputs),
            )
        elif kind == "output":
            name = _output_name(number, len(outputs))
            row = _row(index, name, name, "output", outputs[number])
            ends = alignment.baseline.outputs[number], alignment.candidate.outputs[number]
            row = msgspec.structs.replace(row, position=number, **sources.of((ends[0],), (ends[1],)))
        elif kind == "input":
            name = "input" if len(inputs) == 1 else f"input{number}"
            row = msgspec.structs.replace(_row(index, name, name, "input", inputs[number]), position=number)
        elif kind == "state":
            state, found = states[number]
            row = _row(index, state.baseline, state.candidate, "state", found)
            above = () if state.pair is None else (index_of_pair[state.pair],)
            row = msgspec.structs.replace(row, above=above)
        else:
            row = _lonely(
                index, kind, (alignment.baseline if kind == "baseline" else alignment.candidate), number
            )
        rows.append(row)
    rows += _call_rows(alignment, rows, index_of_pair, calls)
    return tuple(rows)


BARE = "run bare"
SECOND = "second call"
OTHERS = "call on reversed samples"

_CAUSES = {
    BARE: Cause(
        code="differs-unwatched",
        summary="other numbers when nothing watches the model",
        confirmed=True,
        evidence=("while they were watched, both gave the same",),
        remedy="look for what depends on hooks, on modes of torch, on threads or on time",
    ),
    SECOND: Cause(
        code="state-across-calls",
        summary="a second call on the same inputs gives other numbers than the baseline's second call",
        confirmed=True,
        evidence=("at the first call both gave the same",),
        remedy="look for counters, caches and tensors that a call leaves changed",
    ),
    OTHERS: Cause(
        code="later-call-different",
        summary="a later call, on the same samples in another order, gives other numbers than the baseline's",
        confirmed=True,
        evidence=("at the first call, in the given order, both gave the same",),
        remedy="look for what is kept from the first call, and for what depends on a sample's place in the batch",
    ),
}


def _call_rows(
    alignment: Alignment,
    rows: Sequence[PairResult],
    index_of_pair: Mapping[int, int],
    calls: Sequence[Sequence[PairErrors]],
) -> Iterator[PairResult]:
    """A row for each output of each further call, behind the row that the output itself has."""
    index, told = len(rows), False
    for call, found in zip((BARE, SECOND, OTHERS), calls, strict=True):
        for number, compared in enumerate(found):
            name = _output_name(number, len(found))
            above = [other.index for other in rows if other.kind == "output" and other.baseline == name] or [
                index_of_pair[pair] for pair in _pairs_at(alignment, alignment.baseline.outputs[number])
            ]
            alike = within_budget(compared.total, compared.budget)
            # What differs at the first call differs at every other; only what does not can be news.
            news = not (alike or told) and all(
                within_budget(rows[k].total, rows[k].budget) and rows[k].candidate_shape is None
                for k in above
            )
            if call == OTHERS and not news:
                continue
            told |= not alike
            row = _row(index, f"{name}, {call}", f"{name}, {call}", "call", compared)
            cause = None if alike else _CAUSES[call]
            yield msgspec.structs.replace(row, above=tuple(above), cause=cause, position=number)
            index += 1


def within_budget(error: Comparison | None, budget: Budget | None) -> bool:
    """Whether an error was measured and is inside what a free pass may show."""
    return error is not None and error.within(0.0 if budget is None else budget.total)


def ends(alignment: Alignment, rows: Sequence[PairResult]) -> tuple[int, ...]:
    """For each output the two models share, the row it is judged at: its own, or that of the pair that makes it."""
    count = len(alignment.same_outputs)
    shown = {row.baseline: row.index for row in rows if row.kind == "output"}
    at_site = {row.baseline: row.index for row in rows if row.candidate is not None}
    found = []
    for number, site in enumerate(alignment.baseline.outputs[:count]):
        index = shown.get(_output_name(number, count))
        if index is None and site >= 0:
            index = at_site.get(alignment.baseline.sites[site].name)
        if index is not None:  # else it was handed through as it is
            found.append(index)
    return tuple(found)


def _output_name(number: int, count: int) -> str:
    return "output" if count == 1 else f"output{number}"


def _pairs_at(alignment: Alignment, site: int) -> list[int]:
    """The pair that makes a baseline's site, by position, if there is one."""
    return [k for k, pair in enumerate(alignment.pairs) if pair.baseline == site]


def _seen_before(alignment: Alignment, output: int, found: PairErrors, pairs: Sequence[PairErrors]) -> bool:
    """Whether what the two models return was compared at a pair, and is still what it was there."""
    if not alignment.same_outputs[output]:
        return False
    site = alignment.baseline.outputs[output]
    if site < 0:  # handed through, or computed where it cannot be followed
        return site != UNTRACED and found.total is not None and found.total.within(0.0)
    (at_pair,) = _pairs_at(alignment, site)
    # As text, in which NaN is like NaN: what is equal to the last digit is the same tensor.
    return repr(found.total) == repr(pairs[at_pair].total)


def _order(
    alignment: Alignment, outputs: Sequence[int], states: Sequence[int | None]
) -> list[tuple[str, int]]:
    """Rows in the baseline's order of execution; sites of the candidate alone come before what they lead to."""
    waiting = {
        side: sorted((u.site for u in alignment.unmatched if u.side == side), reverse=True)
        for side in ("baseline", "candidate")
    }
    order: list[tuple[str, int]] = []
    for number, pair in enumerate(alignment.pairs):
        for side, here in (("baseline", pair.baseline), ("candidate", pair.candidate)):
            while waiting[side] and waiting[side][-1] < here:
                order.append((side, waiting[side].pop()))
        order.append(("pair", number))
        order.extend(("state", k) for k, user in enumerate(states) if user == number)
    order.extend(("state", k) for k, user in enumerate(states) if user is None)
    for side, sites in waiting.items():
        order.extend((side, site) for site in reversed(sites))
    order.extend(("output", k) for k in outputs)
    return order


def _row(index: int, baseline: str, candidate: str, op: str, found: PairErrors) -> PairResult:
    return PairResult(
        index=index,
        baseline=baseline,
        candidate=candidate,
        op=op,
        shape=found.shape,
        candidate_shape=None if found.shape == found.candidate_shape else found.candidate_shape,
        total=found.total,
        intrinsic=found.intrinsic,
        budget=found.budget,
        accuracy=found.accuracy,
        precision=found.precision,
    )


def _lonely(index: int, side: str, graph: Graph, site: int) -> PairResult:
    found = graph.sites[site]
    other = "candidate" if side == "baseline" else "baseline"
    return PairResult(
        index=index,
        baseline=found.name if side == "baseline" else None,
        candidate=found.name if side == "candidate" else None,
        op=found.op,
        shape=found.shape,
        status=Status.UNMATCHED,
        reason=f"the {other} has no {found.op} here",
    )


def _differences(b: Site, c: Site) -> tuple[str, ...]:
    found = [] if b.op == c.op else [f"operator {c.op}, baseline {b.op}"]
    found.extend(
        f"{name} {canonical(c.attributes[name])}, baseline {canonical(value)}"
        for name, value in b.attributes.items()
        if b.op == c.op
        and name in c.attributes
        and name not in IRRELEVANT
        and canonical(c.attributes[name]) != canonical(value)
    )
    return tuple(found)


class _Sources:
    """What the two sides of a pair read."""

    def __init__(self, alignment: Alignment, row_of_pair: Mapping[int, int], inputs: int) -> None:
        self._inputs = inputs
        self._alignment = alignment
        self._b = {pair.baseline: row_of_pair[k] for k, pair in enumerate(alignment.pairs)}
        self._c = {pair.candidate: row_of_pair[k] for k, pair in enumerate(alignment.pairs)}

    def of(self, inputs_b: Iterable[int], inputs_c: Iterable[int]) -> dict[str, object]:
        """The fields of a row that say where its two sides come from."""
        above_b, between_b = _upstream(self._alignment.baseline, inputs_b, self._b)
        above_c, between_c = _upstream(self._alignment.candidate, inputs_c, self._c)
        return {
            "above": tuple(
                sorted(
                    row if row >= 0 else -1 - row for row in above_b if row >= 0 or -1 - row < self._inputs
                )
            ),
            "between_baseline": between_b,
            "between_candidate": between_c,
            "rewired": above_b != above_c,
        }


def _upstream(
    graph: Graph, inputs: Iterable[int], row_of: Mapping[int, int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Rows of the nearest pairs above (model inputs as -1 - k), and the unmatched sites passed on the way."""
    above: set[int] = set()
    between: set[int] = set()
    stack = list(inputs)
    while stack:
        index = stack.pop()
        if index < 0:
            above.add(index)
        elif index in row_of:
            above.add(row_of[index])
        elif index not in between:
            between.add(index)
            stack.extend(graph.sites[index].inputs)
    names = tuple(graph.sites[index].name for index in sorted(between) if graph.sites[index].comparable)
    return tuple(sorted(above)), names
