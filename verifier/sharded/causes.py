"""Why a site is not what the pieces of all processes should make up: one reason that its numbers bear out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from verifier.graph.operators import DROPOUTS
from verifier.lockstep import meet
from verifier.records import UNEXPLAINED, Cause
from verifier.sharded.aligning import wide
from verifier.sharded.case import Blame, Case, nearest
from verifier.sharded.parts import (
    BY_FLAW,
    STATISTICS,
    misrouted,
    other_axis,
    replicas_differ,
    statistics,
    uneven,
)
from verifier.sharded.placing import Placement, by_shape, join, place
from verifier.sharded.terms import bias_repeated, reduced_twice, terms_inside
from verifier.sharded.watching import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verifier.records import Comparison
    from verifier.sharded.comparing import Found


def explained(case: Case) -> Blame:
    """The first reason that holds; `unexplained` where none does."""
    checks: tuple[Callable[[Case], Blame | None], ...] = (
        _by_parameters,
        _by_settings,
        _by_what_it_is_given,
        bias_repeated,
        reduced_twice,
        terms_inside,
        _by_what_it_reads,
        replicas_differ,
        other_axis,
        statistics,
        uneven,
        misrouted,
        _parameters_out_of_order,
        _by_possible_settings,
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


def _by_parameters(case: Case) -> Blame | None:
    """A parameter of which the ranks do not hold what the baseline has."""
    wrong = next((each for each in case.uses if each.flaw), None)
    if wrong is None:
        return None
    code, remedy = BY_FLAW[wrong.flaw]
    if wrong.flaw == "other":
        code = f"{wrong.name.rpartition('.')[2].replace('_', '-')}-perturbed"
    return case.blame(code, wrong.said, remedy=remedy)


def _by_settings(case: Case) -> Blame | None:
    """A module of torch's that is another one, or set otherwise."""
    return _written_otherwise(case, sure=True)


def _by_possible_settings(case: Case) -> Blame | None:
    """A module whose numbers differ that it may compute with, and may not."""
    return _written_otherwise(case, sure=False)


def _written_otherwise(case: Case, *, sure: bool) -> Blame | None:
    told = [each for scope in _scopes(case) for each in case.bench.otherwise.get(scope, [])]
    found = [each for each in told if each.telling or not (sure or each.idle)]
    if not found:
        return None
    return case.blame(
        found[0].code,
        f"{found[0].scope}: {found[0].said}",
        *(each.said for each in found[1:]),
        remedy="write it as the baseline does",
        confirmed=False,
    )


def _scopes(case: Case) -> Iterator[str]:
    """The module of the site, and those whose results it reads and no rank has."""
    if case.found.key.returned:
        return
    yield case.found.key.scope
    stack, seen = list(case.found.event.above), {case.found.key.scope}
    while stack:
        key = stack.pop()
        event = case.bench.baseline.events.get(key)
        if key in case.sites or event is None or key.scope in seen:
            continue
        seen.add(key.scope)
        yield key.scope
        stack += event.above


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
    found = other_axis(inside) or misrouted(case) or uneven(inside)
    if found is not None:
        return with_given(found)
    above = list(nearest(case, _makers(case, key)))
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
    if placed is None:
        return None
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
    yield from (each for each in nearest(case, case.found.event.above) if each.oddness)


def _first_such(case: Case, found: Found) -> Found:
    """The first site of those one after the other that lie oddly in one way."""
    while True:
        above = nearest(case, found.event.above)
        odd = next((each for each in above if each.oddness == found.oddness), None)
        if odd is None:
            return found
        found = odd
