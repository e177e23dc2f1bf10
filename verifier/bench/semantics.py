"""Is it the same program? Float64 on the CPU, free and forced side by side."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace as replace_struct

from verifier.bench.bare_calls import called_again
from verifier.bench.judging import (
    Assessed,
    diagnosed,
    exhibited,
    judged_by,
    or_infinite,
    result_of,
    slower,
)
from verifier.bench.measuring import measure
from verifier.bench.oracle import stand
from verifier.bench.rounded import LARGEST, folds, only_rounded, with_unrounded
from verifier.bench.subject import SIDES
from verifier.cells import ORACLE
from verifier.diagnose import Tried, unreached, with_unreached
from verifier.environment import tf32
from verifier.errors import CannotRunError, GraphDepartureError
from verifier.graph.reductions import reduction
from verifier.judge import differs, ends, judge_rows, semantics_budget
from verifier.judge.budgets import narrowed_budget
from verifier.judge.excess import limit
from verifier.proof.cut_out import cut_out
from verifier.proof.disproved import folded, wrong_guesses
from verifier.proof.elsewhere import agree_on, alike_elsewhere, inputs_within
from verifier.proof.excited import SAME, excited
from verifier.proof.folded import with_norms_paired
from verifier.proof.misplaced import misplaced
from verifier.proof.unread import unread
from verifier.records import UNEXPLAINED, Excited, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from verifier.align import Alignment
    from verifier.bench.bare_calls import Calls
    from verifier.bench.batched import Measured
    from verifier.bench.bench import Bench
    from verifier.bench.oracle import Standing
    from verifier.bench.protocol import Protocol
    from verifier.bench.subject import Subject
    from verifier.cells import Cell
    from verifier.graph import Graph
    from verifier.inputs import Inputs
    from verifier.judge import Judged, Policy
    from verifier.records import Budget

WRONG_GUESS = "paired by its place at first, but what its tensor holds disproved that"
_REPAIRS = 6  # other pairs that are tried in one such round
_GUESSES = 3  # rounds of taking back pairs; one is enough unless a wrong pair hid another


@dataclass(frozen=True)
class Semantics:
    """What float64 says of two models.

    Attributes:
        subject: The two, without the pairs that numbers have disproved.
        assessed: The result of the cell.
        standings: Where both stand to the oracle in the cell that was probed, if it could run.
        tried: What sites that are written otherwise and give the same numbers gave alone, by row.
    """

    subject: Subject
    assessed: Assessed
    standings: Mapping[Cell, Standing] = field(default_factory=dict)
    tried: Mapping[int, Tried] = field(default_factory=dict)


@dataclass(frozen=True)
class _Look:
    """One look at both models in float64."""

    judged: Judged
    measured: Measured
    calls: Calls | None
    standings: Mapping[Cell, Standing]


def semantics(
    bench: Bench,
    inputs: Sequence[Inputs],
    probe: Cell,
    protocol: Protocol,
    *,
    alone: bool = False,
    anew: bool = False,
) -> Semantics:
    """Is it the same program?

    Args:
        bench: The two models on a few samples, in float64.
        inputs: What they are compared on.
        probe: The numerics cell whose rounding noise tells how much the network amplifies rounding.
        protocol: How they are compared and judged.
        alone: Whether no numerics cell will follow; the models are then called bare here, as they are where the probe
            cannot run.
        anew: Whether the probe is left out where a model takes another way in it than in float64.
    """
    started = time.perf_counter()
    alignment = with_norms_paired(bench.alignment, bench.subject.masters, WRONG_GUESS)
    if alignment is not bench.alignment:
        bench = bench.at(subject=replace(bench.subject, alignment=alignment))
    again = partial(_look, inputs=inputs, probe=probe, protocol=protocol, alone=alone, anew=anew)
    look = again(bench)
    words = list(look.measured.words)
    for _ in range(_GUESSES):
        wrong, right = wrong_guesses(bench, look.judged.rows)
        other = None if wrong or not _ends_agree(bench, look.judged) else excited(bench)
        if other is not None:  # weights of 0 hide what reads a pair
            there = again(other.bench)
            wrong, right = wrong_guesses(other.bench, there.judged.rows)
        if not wrong:
            break
        alignment = bench.alignment.repaired(wrong, right, WRONG_GUESS)
        bench = bench.at(subject=replace(bench.subject, alignment=alignment))
        look = again(bench)
        words += look.measured.words
    bench, look = _with_exact(bench, look, again)
    bench, look = _without_folded(bench, look, again)
    bench, look = _without_cut(bench, look, again)
    words += look.measured.words
    apart = unread(bench, look.judged) if look.judged.verdict is Verdict.DIVERGED else frozenset()
    if apart and alike_elsewhere(bench, apart):
        alignment = replace(bench.alignment, unread=apart)
        bench = bench.at(subject=replace(bench.subject, alignment=alignment))
        look = again(bench)
    judged = diagnosed(bench, look.judged, protocol)
    # One change that was confirmed at each of two sites was made twice; but what is missing at one of them may be
    # seen as something else at the other.
    codes = {
        each.cause.code if each.cause and each.cause.confirmed else UNEXPLAINED for each in judged.culprits
    }
    unsure = UNEXPLAINED in codes or (
        len(codes) > 1 and any(code.endswith(("-missing", "-extra")) for code in codes)
    )
    if len(judged.culprits) > 1 and unsure and protocol.localise != "never":
        repaired, seen = _fewer_culprits(bench, look, again)
        found = judged if seen is look else diagnosed(repaired, seen.judged, protocol)
        if 0 < len(found.culprits) < len(judged.culprits):
            bench, look, judged = repaired, seen, found
    # Sites whose difference, as written, the given inputs do not reach.
    tried = unreached(
        bench.alignment,
        judged.rows,
        bench.caster.state(bench.subject.masters.baseline, ORACLE),
        bench.lanes,
        folds(bench, judged.rows),
    )
    tried = {k: each for k, each in tried.items() if not only_rounded(bench, judged.rows[k], each)}
    if judged.verdict is Verdict.MATCH and protocol.localise != "never":
        tried |= _by_wiring(bench, judged, again, protocol)
    rows = with_unreached(judged.rows, tried)
    judged = judged if rows == judged.rows else judge_rows(rows)
    shown = exhibited(bench, judged, protocol)
    seconds = time.perf_counter() - started
    result = result_of(bench, "semantics", judged, look.measured, shown, seconds)
    notes = (
        *slower(ORACLE),
        *_unread_notes(judged),
        *look.measured.notes,
        *_not_in_double(bench.alignment, look.measured),
    )
    result = replace_struct(result, notes=notes)
    return Semantics(
        bench.subject, Assessed(result, look.calls, tuple(dict.fromkeys(words))), look.standings, tried
    )


def _with_exact(bench: Bench, look: _Look, again: Callable[..., _Look]) -> tuple[Bench, _Look]:
    """The models with what stored tensors are the roundings of, where that makes rows agree."""
    subject = with_unrounded(bench, look.judged.rows)
    if subject is bench.subject:
        return bench, look
    # Where they stand in the probe hangs on float64's baseline, and on nothing else that changes here.
    same = subject.exact[SIDES[0]].keys() == bench.subject.exact.get(SIDES[0], {}).keys()
    bench = bench.at(subject=subject)
    return bench, again(bench, known=look if same else None)


def _without_cut(bench: Bench, look: _Look, again: Callable[[Bench], _Look]) -> tuple[Bench, _Look]:
    """Without pairs of channels that are cut out and count for nothing, beside a fault that the outputs show."""
    pairs = [] if _ends_agree(bench, look.judged) else cut_out(bench, look.judged.rows)
    if not pairs:
        return bench, look
    alignment = replace(bench.alignment.repaired(pairs, (), WRONG_GUESS), rebuilt=True)
    bench = bench.at(subject=replace(bench.subject, alignment=alignment))
    return bench, again(bench)


def _without_folded(bench: Bench, look: _Look, again: Callable[[Bench], _Look]) -> tuple[Bench, _Look]:
    """The models without pairs that hold what one of them folds into weights, if fewer sites differ without them."""
    pairs, behind = folded(bench.alignment, look.judged.rows)
    if not pairs:
        return bench, look
    for instead in (behind, []) if behind else ([],):
        alignment = bench.alignment.repaired(pairs, instead, WRONG_GUESS)
        other = bench.at(subject=replace(bench.subject, alignment=alignment))
        other, found = _with_exact(other, again(other), again)
        left, before = len(found.judged.culprits), len(look.judged.culprits)
        alike = found.judged.verdict is Verdict.MATCH and alike_elsewhere(other, same=_same(other))
        if alike or (instead and 0 < left <= before - len(instead)):
            return other, found
    return bench, look


def _same(bench: Bench) -> float:
    """What is no difference on other inputs: what weights are the rounding of may be known on the given ones only."""
    return LARGEST if any(bench.subject.exact.values()) else SAME


def _ends_agree(bench: Bench, judged: Judged) -> bool:
    """Whether models that differ somewhere return the same."""
    ends_at = ends(bench.alignment, judged.rows)
    return judged.verdict is Verdict.DIVERGED and not any(differs(judged.rows[k]) for k in ends_at)


def _fewer_culprits(bench: Bench, look: _Look, again: Callable[[Bench], _Look]) -> tuple[Bench, _Look]:
    """The models with other pairs where one fault was seen at several sites, and with these at fewer."""
    for _ in range(_GUESSES):
        for repair in itertools.islice(misplaced(bench, look.judged), _REPAIRS):
            alignment = repair.of(bench.alignment, WRONG_GUESS)
            trial = bench.at(subject=replace(bench.subject, alignment=alignment))
            seen = again(trial)
            left = len(seen.judged.culprits)
            if (
                seen.judged.verdict is Verdict.DIVERGED
                and 0 < left <= len(look.judged.culprits) - repair.saves
            ):
                bench, look = trial, seen
                break
        else:
            break
    return bench, look


def _by_wiring(
    bench: Bench, judged: Judged, again: Callable[..., _Look], protocol: Protocol
) -> dict[int, Tried]:
    """Sites that read from elsewhere and give the same on the given inputs, but not on others that both take."""
    wired = [row.index for row in judged.rows if row.rewired and row.kind == "site" and not differs(row)]
    for way in inputs_within(bench) if wired else ():
        if agree_on(bench, way) is not False:
            continue
        there = bench.at(inputs=way.inputs)
        try:
            rows = diagnosed(there, again(there, inputs=[way.inputs]).judged, protocol).rows
        except CannotRunError:
            continue
        found = {
            row.index: Tried(
                excited=Excited(
                    inputs=f"from {way.words}",
                    error=row.intrinsic,
                    allowed=limit(row, intrinsic=True) / row.intrinsic.nrmse * row.intrinsic.max_abs,
                ),
                cause=row.cause,
            )
            for row in map(rows.__getitem__, wired)
            if row.status is Status.CULPRIT and row.intrinsic is not None and row.intrinsic.nrmse
        }
        if found:
            return found
    return {}


def _unread_notes(judged: Judged) -> tuple[str, ...]:
    """What is to be said of pairs that differ where nothing reads it."""
    names = [row.baseline for row in judged.rows if row.unread]
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (f"{names[0]}{more}: the two differ only in elements that nothing behind them reads",)


def _look(
    bench: Bench,
    inputs: Sequence[Inputs],
    probe: Cell,
    protocol: Protocol,
    *,
    alone: bool,
    anew: bool,
    known: _Look | None = None,
) -> _Look:
    few = len(inputs) == 1 and inputs[0] is bench.inputs
    standing, departed = None if known is None else known.standings.get(probe), None
    if standing is None:
        standing, departed = _probed(bench, probe, protocol, exactly=few)
    else:
        standing = replace(standing, exactly=None)
    if departed is not None and not anew:
        raise departed
    measured = standing.exactly if standing else None
    if measured is None:
        steps = bench.at(progress=protocol.steps("semantics", bench.alignment, len(inputs)))
        try:
            measured = measure(steps, inputs, forced=protocol.localise != "never")
        except GraphDepartureError as error:
            raise departed or error from None  # in the probe the conditions are those of the recording
    if standing is None:
        places = len(bench.alignment.pairs) + len(bench.alignment.same_outputs) + len(bench.subject.states)
        noise = [0.0] * places
    else:
        noise = [or_infinite(each.baseline_total) for each in standing.accuracies]
    budgets = [semantics_budget(protocol.policy, value / probe.unit_roundoff) for value in noise]
    if any(measured.narrowed):
        budgets = _narrowed(bench, measured, budgets, noise, protocol.policy)
    calls = called_again(bench, by_order=protocol.by_order) if alone or standing is None else None
    return _Look(
        judged_by(bench, measured, budgets, calls),
        measured,
        calls,
        {} if standing is None else {probe: standing},
    )


def _narrowed(
    bench: Bench, measured: Measured, budgets: Sequence[Budget], noise: Sequence[float], policy: Policy
) -> list[Budget]:
    """The budgets, with room for float32's rounding where a step had to run in it, and behind that."""
    alignment = bench.alignment
    ways = [
        _ways(graph, {pair[k] for pair in alignment.pairs}, measured.narrowed[k])
        for k, graph in enumerate((alignment.baseline, alignment.candidate))
    ]
    found = list(budgets)
    behind = any(measured.narrowed)
    for k, budget in enumerate(budgets):
        if k < len(alignment.pairs):
            b, c = alignment.pairs[k]
            here, behind = b in ways[0][0] or c in ways[1][0], b in ways[0][1] or c in ways[1][1]
            length = max(reduction(alignment.baseline, b), reduction(alignment.candidate, c))
        else:  # an output or a state, which may come from anywhere
            here, behind, length = True, True, 1
        if behind:
            found[k] = narrowed_budget(policy, noise[k], max(length, budget.reduction), here=here)
    return found


