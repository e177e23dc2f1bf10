"""Which of the candidate's sites a dumped tensor belongs to: by content; where that fails, by order and name."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from verifier.dumps.names import family, likeness, natural
from verifier.dumps.sequence import FORCED, side_by_side
from verifier.graph.operators import MOVES, SELECTS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from verifier.align.layouts import Layout
    from verifier.dumps.content import Conventions, Mark, Shape
    from verifier.graph import Site
    from verifier.records import Comparison

# What speaks for a pair whose numbers disagree. A shape alone is the least that decides: it is twice the margin.
_MARGIN = 0.25
_FITS = 0.5
_ANOTHER_SHAPE = 0.1
_PLAIN = 0.3  # sizes need not be joined
_NAMED = 1.5
_LIKE = 0.5  # for each halving of what a correlation r leaves open, 1 - r, from 1/2, which chance seldom goes below
_BITS = 20  # of these, the most that count

_SURE = 4  # tensors with a place that follow each other as their names do: by chance one time in 24
_SEVERAL = 2

LIKELY = 0.99
"""Correlation above which two tensors that differ are probably one."""

UNDECIDED = "neither content nor order nor name tells which site it is"
NO_SHAPE = "no free site of the candidate has its shape, in whatever layout"


@dataclass(frozen=True)
class Agreement:
    """How far a dumped tensor and one of the candidate's are apart if one is laid out as the other.

    `partly` says that many of their numbers agree, so that they are one tensor, with a fault in the others.
    """

    layout: Layout
    error: Comparison
    partly: bool = False


class Fit(NamedTuple):
    """How a tensor whose shape goes with a dumped one resembles it; `plain` if no sizes have to be joined."""

    correlation: float
    plain: bool


@dataclass(frozen=True)
class Seen:
    """What a run of the candidate has shown; places are its sites by index, then its outputs.

    Attributes:
        shapes: The shape of its tensor at each place.
        dumped: The shapes of the dumped tensors.
        marks: The marks of the dumped tensors.
        agreeing: For each dumped tensor, the places whose numbers are its own.
    """

    shapes: Mapping[int, Shape]
    dumped: Mapping[str, Shape]
    marks: Mapping[str, Mark]
    agreeing: Mapping[str, Mapping[int, Sequence[Agreement]]]


@dataclass
class Matched:
    """Dumped tensors with their places.

    `certain` are those that content decided. `same` are those that hold the same numbers as another, which has the
    place; `near` those within rounding of another, as behind a norm that was never trained: they may have a place of
    their own, at which the candidate is wrong. `order` is one in which the dump has them as the candidate computes
    them, None where none is known.
    """

    pairs: dict[str, int] = field(default_factory=dict)
    certain: set[str] = field(default_factory=set)
    same: dict[str, str] = field(default_factory=dict)
    near: dict[str, str] = field(default_factory=dict)
    order: tuple[str, ...] | None = None

    def free(self, names: Sequence[str]) -> list[str]:
        """Those that have no place."""
        return [name for name in names if name not in self.pairs and name not in self.same]


def by_content(
    names: Sequence[str],
    seen: Seen,
    sites: Mapping[int, Site],
    places: Collection[int],
    conventions: Conventions,
) -> Matched:
    """The dumped tensors whose numbers are those of one of the places; votes for the layouts that show it."""
    options_of = {
        name: [place for place in seen.agreeing.get(name, ()) if place in places]
        for name in names
        if seen.marks[name].varies
    }
    telling = [name for name, options in options_of.items() if options]
    for name in telling:
        place = min(options_of[name])
        shown = seen.agreeing[name][place]
        if len(shown) == 1:
            conventions.vote(name, seen.dumped[name], seen.shapes[place], shown[0].layout)
    found = Matched()
    owners: dict[int, str] = {}
    for name in telling:
        options = sorted(
            options_of[name],
            key=lambda place: (
                place in owners,
                _moves(sites[place]),
                -round(likeness(name, sites[place]), 2),
                place,
            ),
        )
        if options[0] in owners:
            found.near[name] = owners[options[0]]
            continue
        owners[options[0]] = name
        found.pairs[name] = options[0]
        found.certain.add(name)
    return found


def _moves(site: Site) -> bool:
    return site.op in MOVES | SELECTS


def by_order(
    matched: Matched,
    names: Sequence[str],
    columns: Sequence[int],
    sites: Mapping[int, Site],
    like: Mapping[tuple[str, int], Fit | None],
) -> None:
    """Give a place to those that content leaves open, as far as order, shape, name and likeness decide.

    Args:
        matched: What content has decided; added to.
        names: The dumped tensors, in the order of the files.
        columns: The places that may be theirs, in order of execution.
        sites: The sites of these places.
        like: How a tensor resembles that of a place whose shape goes with its own, None where another shape stands
            there that may be a fault.
    """
    scores = {
        (name, place): (_ANOTHER_SHAPE if found is None else _worth(found))
        + _NAMED * likeness(name, sites[place])
        for (name, place), found in like.items()
        if name not in matched.near or (found is not None and found.correlation > LIKELY)
    }
    orders = [tuple(names), tuple(sorted(names, key=natural))]
    named = {key: score for key, score in scores.items() if likeness(key[0], sites[key[1]])}
    _in_order(matched, orders, columns, scores, _SURE)
    _in_families(matched, names, columns, named)
    _in_order(matched, orders, columns, scores, _SEVERAL)
    _in_families(matched, names, columns, scores)
    _in_order(matched, orders, columns, scores, _SEVERAL)
    matched.same |= {name: other for name, other in matched.near.items() if name not in matched.pairs}
    matched.order = next((order for order in orders if _borne_out(matched, order, _SEVERAL)), None)


def _worth(found: Fit) -> float:
    bits = min(-math.log2(max(1 - found.correlation, 2.0**-_BITS)), _BITS)
    return _FITS + _PLAIN * found.plain + _LIKE * max(0.0, bits - 1)


def _in_order(
    matched: Matched,
    orders: Sequence[tuple[str, ...]],
    columns: Sequence[int],
    scores: Mapping[tuple[str, int], float],
    least: int,
) -> None:
    """Fill the gaps in an order that those with a place bear out."""
    for order in orders:
        if not _borne_out(matched, order, least):
            continue
        placed = [name for name in order if name in matched.pairs]
        forced = {(name, matched.pairs[name]): FORCED for name in placed}
        open_rows = set(matched.free(order))
        taken = set(matched.pairs.values())
        free = {key: score for key, score in scores.items() if key[0] in open_rows and key[1] not in taken}
        rows = [name for name in order if name in open_rows or name in matched.pairs]
        every = sorted({*columns, *taken})
        found = side_by_side(rows, every, {**free, **forced}, _MARGIN)
        matched.pairs |= {name: place for name, place in found.items() if name in open_rows}
        return


def _borne_out(matched: Matched, order: Sequence[str], least: int) -> bool:
    """Whether so many have a place, and all of them one behind the other."""
    places = [matched.pairs[name] for name in order if name in matched.pairs]
    return len(places) >= least and all(one < two for one, two in itertools.pairwise(places))


def _in_families(
    matched: Matched, names: Sequence[str], columns: Sequence[int], scores: Mapping[tuple[str, int], float]
) -> None:
    """Place those whose names count, each family in its own order: `Conv_0` and `Conv_1`, whatever lies between."""
    families: dict[str, list[str]] = {}
    for name in sorted(names, key=natural):
        if name not in matched.same:
            families.setdefault(family(name), []).append(name)
    claims: dict[int, list[tuple[float, str]]] = {}
    for rows in families.values():
        placed = [name for name in rows if name in matched.pairs]
        places = [matched.pairs[name] for name in placed]
        if places != sorted(places):
            continue
        taken = set(matched.pairs.values())
        free = {
            key: score
            for key, score in scores.items()
            if key[0] in rows and key[0] not in matched.pairs and key[1] not in taken
        }
        forced = {(name, matched.pairs[name]): FORCED for name in placed}
        for name, place in side_by_side(
            rows, sorted({*columns, *places}), {**free, **forced}, _MARGIN
        ).items():
            if name not in matched.pairs:
                claims.setdefault(place, []).append((free[name, place], name))
    for place, rivals in claims.items():
        rivals.sort(reverse=True)
        if len(rivals) == 1 or rivals[0][0] >= rivals[1][0] + _MARGIN:
            matched.pairs[rivals[0][1]] = place
