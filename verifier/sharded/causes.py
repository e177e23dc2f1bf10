"""Why a site is not what the pieces of all processes should make up: one reason that its numbers bear out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from verifier.graph.operators import DROPOUTS
from verifier.lockstep import meet
from verifier.records import UNEXPLAINED, Cause
from verifier.sharded.aligning import wide
from verifier.sharded.parameters import cut_wrongly
from verifier.sharded.placing import Placement, by_shape, close, cut, join, place, sum_of, tolerance
from verifier.sharded.watching import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.records import Comparison
    from verifier.sharded.comparing import Bench, Found
    from verifier.sharded.parameters import Spread

STATISTICS = frozenset(
    {"amax", "amin", "batch_norm", "group_norm", "instance_norm", "layer_norm", "linalg_vector_norm", "log_softmax"}
    | {"logsumexp", "max", "mean", "min", "norm", "normalize", "rms_norm", "softmax", "std", "sum", "var", "var_mean"}
)
"""Operators whose results depend on all that lies along a dimension."""

_MOST = 32  # how many of the baseline's sites above one are looked through


@dataclass(frozen=True)
class Blame:
    """Which site is at fault and why, and how its pieces should have been placed; None where that is not known.

    `on_trial` says that the cause stands only if what diverged agrees once the site is put right. `read` is how far the
    pieces of a site that agrees once they are joined are from it as they are read. `given` is the module that was given
    something wrong: that is put right, and lies as `placed` says.
    """

    key: Key
    cause: Cause
    placed: Placement | None
    on_trial: bool = False
    read: Comparison | None = None
    given: Key | None = None


@dataclass(frozen=True)
class Case:
    """A site that diverged first, with all that is known of it."""

    bench: Bench
    found: Found
    whole: Tensor
    pieces: Sequence[Tensor]
    sites: Mapping[Key, Found]
    spreads: Mapping[str, Spread]
    parameters: Mapping[str, Tensor]

    @property
    def slack(self) -> float:
        """By how much single numbers may be off."""
        return tolerance(self.whole, self.found.budget.total)

    @property
    def together(self) -> Tensor | None:
        """The pieces put together by their shapes alone; None where that is no one tensor."""
        shaped = by_shape(self.whole, self.pieces)
        if shaped is None or (self.full and not all(close(p, self.pieces[0], self.slack) for p in self.pieces)):
            return None
        return join(shaped, self.whole, self.pieces)

    @property
    def ranks(self) -> int:
        """How many processes there are."""
        return len(next(iter(self.bench.aligned.parts.values())))

    @property
    def uses(self) -> list[Spread]:
        """The parameters that the site uses."""
        return [self.spreads[name] for name in self.found.event.uses if name in self.spreads]

    @property
    def full(self) -> bool:
        """Whether all pieces have the whole's size."""
        return all(piece.shape == self.whole.shape for piece in self.pieces)

    def blame(self, code: str, summary: str, *evidence: str, remedy: str, confirmed: bool = True) -> Blame:
        """The site itself is at fault."""
        shaped = by_shape(self.whole, self.pieces)
        cause = Cause(code=code, summary=summary, confirmed=confirmed, evidence=evidence, remedy=remedy)
        return Blame(self.found.key, cause, shaped)


def explained(case: Case) -> Blame:
    """The first reason that holds; `unexplained` where none does."""
    checks: tuple[Callable[[Case], Blame | None], ...] = (
        _by_parameters,
        _by_what_it_is_given,
        _bias_repeated,
        _reduced_twice,
        _terms_inside,
        _by_what_it_reads,
        _replicas,
        _other_axis,
        _statistics,
        _uneven,
        _misrouted,
        _parameters_out_of_order,
    )
    for check in checks:
        found = check(case)
        if found is not None:
            return found
    return case.blame(
        UNEXPLAINED,
        "no way of joining what the ranks have gives the baseline's tensor",
        remedy="compare what each rank computes there with the baseline's operator",
        confirmed=False,
    )