def _not_in_double(alignment: Alignment, measured: Measured) -> Iterator[str]:
    """Which steps ran in float32, since they have no float64 kernel."""
    for role, graph, calls in zip(
        SIDES, (alignment.baseline, alignment.candidate), measured.narrowed, strict=True
    ):
        names = [graph.sites[graph.calls[call].first].name for call in sorted(calls)]
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield (
                f"no float64 kernel in the {role} for {', '.join(names[:3])}{more}: they ran in float32, and they "
                "and what lies behind were judged by its rounding"
            )


def _ways(graph: Graph, paired: Collection[int], calls: Collection[int]) -> tuple[set[int], set[int]]:
    """Sites that a narrowed call makes or reaches without meeting a pair, and all that depend on one."""
    here: set[int] = set()
    behind: set[int] = set()
    for site in graph.sites:
        own = graph.call_of[site.index] in calls
        if own or any(source in behind for source in site.inputs):
            behind.add(site.index)
        if own or any(source in here and source not in paired for source in site.inputs):
            here.add(site.index)
    return here, behind


def _probed(
    bench: Bench, probe: Cell, protocol: Protocol, *, exactly: bool
) -> tuple[Standing | None, GraphDepartureError | None]:
    """Where both models stand to the oracle in the probe, for the rounding noise; None if it cannot run there.

    With it comes how a model departed there from what it did when it was recorded.
    """
    try:
        with tf32(allowed=probe.dtype == "tf32"):
            return stand(bench.at(cell=probe), protocol, exactly=exactly), None
    except GraphDepartureError as error:
        return None, error
    except CannotRunError:
        return None, None
