"""Making the tensors of one recurrent cell from those of another: gates together or apart, biases added or not."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from verifier.align.assembly import Assembly, Piece
from verifier.align.recurrence import IN, STATE, Cell, Loop, Part, fused_cells, loops
from verifier.align.sequence import longest_common_subsequence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.graph import Graph

_MOST = 48  # ways to share out the weights of all cells that are tried


def match_recurrences(baseline: Graph, candidate: Graph) -> list[tuple[Mapping[str, Assembly], ...]]:
    """The ways to make the candidate's recurrent weights from the baseline's, the likeliest first, if there are any.

    A cell that one call is given stands beside another such cell, or beside one written by hand, in the order of
    layers; and one written by hand with all gates in one tensor beside one with gates apart. Whoever wrote the cells
    of a network wrote them alike: what is tried for one is tried for all.
    """
    b, c = fused_cells(baseline), fused_cells(candidate)
    pairs = [
        (b[i], c[j])
        for i, j in longest_common_subsequence([cell.sizes for cell in b], [cell.sizes for cell in c])
    ]
    calls = [{name for cell in cells for name in cell.tensors} for cells in (b, c)]
    written = loops(baseline, calls[0]), loops(candidate, calls[1])
    stacked = [[each.stacked() for each in side] for side in written]
    left = [[cell for cell in cells if not any(cell in pair for pair in pairs)] for cells in (b, c)]
    pairs += _beside(left[0], written[1])
    pairs += [(other, cell) for cell, other in _beside(left[1], written[0])]
    if not (b or c):
        whole = [[cell for cell in cells if cell] for cells in stacked]
        apart = [
            [loop for loop, cell in zip(*each, strict=True) if not cell]
            for each in zip(written, stacked, strict=True)
        ]
        pairs += _beside(whole[0], apart[1])
        pairs += [(other, cell) for cell, other in _beside(whole[1], apart[0])]
    ways: dict[tuple[tuple[str, str], ...], dict[str, Assembly]] = {}
    for paired in _directions(pairs):
        for way in _ways(paired):
            fitting = {
                name: made
                for name, made in way.items()
                if made.fits(baseline.tensors, candidate.tensors[name])
            }
            ways.setdefault(tuple((name, str(made.text)) for name, made in fitting.items()), fitting)
    found = tuple(way for way in list(ways.values())[:_MOST] if way)
    return [found] if found else []


def _beside(fused: Sequence[Cell], written: Sequence[Loop]) -> list[tuple[Cell, Cell]]:
    """Each cell of a call and the next loop that may be one of its sizes."""
    found = []
    left = list(written)
    for cell in fused:
        for k, loop in enumerate(left):
            if (other := loop.as_cell(cell)) is not None:
                found.append((cell, other))
                left = left[k + 1 :]
                break
    return found


def _directions(pairs: Sequence[tuple[Cell, Cell]]) -> Iterator[list[tuple[Cell, Cell]]]:
    """The pairs, then those in which the two directions of every layer have changed places."""
    yield [*pairs]
    swapped = [*pairs]
    for k, (one, other) in enumerate(itertools.pairwise(pairs)):
        if (one[0].level, one[1].level) == (other[0].level, other[1].level):
            swapped[k], swapped[k + 1] = (one[0], other[1]), (other[0], one[1])
    if swapped != [*pairs]:
        yield swapped


def _ways(pairs: Sequence[tuple[Cell, Cell]]) -> Iterator[dict[str, Assembly]]:
    """Every order of gates, and of columns where some weights are for both, in all pairs alike."""
    listed = [[each.orders() for each in pair] for pair in pairs]
    for k in range(max((len(orders) for pair in listed for orders in pair), default=0)):
        cells = [[orders[k if k < len(orders) else 0] for orders in pair] for pair in listed]
        for mirrored in (False, True):
            made: dict[str, Assembly] = {}
            for one, other in cells:
                b, c = (each if each.fused or not mirrored else each.mirrored() for each in (one, other))
                made |= _made(b, c)
            yield made


def _made(b: Cell, c: Cell) -> dict[str, Assembly]:
    """The candidate's tensors from the baseline's, as far as that can be said."""
    made: dict[str, Assembly] = {}
    for part in c.weights:
        sides = [_rows(b, side, part) for side in (part.sides if part.first != STATE else (STATE, IN))]
        twin = next((each for each in b.weights if _alike(each, part)), None)
        if twin is not None:
            whole = Piece(twin.held.name, transposed=twin.held.turned)
            made[part.held.name] = Assembly.built((whole,), turned=part.held.turned)
        elif len(sides) == 1 and sides[0]:
            made[part.held.name] = Assembly.built(sides[0], turned=part.held.turned)
        elif all(len(pieces) == 1 for pieces in sides):  # columns side by side are rows of the transpose
            columns = tuple(_transposed(pieces[0]) for pieces in sides)
            made[part.held.name] = Assembly(columns, turned=not part.held.turned)
    for part in c.biases:
        if pieces := _biases(b, part):
            made[part.held.name] = Assembly(tuple(pieces))
    if b.projection and c.projection:
        piece = Piece(b.projection.name, transposed=b.projection.turned)
        made[c.projection.name] = Assembly.built((piece,), turned=c.projection.turned)
    return made


def _alike(one: Part, other: Part) -> bool:
    """Whether two weights for both hold the same rows and columns."""
    return len(one.sides) > 1 and one[1:] == other[1:]


def _rows(cell: Cell, side: str, wanted: Part) -> list[Piece]:
    """The rows of `wanted`, for one side, as (out, in); none where they cannot be cut out."""
    found = []
    for part in sorted(cell.weights, key=lambda part: part.start):
        low, high = max(part.start, wanted.start), min(part.stop, wanted.stop)
        if side not in part.sides or low >= high:
            continue
        piece = _cut(part, low, high)
        if len(part.sides) > 1:
            if piece.start is not None:
                return []  # some rows of some columns
            wide = cell.widths[part.first == STATE]
            columns = (0, wide) if side == part.first else (wide, sum(cell.widths))
            piece = Piece(part.held.name, *columns, transposed=not part.held.turned, turned=True)
        found.append(piece)
    return found


def _cut(part: Part, low: int, high: int) -> Piece:
    piece = Piece(part.held.name, transposed=part.held.turned)
    if (low, high) == (part.start, part.stop):
        return piece
    return piece._replace(start=low - part.start, stop=high - part.start)


def _transposed(piece: Piece) -> Piece:
    if piece.start is None:
        return piece._replace(transposed=not piece.transposed)
    return piece._replace(turned=not piece.turned)


def _biases(cell: Cell, wanted: Part) -> list[Piece]:
    """What a bias is made of: what is added to the same rows on its side, or on both where it is the only one."""
    parts = [part for part in cell.biases if part.start < wanted.stop and wanted.start < part.stop]
    ends = sorted(
        {end for part in [wanted, *parts] for end in part[1:3] if wanted.start <= end <= wanted.stop}
    )
    found = []
    for low, high in itertools.pairwise(ends):
        here = {part.sides: _cut(part, low, high) for part in parts if part.start <= low < part.stop}
        own, both = here.get(wanted.sides[:1]), here.get((IN, STATE))
        other = here.get((STATE,))
        if wanted.sides == (IN, STATE) and own is not None and other is not None:
            found.append(own._replace(plus=other))
        elif wanted.sides == (STATE,) and own is None and here:
            found.append(next(iter(here.values()))._replace(none=True))
        elif whole := own or both or other:
            found.append(whole)
        else:
            return []
    return found