_BY_FLAW = {
    "replicas": ("shard-replicas", "load or broadcast the same weights to all ranks"),
    "swapped": ("shard-exchanged", "give each rank the weights of the modules that it stands for"),
    "uneven": ("shard-uneven", "cut the parameter so that all of its slices are on a rank, the last ones too"),
    "twice": ("shard-order", "cut the parameter by each rank's own place in the group"),
    "other": ("weight-perturbed", "load the baseline's weights"),
}


def _by_parameters(case: Case) -> Blame | None:
    """A parameter of which the ranks do not hold what the baseline has."""
    wrong = next((each for each in case.uses if each.flaw), None)
    if wrong is None:
        return None
    code, remedy = _BY_FLAW[wrong.flaw]
    if wrong.flaw == "other":
        code = f"{wrong.name.rpartition('.')[2].replace('_', '-')}-perturbed"
    return case.blame(code, wrong.said, remedy=remedy)


def _by_what_it_is_given(case: Case) -> Blame | None:
    """What comes in is not what the site above it made, though that agrees: parts were put together wrongly."""
    key = case.found.key if not case.found.key.op else Key(case.found.key.scope, "", case.found.key.call)
    event = case.bench.baseline.events.get(key)
    if event is None or key.returned or event.given is None or case.found.event.op in DROPOUTS:
        return None
    given, whole = case.bench.given(key), wide(event.given)
    limit = case.found.budget.total
    if not given:
        return None
    placed = place(whole, given, limit)
    if placed is not None and (placed.kind != "replica" or placed.usual):
        return None
    inside = replace(case, whole=whole, pieces=given)

    def with_given(found: Blame) -> Blame:
        return replace(found, placed=by_shape(whole, given), given=key)

    if placed is not None:
        return with_given(
            case.blame(
                "shard-order",
                f"it is given {placed.text} of what it should be: parts were put together in another order",
                "in another order they are the baseline's tensor",
                remedy="put the parts together in the order of the ranks that hold them",
            )
        )
    found = _other_axis(inside) or _misrouted(case) or _uneven(inside)
    if found is not None:
        return with_given(found)
    above = list(_nearest(case, _makers(case, key)))
    if not above or any(each.wrong or each.oddness for each in above):
        return None
    return with_given(
        case.blame(
            "shard-handed-on",
            f"{key.name} is given other numbers than {above[0].key.name} has made",
            remedy="look at what is done to the tensor between the two: casts, scales, buffers that are used again",
            confirmed=False,
        )
    )


def _makers(case: Case, key: Key) -> tuple[Key, ...]:
    """What the baseline's module was given, by the calls inside that read from outside."""
    events = case.bench.baseline.events
    front = f"{key.scope}."
    inside = [e for k, e in events.items() if k.scope == key.scope or k.scope.startswith(front)]
    return tuple(
        each
        for event in inside
        for each in event.above
        if each.scope != key.scope and not each.scope.startswith(front)
    )

def _bias_repeated(case: Case) -> Blame | None:
    """What every rank has added, and one should have."""
    together = case.together
    if together is None and not case.full:
        return None
    alike = together is not None
    joined = sum_of(case.pieces) if together is None else together
    for name, added in _added(case):
        for more in range(1, case.ranks):
            if not close(joined - more * added, case.whole, case.slack * case.ranks):
                continue
            if not alike:
                return case.blame(
                    "shard-unreduced",
                    f"each rank goes on with its own term, to which all of {name} is added",
                    f"the sum of the terms over the ranks, with {name} once, is the baseline's tensor",
                    remedy="reduce the terms over the ranks before they are handed on",
                )
            return case.blame(
                "shard-bias-repeated",
                f"{name} is added {more + 1} times, by each of {more + 1} ranks",
                f"without {more} of them it is the baseline's tensor",
                remedy=f"add {name} on one rank, or after the reduction",
            )
    return None


def _added(case: Case) -> Iterator[tuple[str, Tensor]]:
    """What may have been added: biases of the site, and what modules inside it give."""
    for name in case.found.event.uses:
        bias = wide(case.parameters[name]) if name in case.parameters else None
        if bias is not None and bias.dim() == 1 and bool(bias.any()):
            for axis in range(case.whole.dim()):
                if case.whole.shape[axis] == len(bias):
                    size = [-1 if k == axis else 1 for k in range(case.whole.dim())]
                    yield name, bias.reshape(size)
    front = f"{case.found.key.scope}." if case.found.key.scope and not case.found.key.op else None
    for key, event in case.bench.baseline.events.items():
        if front is not None and key.scope.startswith(front) and not key.op:
            value = wide(event.value)
            if value.shape == case.whole.shape and bool(value.any()) and not close(value, case.whole, case.slack):
                yield key.name, value


