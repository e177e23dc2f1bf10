"""The cells of recurrent layers, whether one call computes all steps, one call a step, or operators written by hand.

A cell is one direction of one layer: weights for what comes in and for the state before, each with as many rows as
there are gates times features, and biases for both, or their sum. By hand it is known by what it does: its weights
for the state are met again behind themselves, step after step.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from verifier.align.uses import Held, turned_at
from verifier.graph.operators import RECURRENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from verifier.graph import Graph, Site

IN, STATE = "in", "state"

# Calls that compute one step of one layer.
_STEPS = frozenset({"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"})


class Part(NamedTuple):
    """Rows of a cell that one tensor holds: which, for what, and in which of its columns.

    `sides` says what the rows are multiplied with, `IN`, `STATE` or both; of a bias, what it is added to. Of a weight
    for both, `first` says whose columns come first.
    """

    held: Held
    start: int
    stop: int
    sides: tuple[str, ...]
    first: str = ""


@dataclass(frozen=True)
class Cell:
    """One direction of one layer.

    Attributes:
        widths: How many features come in, and how many the state has.
        rows: Gates times features.
        weights: All rows for what comes in, and all for the state.
        biases: Likewise, where there are any.
        projection: What makes the state smaller than the features, if something does.
        level: Cells of one level read nothing of each other; they are directions of one layer.
        fused: Whether one tensor holds all gates, for what comes in and for the state, as in torch's own calls.
    """

    widths: tuple[int, int]
    rows: int
    weights: tuple[Part, ...]
    biases: tuple[Part, ...]
    projection: Held | None
    level: int
    fused: bool

    @property
    def sizes(self) -> tuple[object, ...]:
        """What cells of one kind share."""
        return self.rows, self.widths, len(self.biases), self.projection is None

    @property
    def tensors(self) -> Iterator[str]:
        """The names of all it uses."""
        yield from dict.fromkeys(part.held.name for part in (*self.weights, *self.biases))
        if self.projection is not None:
            yield self.projection.name

    def orders(self) -> list[Cell]:
        """The cell with its gates in every order that is worth a trial: those kept in tensors of their own change."""
        blocks = sorted({(part.start, part.stop) for part in (*self.weights, *self.biases)})
        # A tensor of all gates is read in torch's order, or the candidate does not compute the same.
        blocks = [block for block in blocks if block != (0, self.rows)]
        apart = all(one[1] == other[0] for one, other in itertools.pairwise(blocks))
        if len(blocks) < _MANY or not apart or len(blocks) > _MOST_GATES:
            return [self]
        found = []
        for order in itertools.permutations(blocks):
            place, start = {}, 0
            for block in order:
                place[block] = (start, start + block[1] - block[0])
                start += block[1] - block[0]
            found.append(
                replace(
                    self,
                    weights=tuple(_moved(part, place) for part in self.weights),
                    biases=tuple(_moved(part, place) for part in self.biases),
                )
            )
        return found

    def mirrored(self) -> Cell:
        """The cell with the columns of weights for both exchanged."""
        other = {IN: STATE, STATE: IN, "": ""}
        return replace(self, weights=tuple(part._replace(first=other[part.first]) for part in self.weights))


_MANY = 2
_MOST_GATES = 4


def _moved(part: Part, place: Mapping[tuple[int, int], tuple[int, int]]) -> Part:
    start, stop = place.get((part.start, part.stop), (part.start, part.stop))
    return part._replace(start=start, stop=stop)


def fused_cells(graph: Graph) -> list[Cell]:
    """The cells of the calls that are given whole ones, in the order of execution, then of layers and directions."""
    found: dict[tuple[str, ...], Cell] = {}
    for site in graph.comparable:
        for cell in _of_call(site):
            found.setdefault(tuple(cell.tensors), cell)  # a step is called many times
    return list(found.values())


def _of_call(site: Site) -> Iterator[Cell]:
    if site.op in _STEPS:
        one = _fused(site, [use.name for use in site.tensors], len(site.tensors) > _MANY, site.index)
        if one is not None:
            yield one
        return
    if site.op not in RECURRENT:
        return
    names, biased = [use.name for use in site.tensors], bool(site.attributes.get("has_biases"))
    directions = 1 + bool(site.attributes.get("bidirectional"))
    cells = directions * int(str(site.attributes["num_layers"]))
    each, rest = divmod(len(names), cells)
    if rest:  # some of its weights are computed
        return
    for number in range(cells):
        one = _fused(
            site, names[number * each : (number + 1) * each], biased, site.index + number // directions
        )
        if one is not None:
            yield one


def _fused(site: Site, names: Sequence[str], biased: bool, level: int) -> Cell | None:
    shapes = {use.name: use.shape for use in site.tensors}
    held = [Held(name, shapes[name], site.index) for name in names]
    needed = 2 + 2 * biased
    if len(held) not in (needed, needed + 1) or any(len(each.shape) != _MANY for each in held[:2]):
        return None
    (rows, wide), (_, width) = held[0].shape, held[1].shape
    return Cell(
        (wide, width),
        rows,
        tuple(Part(each, 0, rows, (side,)) for each, side in zip(held[:2], (IN, STATE), strict=True)),
        tuple(Part(each, 0, rows, (side,)) for each, side in zip(held[2:needed], (IN, STATE), strict=False)),
        held[needed] if len(held) > needed else None,
        level,
        fused=True,
    )


class Loop(NamedTuple):
    """Tensors that one cell written by hand may use, in the order in which they are first met.

    `again` names those that are met again behind themselves; the others only lead there.
    """

    tensors: tuple[Held, ...]
    again: frozenset[str]
    level: int

    def as_cell(self, like: Cell) -> Cell | None:
        """The cell it is, if it is one of the sizes of `like`; None if it is none."""
        met = {IN: 0, STATE: 0}
        parts: list[Part] = []
        vectors: list[Held] = []
        projection: Held | None = None
        for each in self.tensors:
            part = self._weight(each, like, met) if _is_matrix(each) else None
            if part is not None:
                parts.append(part)
                met.update(dict.fromkeys(part.sides, part.stop))
            elif projection is None and like.projection is not None and _projects(each, like.projection):
                projection = each
            elif math.prod(each.shape) <= like.rows:
                vectors.append(each)
            elif each.name in self.again:
                return None
        if met != {IN: like.rows, STATE: like.rows} or (projection is None) != (like.projection is None):
            return None
        # What only leads to the loop may be no part of it.
        for own in (
            vectors,
            [each for each in vectors if each.name in self.again or _is_beside(each, parts)],
        ):
            biases = _biases(own, parts, like.rows)
            if biases is not None:
                return Cell(
                    like.widths, like.rows, tuple(parts), tuple(biases), projection, self.level, fused=False
                )
        return None

    def stacked(self) -> Cell | None:
        """The cell it is, if it has one weight for what comes in and one for the state; None if it has others."""
        weights = [each for each in self.tensors if _is_matrix(each)]
        if len(weights) != _MANY or [each.name in self.again for each in weights].count(True) != 1:
            return None
        one, other = sorted(weights, key=lambda each: each.name in self.again)
        (rows, wide), (same, width) = (_out_in(each) for each in (one, other))
        if rows != same or rows % width:
            return None
        like = Cell((wide, width), rows, (), (), None, self.level, fused=True)
        found = self.as_cell(like)
        return None if found is None else replace(found, fused=True)

    def _weight(self, held: Held, like: Cell, met: Mapping[str, int]) -> Part | None:
        """What a weight is of a cell of the sizes of `like`, of whose rows so many were met before."""
        wide, width = like.widths
        inside = held.name in self.again
        for turned in (held.turned, not held.turned):
            if turned and len(held.shape) != _MANY:
                continue  # only a matrix has a transpose
            out, into = _out_in(held._replace(turned=turned))
            for sides, columns in (((STATE,), width), ((IN,), wide), ((IN, STATE), wide + width)):
                start = max(met[side] for side in sides)
                if into != columns or start + out > like.rows or any(met[side] != start for side in sides):
                    continue
                if inside is (STATE in sides):
                    first = IN if len(sides) > 1 else ""
                    return Part(held._replace(turned=turned), start, start + out, sides, first)
        return None


def _projects(held: Held, projection: Held) -> bool:
    return sorted(held.shape) == sorted(projection.shape)


def _out_in(held: Held) -> tuple[int, int]:
    out, into = math.prod(held.shape[:-1]), held.shape[-1]
    return (into, out) if held.turned else (out, into)


def _is_beside(vector: Held, weights: Iterable[Part]) -> bool:
    """Whether a vector is given to the call that multiplies with one of the weights."""
    return any(part.held.site == vector.site for part in weights)


def _biases(vectors: Sequence[Held], weights: Sequence[Part], rows: int) -> list[Part] | None:
    """The rows that vectors are added to: those of the weight beside which they stand, else what is left."""
    at = {part.held.site: part for part in weights}
    found: list[Part] = []
    free: list[Held] = []
    for each in vectors:
        beside = at.get(each.site)
        if beside is not None and math.prod(each.shape) == beside.stop - beside.start:
            found.append(Part(each, beside.start, beside.stop, beside.sides))
        else:
            free.append(each)
    taken = {side: sum(p.stop - p.start for p in found if side in p.sides) for side in (IN, STATE)}
    sides = [side for side in (IN, STATE) if not taken[side]]
    start = 0
    for each in free:
        size = math.prod(each.shape)
        if not sides or start + size > rows:
            return None
        found.append(Part(each, start, start + size, (sides[0],)))
        start += size
        if start == rows:
            sides, start = sides[1:], 0
    if start:
        return None
    return [
        part if len(part.sides) > 1 or _beside(part, found) else part._replace(sides=(IN, STATE))
        for part in found
    ]


def _beside(part: Part, others: Iterable[Part]) -> bool:
    """Whether another bias is added to the same rows on the other side."""
    return any(
        other.sides != part.sides and other.start < part.stop and part.start < other.stop for other in others
    )


def _is_matrix(held: Held) -> bool:
    return not held.added and sum(size > 1 for size in held.shape) > 1


def loops(graph: Graph, without: Iterable[str]) -> list[Loop]:
    """What may be cells written by hand, in the order of execution; tensors of `without` belong to others."""
    met = _Met(graph, frozenset(without))
    again = [name for name in met.first if met.above[name] & met.bit[name]]
    groups: list[list[str]] = []
    for name in again:
        home = next(
            (
                group
                for group in groups
                if met.above[name] & met.bit[group[0]] and met.above[group[0]] & met.bit[name]
            ),
            None,
        )
        if home is None:
            groups.append([name])
        else:
            home.append(name)
    found = []
    for group in groups:
        inside = sum(met.bit[name] for name in group)
        before = [
            name
            for name in met.first
            if met.bit[name] & ~inside and any(met.above[each] & met.bit[name] for each in group)
        ]
        between = [
            name for name in before if not met.held(name).added
        ]  # a sum changes nothing of a projection
        feeding = [
            name
            for name in before
            if not (met.is_looked_up(name) or any(met.above[each] & met.bit[name] for each in between))
        ]
        tensors = sorted({*group, *feeding}, key=lambda name: met.first[name])
        lower = sum(met.bit[name] for name in before if name not in feeding)
        found.append(Loop(tuple(met.held(name) for name in tensors), frozenset(group), lower.bit_count()))
    return found


class _Met:
    """Where each tensor meets data, and which tensors stand above it there."""

    def __init__(self, graph: Graph, without: frozenset[str]) -> None:
        self._graph = graph
        self.bit = {name: 1 << k for k, name in enumerate(graph.tensors) if name not in without}
        self.above = dict.fromkeys(self.bit, 0)
        self.first: dict[str, int] = {}
        self._at: dict[str, int] = {}
        names = list(graph.tensors)
        depends, masks = graph.reads_inputs, [0] * len(graph.sites)
        for site in graph.sites:
            own = sum(self.bit.get(name, 0) for name in {use.name for use in site.tensors})
            data = constant = 0
            for source in site.inputs:
                if source >= 0 and depends[source]:
                    data |= masks[source]
                elif source >= 0:
                    constant |= masks[source]
            masks[site.index] = own | data | constant
            if not site.comparable:
                continue
            for use in site.tensors:
                if use.name in self.bit:
                    self._at.setdefault(use.name, site.index)
            if not depends[site.index]:
                continue
            meeting = own | constant
            while meeting:
                low = meeting & -meeting
                meeting ^= low
                name = names[low.bit_length() - 1]
                self.above[name] |= data
                self.first.setdefault(name, site.index)
        for (
            name,
            site_of,
        ) in self._at.items():  # a state of zeros is no data: the first step says where it stands
            if name in self.first:
                self.first[name] = min(self.first[name], site_of)

    def is_looked_up(self, name: str) -> bool:
        """Whether rows are taken out of a tensor, as an embedding does, which multiplies nothing."""
        return self._graph.sites[self._at[name]].op == "embedding"

    def held(self, name: str) -> Held:
        """A tensor where it is first used."""
        site = self._graph.sites[self._at[name]]
        return Held(
            name, self._graph.tensors[name], site.index, turned_at(site, name), site.op in {"add", "sub"}
        )
