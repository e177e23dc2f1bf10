"""Pairs that were guessed from structure and that a recording disproves.

A pair is in doubt if its tensors differ while all that reads them agrees, and if it stands among operators that
differ. It was guessed wrong if what is recorded of its baseline's tensor turns up elsewhere in the candidate, if the
candidate's tensor is what is recorded elsewhere, or if neither depends on the inputs. Of tensors that never met,
sketches must agree with the whole of their interval. No other inputs can be tried, as they are with a live baseline:
where the two programs are built alike a pair is kept.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from verifier.align import Pair
from verifier.graph.tensors import dense
from verifier.judge import differs
from verifier.proof.disproved import in_doubt, settled, tables_apart, without_partner
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from verifier.align import Alignment
    from verifier.bench.bench import Bench
    from verifier.certificates.summary import Summary
    from verifier.records import Comparison, PairResult

# Relative error (NRMSE) of tensors that operators which cancel may leave; beyond it they are not the same.
_EQUAL = 1e-11
_CLOSE = 1e-9  # sums of squares of tensors that are the same agree far better


def disproved(
    bench: Bench,
    alignment: Alignment,
    rows: Sequence[PairResult],
    known: Mapping[int, Summary],
    distance: Callable[[int, Tensor], Comparison | None],
) -> tuple[list[Pair], dict[Pair, Comparison]]:
    """Pairs to take back, and those to put in their place with how far apart their tensors are.

    Only where pairs are in doubt the candidate runs once more.

    Args:
        bench: The candidate on both sides, on a few samples in float64.
        alignment: The pairs.
        rows: What was measured at them.
        known: What is recorded of the baseline's sites, by site.
        distance: How far a tensor is from what is recorded of a site; None where the shapes differ.
    """
    pairs = list(_doubted(alignment, rows).values())
    if not pairs:
        return [], {}
    sites = {pair.candidate for pair in pairs} | without_partner(alignment, "candidate")
    places = {pair.baseline for pair in pairs} | without_partner(alignment, "baseline")
    found = _found(bench, sites, {b: known[b] for b in sorted(places) if b in known}, distance)
    own = set(pairs)
    elsewhere = [pair for pair in found if pair not in own]
    turned_up = {pair.baseline for pair in elsewhere}, {pair.candidate for pair in elsewhere}
    apart = settled(rows)
    wrong = [
        pair
        for pair in pairs
        if pair.baseline in turned_up[0]
        or pair.candidate in turned_up[1]
        or (apart and tables_apart(alignment, pair))
    ]
    lost = {pair.baseline for pair in wrong}, {pair.candidate for pair in wrong}
    fits = Counter(pair.baseline for pair in found), Counter(pair.candidate for pair in found)
    kept = own.difference(wrong)
    taken = {pair.baseline for pair in kept}, {pair.candidate for pair in kept}
    right = {
        pair: found[pair]
        for pair in elsewhere
        if (pair.baseline in lost[0] or pair.candidate in lost[1])
        and pair.baseline not in taken[0]
        and pair.candidate not in taken[1]
        and fits[0][pair.baseline] == fits[1][pair.candidate] == 1
    }
    return wrong, right


def only_doubted(alignment: Alignment, rows: Sequence[PairResult]) -> bool:
    """Whether nothing differs but pairs in doubt."""
    doubted = _doubted(alignment, rows)
    return all(
        k in doubted for k, row in enumerate(rows) if row.status is not Status.UNMATCHED and differs(row)
    )


def _doubted(alignment: Alignment, rows: Sequence[PairResult]) -> dict[int, Pair]:
    """The pairs in doubt that stand among operators that differ, by their rows."""
    return {k: pair for k, pair in in_doubt(alignment, rows).items() if _otherwise(k, rows)}


def _otherwise(number: int, rows: Sequence[PairResult]) -> bool:
    """Whether operators around a row, or around what reads it, are others."""
    near = [rows[number], *(row for row in rows if number in row.above)]
    return any(row.apart or row.rewired or row.candidate_op is not None for row in near)


def _found(
    bench: Bench,
    sites: set[int],
    known: Mapping[int, Summary],
    distance: Callable[[int, Tensor], Comparison | None],
) -> dict[Pair, Comparison]:
    """Which of the recorded tensors some of the candidate's are, each beside each."""
    found: dict[Pair, Comparison] = {}
    lane = bench.lane("candidate", stops=sites)
    try:
        while (site := lane.advance()) is not None:
            if lane.tensor is None:
                continue
            tensor = dense(lane.tensor)
            squares = None if tensor.is_complex() else float(tensor.double().square().sum())
            for b, summary in known.items():
                if squares is not None and not math.isclose(squares, summary.moments.squares, rel_tol=_CLOSE):
                    continue
                error = distance(b, tensor) if _tells(summary) else None
                if error is not None and _same(error):
                    found[Pair(b, site)] = error
    finally:
        lane.close()
    return found


def _tells(summary: Summary) -> bool:
    """Whether a tensor is no constant, which tells nothing."""
    return summary.moments.low < summary.moments.high


def _same(error: Comparison) -> bool:
    """Whether two tensors are one but for rounding, with the whole of the interval."""
    if error.max_abs == 0:
        return True
    most = error.nrmse if error.interval is None else error.interval.nrmse[1]
    return not error.nonfinite_mismatched and most <= _EQUAL