def _reduced_twice(case: Case) -> Blame | None:
    """Copies that were summed as if they were terms, or averaged."""
    together = case.together
    if together is None or not bool(case.whole.any()):
        return None
    for times in range(2, case.ranks + 1):
        for factor, what in ((times, f"{times} times"), (1 / times, f"1/{times} of")):
            if close(together, factor * case.whole, case.slack * max(factor, 1)):
                return case.blame(
                    "shard-reduced-twice",
                    f"every rank has {what} the baseline's numbers: copies were "
                    f"{'summed' if factor > 1 else 'averaged'} over {times} ranks as if they were terms",
                    remedy="reduce what is still in terms, once, by a sum",
                )
    return None


def _terms_inside(case: Case) -> Blame | None:
    """What a module of the candidate's own makes inside in terms, and sums too often or not at all."""
    if case.found.key.op:
        return None
    for terms in _inside(case):
        total = sum_of(terms)
        size = float(total.square().sum())
        slack = case.slack * len(terms)
        if not size or total.shape != case.whole.shape:
            continue
        rest = case.whole - total  # what is added after the sum
        if any(close(each, total, slack) for each in terms) or not _adds(case, rest, slack):
            continue
        together = case.together
        if together is not None:
            more = float(((together - case.whole) * total).sum()) / size
            times = round(more) if math.isfinite(more) else 0
            if times >= 1 and close(together, case.whole + times * total, slack * (times + 1)):
                return case.blame(
                    "shard-reduced-twice",
                    f"what the ranks have in terms counts {times + 1} times",
                    f"summed once over the ranks it is the baseline's tensor; it is {times} times that too much",
                    remedy="sum it over the ranks once",
                )
        if len(case.pieces) == len(terms) and _own_terms(case, terms, rest):
            return case.blame(
                "shard-unreduced",
                "each rank goes on with its own term",
                "the sum of the terms over the ranks is the baseline's tensor",
                remedy="reduce it over the ranks (all_reduce, or reduce_scatter) before it is handed on",
            )
    return None


def _inside(case: Case) -> Iterator[list[Tensor]]:
    """What calls inside the site's module made on all ranks, of those that are of the whole's size."""
    count = case.ranks
    keys = case.bench.aligned.parts[case.found.key] if not case.found.key.returned else ()
    found = case.bench.crew.ask("inside", [each[0].scope if each else None for each in keys] or [None] * count)
    for made in zip(*found, strict=False):
        values = [wide(value) for _, value in made]
        if len({key[1:] for key, _ in made}) == 1 and all(v.shape == case.whole.shape for v in values):
            yield values


def _adds(case: Case, rest: Tensor, slack: float) -> bool:
    """Whether what is left beside a sum is nothing, or a bias that the module adds."""
    if close(rest, torch.zeros_like(rest), slack):
        return True
    for name in case.found.event.uses:
        bias = wide(case.parameters[name]) if name in case.parameters else None
        if bias is not None and bias.dim() == 1 and rest.dim() and rest.shape[-1] == len(bias):
            if close(rest, bias.expand_as(rest), slack):
                return True
    return False


def _own_terms(case: Case, terms: Sequence[Tensor], rest: Tensor) -> bool:
    """Whether each piece is the rank's own term, or its own part of that."""
    placed = by_shape(case.whole, case.pieces)
    if placed is None or len(case.pieces) < 2:
        return False
    parts = [cut(placed, term, len(terms))[k] for k, term in enumerate(terms)]
    added = cut(placed, rest, len(terms))
    return any(
        all(close(piece, part + factor * more, case.slack) for piece, part, more in zip(case.pieces, parts, added, strict=True))
        for factor in (0, 1)
    )


