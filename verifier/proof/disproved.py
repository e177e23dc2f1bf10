"""Pairs that were guessed from structure and that numbers disprove."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.align import Pair
from verifier.judge import differs, ends
from verifier.judge.budgets import ROUNDINGS, SINGLE_ROUNDOFF
from verifier.judge.excess import limit, within
from verifier.proof.cut_out import fewer_channels, resized
from verifier.proof.digests import digests, twins
from verifier.proof.elsewhere import alike_elsewhere
from verifier.proof.readers import readers_of
from verifier.proof.unread import heeded
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.align import Alignment
    from verifier.bench.bench import Bench
    from verifier.records import PairResult


def wrong_guesses(bench: Bench, rows: Sequence[PairResult]) -> tuple[list[Pair], list[Pair]]:
    """Pairs that were guessed wrong, and the right ones: both proved by what the tensors hold.

    A pair is in doubt if its tensors differ while all that reads them agrees; it is wrong if one of its two
    tensors turns up elsewhere in the other model, or if neither depends on the inputs. Where the models return the
    same, that is asked on other inputs as well.
    So it is if its two sites stand among operators that differ, or give another number of elements, as where channels
    are cut out that count for nothing: the models then come to one result in two ways.

    Args:
        bench: The two models and their pairs, on a few samples in float64.
        rows: What the pairs were measured to be off by there, free and forced.
    """
    doubtful = in_doubt(bench.alignment, rows)
    if not doubtful:
        return _merged(bench, rows)
    sides = [
        digests(bench, side, without_partner(bench.alignment, side) | set(sites))
        for side, sites in (
            ("baseline", [pair.baseline for pair in doubtful.values()]),
            ("candidate", [pair.candidate for pair in doubtful.values()]),
        )
    ]
    twin = twins(sides[0], sides[1])
    back = {c: b for b, c in twin.items()}
    apart = settled(rows)
    wrong = [
        pair
        for pair in doubtful.values()
        if twin.get(pair.baseline, pair.candidate) != pair.candidate
        or back.get(pair.candidate, pair.baseline) != pair.baseline
        or (apart and tables_apart(bench.alignment, pair))
    ]
    agree = not any(differs(rows[k]) for k in ends(bench.alignment, rows))
    if wrong and agree and not alike_elsewhere(bench):  # other inputs would show what these do not
        return [], []
    touched = {pair.baseline for pair in wrong}, {pair.candidate for pair in wrong}
    right = [Pair(b, c) for b, c in twin.items() if b in touched[0] or c in touched[1]]
    otherwise = [pair for pair in _otherwise(bench.alignment, doubtful, rows) if pair not in wrong]
    if otherwise and alike_elsewhere(bench):
        wrong += heeded(bench, otherwise)
    return wrong, right


def _otherwise(alignment: Alignment, doubtful: Mapping[int, Pair], rows: Sequence[PairResult]) -> list[Pair]:
    """Those of the pairs in doubt, by their rows, around which operators differ, or around one that they lead to.

    They do as well where what reads a pair differs once the candidate is given the baseline's tensor, or cannot be
    given it, as it holds another number of elements.
    """
    found = {k for k, row in enumerate(rows) if k in doubtful and _may_be_two(alignment, row, rows)}
    stay = {k for k in doubtful if fewer_channels(rows[k])} - found
    stack = [*found]
    while stack:
        here = stack.pop()
        beside = {k for k in doubtful if here in rows[k].above or k in rows[here].above} - found - stay
        found |= beside
        stack.extend(beside)
    return [doubtful[k] for k in sorted(found)]


def _may_be_two(alignment: Alignment, row: PairResult, rows: Sequence[PairResult]) -> bool:
    if row.apart or row.rewired or _needed(row, rows):
        return True
    # One place with fewer channels and something else done there is looked at as a pair.
    return resized(alignment, row, rows) or (row.candidate_op is not None and not fewer_channels(row))


def _needed(pair: PairResult, rows: Sequence[PairResult]) -> bool:
    """Whether something agrees only as long as the candidate keeps its own tensor at a pair that it reads."""
    return any(
        row.intrinsic is not None and not within(row.intrinsic, limit(row, intrinsic=True))
        for row in rows
        if pair.index in row.above and not differs(row)
    )


def settled(rows: Sequence[PairResult]) -> bool:
    """Whether all that counts as equal is so beyond float32: where noise allows anything, nothing is settled."""
    return all(
        row.total is None or row.total.nrmse <= _SETTLED or math.isnan(row.total.nrmse)
        for row in rows
        if row.status is not Status.UNMATCHED and not differs(row)
    )


_SETTLED = 1e-6


def folded(alignment: Alignment, rows: Sequence[PairResult]) -> tuple[list[Pair], list[Pair]]:
    """Pairs that may hold what one model folds into weights, and the other does not, and others in their place.

    Their tensors differ, and all that reads them is such a pair or agrees but for the rounding of weights. What is
    folded in stands alone behind one of the two, and gives what the other does; then a fault may read it.
    """
    found: dict[int, Pair] = {}
    readers = _readers(rows)
    for row in reversed(rows):
        below = readers.get(row.index, [])
        if row.kind != "site" or row.status is Status.UNMATCHED or not below:
            continue
        if row.total is None or row.total.within(
            ROUNDINGS * SINGLE_ROUNDOFF
        ):  # a norm that does nothing has an eps
            continue
        b = alignment.baseline.by_name[row.baseline or ""].index
        pair = Pair(b, alignment.partner[b])
        alike = all(each.index in found or (differs(each) and _nearly(each)) for each in below)
        if alike or (_nearly(row) and _behind(alignment, pair)):
            found[row.index] = pair
    return list(found.values()), [right for pair in found.values() for right in _behind(alignment, pair)]


def _behind(alignment: Alignment, pair: Pair) -> list[Pair]:
    """The pair with what alone reads one of its sites, in its place: with weights, of its shape, without partner."""
    wholes = []
    for side, graph, partners in (
        (0, alignment.baseline, alignment.partner),
        (1, alignment.candidate, alignment.partner_back),
    ):
        readers = graph.consumers[pair[side]]
        reader = graph.sites[readers[0]] if len(readers) == 1 else None
        alone = reader is not None and reader.index not in partners and bool(reader.tensors)
        if alone and reader is not None and reader.shape == graph.sites[pair[side]].shape:
            wholes.append(Pair(readers[0], pair.candidate) if side == 0 else Pair(pair.baseline, readers[0]))
    return wholes if len(wholes) == 1 else []


def _readers(rows: Sequence[PairResult]) -> dict[int, list[PairResult]]:
    """The rows right below each, by its index."""
    found: dict[int, list[PairResult]] = {}
    for row in rows:
        for above in row.above:
            found.setdefault(above, []).append(row)
    return found


def _apart(row: PairResult) -> bool:
    return row.total is not None and row.total.nrmse > _APART


def _nearly(row: PairResult) -> bool:
    return row.total is not None and row.total.within(_NEAR)


def _merged(bench: Bench, rows: Sequence[PairResult]) -> tuple[list[Pair], list[Pair]]:
    """Pairs of an operator with one of several branches that the other model has merged into it, and the right ones.

    Its weight is like that of the branch, and its tensor is that of their sum, but for the rounding of the weights.
    """
    found = []
    readers = _readers(rows)
    for row in rows:
        below = [each for each in readers.get(row.index, []) if each.total is not None]
        if (
            row.kind != "site"
            or row.total is None
            or row.baseline is None
            or row.candidate is None
            or not below
        ):
            continue
        if _apart(row) and all(map(_nearly, below)):
            sites = (
                bench.alignment.baseline.by_name[row.baseline],
                bench.alignment.candidate.by_name[row.candidate],
            )
            found.append(Pair(sites[0].index, sites[1].index))
    if not found:
        return [], []
    roles = "baseline", "candidate"
    open_sites = [without_partner(bench.alignment, role) for role in roles]
    sides = [
        digests(bench, role, open_sites[k] | {pair[k] for pair in found}) for k, role in enumerate(roles)
    ]
    twin = twins(sides[0], sides[1], _NEAR)
    right = [
        Pair(b, c)
        for b, c in twin.items()
        if (b in open_sites[0] and any(c == pair.candidate for pair in found))
        or (c in open_sites[1] and any(b == pair.baseline for pair in found))
    ]
    wrong = [pair for pair in found if any(pair[k] == each[k] for each in right for k in (0, 1))]
    return wrong, right


_APART = 1e-3  # relative error of two tensors that are not one
_NEAR = 1e-5  # and of two that are, but for rounded weights and what a network makes of that


def tables_apart(alignment: Alignment, pair: Pair) -> bool:
    """Whether neither site depends on the inputs, and one does not only lay out the other's numbers otherwise."""
    b, c = alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate]
    if alignment.baseline.reads_inputs[b.index] or alignment.candidate.reads_inputs[c.index]:
        return False
    return b.shape == c.shape or math.prod(b.shape) != math.prod(c.shape)


def in_doubt(alignment: Alignment, rows: Sequence[PairResult]) -> dict[int, Pair]:
    """The pairs whose tensors differ while all that reads them agrees, or is in doubt itself, by their rows."""
    readers = readers_of(rows)
    doubtful: dict[int, Pair] = {}
    for row in reversed(rows):
        if row.status is Status.UNMATCHED or row.kind != "site" or not differs(row):
            continue
        below = readers.get(row.index, [])
        left = [state for reader in below for state in readers.get(reader.index, []) if state.kind == "state"]
        if not below or any(differs(each) and each.index not in doubtful for each in (*below, *left)):
            continue
        b = alignment.baseline.by_name[row.baseline or ""]
        c = alignment.candidate.by_name[row.candidate or ""]
        doubtful[row.index] = Pair(b.index, c.index)
    return doubtful


def without_partner(alignment: Alignment, side: str) -> set[int]:
    """Comparable sites of one model that have no partner."""
    return {each.site for each in alignment.unmatched if each.side == side}