def _parameters_out_of_order(case: Case) -> Blame | None:
    """A parameter in parts that are in another order than what it is multiplied with."""
    wrong = next((s for s in case.uses if s.placed is not None and not s.placed.usual), None)
    if wrong is None or wrong.placed is None:
        return None
    return case.blame(
        "shard-order",
        f"{wrong.name} lies as {wrong.placed.text}, and what it is multiplied with does not",
        remedy="cut the parameter by each rank's own place in the group",
        confirmed=False,
    )


def _by_what_it_reads(case: Case) -> Blame | None:
    """What it reads is joined well, but not as it is read: terms, or slices in another order."""
    suspects = sorted(_suspects(case), key=lambda each: (_SUSPICION[each.oddness], case.whole.numel()))
    if not suspects:
        return None
    first = _first_such(case, suspects[0])
    placed = first.placed
    assert placed is not None
    name = first.key.name
    if first.oddness == "terms":
        if first.event.op in STATISTICS:
            code, what = "shard-statistics", f"{name} is taken over each rank's own part only"
            remedy = "reduce it over the ranks before it is used"
        else:
            code, what = "shard-unreduced", f"{name} is left in terms, one on each rank"
            remedy = "reduce it over the ranks (all_reduce, or reduce_scatter) before it is read"
        how = {"sum": "sum", "mean": "mean", "max": "largest"}[placed.kind]
        evidence = f"the {how} over the ranks is the baseline's tensor; {case.found.key.name} reads one term"
        right = Placement("replica")
    else:
        code, remedy = "shard-order", "put the parts together in the order of the ranks that hold them"
        what = f"{name} lies as {placed.text}, and {case.found.key.name} reads it as if it were in order"
        evidence = "the parts in another order are the baseline's tensor"
        shaped = by_shape(wide(first.event.value), case.bench.pieces(first.key))
        if shaped is None:
            return None
        right = shaped
    cause = Cause(code=code, summary=what, confirmed=True, evidence=(evidence,), remedy=remedy)
    return Blame(first.key, cause, right, on_trial=not first.key.returned, read=_read(case, first))


def _read(case: Case, found: Found) -> Comparison | None:
    """How far a site's pieces are from the whole where each is taken for it, or all for its parts in order."""
    whole, pieces = wide(found.event.value), case.bench.pieces(found.key)
    shaped = by_shape(whole, pieces)
    joined = None if shaped is None else join(shaped, whole, pieces)
    return None if joined is None else meet([whole], [joined])[0].error


_SUSPICION = {"terms": 0, "order": 1, "": 2}


def _suspects(case: Case) -> Iterator[Found]:
    """Sites that the site reads from, through such as were not compared, whose pieces lie oddly."""
    if case.found.key.returned and case.found.proved:
        yield case.found
    yield from (each for each in _nearest(case, case.found.event.above) if each.oddness)


def _nearest(case: Case, above: tuple[Key, ...]) -> Iterator[Found]:
    """The sites that were compared of those that are read, through such as were not."""
    stack: list[tuple[Key, ...]] = [above]
    seen: set[Key] = set()
    while stack and len(seen) < _MOST:
        for key in stack.pop():
            if key in seen:
                continue
            seen.add(key)
            if key in case.sites:
                yield case.sites[key]
            elif key in case.bench.baseline.events:
                stack.append(case.bench.baseline.events[key].above)


def _first_such(case: Case, found: Found) -> Found:
    """The first site of those one after the other that lie oddly in one way."""
    while True:
        above = _nearest(case, found.event.above)
        odd = next((each for each in above if each.oddness == found.oddness), None)
        if odd is None:
            return found
        found = odd


def _replicas(case: Case) -> Blame | None:
    """Copies of which some are the baseline's and some are not."""
    if not case.full or len(case.pieces) < 2 or len(case.pieces) != len(case.found.ranks):
        return None
    wrong = [
        rank
        for rank, piece in zip(case.found.ranks, case.pieces, strict=True)
        if not close(piece, case.whole, case.slack)
    ]
    if not 0 < len(wrong) < len(case.pieces):
        return None
    return case.blame(
        "shard-replicas",
        f"rank {', '.join(map(str, wrong))} has other numbers than the rest, which have the baseline's",
        remedy="find what is drawn, loaded or branched on by each rank for itself",
    )


def _other_axis(case: Case) -> Blame | None:
    """Parts that were put together along another axis than they were cut."""
    count = case.ranks
    if len(case.pieces) < 1 or any(piece.numel() != case.whole.numel() for piece in case.pieces):
        return None
    piece = case.pieces[0]
    for axis in range(case.whole.dim()):
        if case.whole.shape[axis] % count:
            continue
        for along in range(piece.dim()):
            if piece.shape[along] % count:
                continue
            parts = list(piece.chunk(count, along))
            size = list(case.whole.shape)
            size[axis] //= count
            joined = torch.cat([part.reshape(size) for part in parts], axis)
            if close(joined, case.whole, case.slack):
                return case.blame(
                    "shard-axis",
                    f"the ranks' parts are put together along axis {along}, and were cut along axis {axis}",
                    f"put together along axis {axis} they are the baseline's tensor",
                    remedy=f"gather along axis {axis}",
                )
    return None


def _statistics(case: Case) -> Blame | None:
    """A norm or another statistic of all that lies along a dimension, of which each rank has a part."""
    event = case.found.event
    if event.call is None or event.op not in STATISTICS or event.given is None or case.found.key.returned:
        return None
    given = case.bench.given(case.found.key)
    whole = wide(event.given)
    placed = place(whole, given, case.found.budget.total)
    if placed is None or placed.kind != "shard" or placed.axis is None or placed.shape is not None:
        return None
    function, args, kwargs = event.call
    parts = cut(placed, whole, len(given))
    size = whole.shape[placed.axis]
    for part, index, piece in zip(parts, placed.indices or (), case.pieces, strict=True):
        def own(value: object, part: Tensor = part, index: Tensor = index) -> object:
            if isinstance(value, torch.Tensor):
                if value.shape == whole.shape:
                    return part
                return wide(value)[index] if tuple(value.shape) == (size,) else value
            if isinstance(value, tuple | list) and list(value) == [size]:
                return (len(index),)
            return value

        try:
            made = function(*map(own, args), **{name: own(value) for name, value in kwargs.items()})
        except (RuntimeError, TypeError, ValueError):
            return None
        if not isinstance(made, torch.Tensor) or not close(wide(made), piece, case.slack):
            return None
    found = case.blame(
        "shard-statistics",
        f"{event.op} is taken over each rank's own part along axis {placed.axis}, not over all of it",
        "the baseline's own operator gives the candidate's numbers on each rank's part of the baseline's input",
        remedy="gather its input, or reduce its statistics over the ranks",
    )
    return Blame(found.key, found.cause, found.placed or placed)


def _uneven(case: Case) -> Blame | None:
    """Slices that no rank has, or that are none of the baseline's."""
    if any(piece.dim() != case.whole.dim() for piece in case.pieces):
        return None
    if len(case.pieces) != len(case.found.ranks):
        return None
    axes = {
        k
        for piece in case.pieces
        for k, (one, two) in enumerate(zip(piece.shape, case.whole.shape, strict=True))
        if one != two
    }
    if len(axes) != 1:
        return None
    said, flaw = cut_wrongly(case.whole, case.pieces, case.found.ranks, axes.pop(), case.slack)
    if flaw not in ("uneven", "twice"):
        return None
    code, _ = _BY_FLAW[flaw]
    return case.blame(code, said, remedy="let the last ranks have fewer slices, and leave no slice out or filled up")


def _misrouted(case: Case) -> Blame | None:
    """A module of several alike that was given what the baseline gives another one."""
    key = case.found.key
    if key.op:
        return None
    given = case.bench.given(key)
    if not given:
        return None
    parts = key.scope.split(".")
    for k, part in enumerate(parts):
        if not part.isdigit():
            continue
        for other in case.bench.baseline.events.values():
            names = other.key.scope.split(".")
            same = len(names) == len(parts) and names[:k] == parts[:k] and names[k + 1 :] == parts[k + 1 :]
            if other.key.op or not same or names[k] == part or other.given is None:
                continue
            if place(wide(other.given), given, case.found.budget.total) is not None:
                return case.blame(
                    "shard-exchanged",
                    f"{key.scope} is given what the baseline gives {other.key.scope}",
                    remedy="send each sample to the rank that holds the module it is routed to",
                )
    return None
