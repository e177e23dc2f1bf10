"""Error over depth as lines in a plane: one unit across for each site, `HEIGHT` down, logarithmic, 0 at its foot.

The geometry is computed here once and drawn twice: as SVG on the page and as a picture beside the summary.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reports import grouping, sentences, signs, wording
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reports.signs import Mark
    from verifier.records import CellResult, PairResult, Result

HEIGHT = 1000
_TOP, _FOOT = 60, 940  # where the largest and the smallest power of ten lie
_BROKEN, _ZERO = 16, 980  # and what is no finite number, and what is 0
_SMALLEST, _LARGEST = -24, 38  # powers of ten beyond which nothing is told apart
_TICKS = 7
_LABELS = 8
_CHARACTERS = 46  # beside one another on the narrowest page
_LONGEST = 20
_FLAGS = 22  # numbers of culprits beside one another, on the narrowest page

Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gridline:
    """A line across the plot at `position` (of `HEIGHT`, or of the sites), with a label."""

    position: float
    percent: str
    label: str


@dataclass(frozen=True, slots=True)
class CellErrors:
    """What is drawn of one cell.

    `total`, `budget` and `intrinsic` have a point for each site where there is one: sites without a partner leave
    none, and a line goes on behind them. `culprits` and `amplifies` are points of the total error where a site has
    that status, or of the line beside it where it has none.
    """

    name: str
    number: int
    total: tuple[Point, ...]
    budget: tuple[Point, ...]
    intrinsic: tuple[Point, ...]
    culprits: tuple[Point, ...]
    amplifies: tuple[Point, ...]
    focus: bool

    @property
    def total_path(self) -> str:
        """The lines of the total error, as SVG path data."""
        return _line(self.total)

    @property
    def budget_path(self) -> str:
        """The area below what is allowed."""
        return _area(self.budget)

    @property
    def intrinsic_path(self) -> str:
        """A dot each."""
        return _dots(self.intrinsic)

    @property
    def culprits_path(self) -> str:
        """A dot each."""
        return _dots(self.culprits)

    @property
    def culprit_lines(self) -> str:
        """A line from top to foot each."""
        return "".join(f"M{x} 0V{HEIGHT}" for x, _ in self.culprits)

    @property
    def amplifies_path(self) -> str:
        """A dot each."""
        return _dots(self.amplifies)


@dataclass(frozen=True, slots=True)
class CulpritFlag:
    """The number of a culprit above the plot: that of its cause, and where."""

    number: str
    position: int
    percent: str
    name: str


@dataclass(frozen=True, slots=True)
class Key:
    """What a sign in the plot means: its class, its path, and the words."""

    tone: str
    path: str
    word: str


@dataclass(frozen=True, slots=True)
class DepthChart:
    """The whole plot; `sites` are as many as the longest cell has, `blame` says what its culprits are."""

    sites: int
    blame: Mark
    series: tuple[CellErrors, ...]
    vertical: tuple[Gridline, ...]
    horizontal: tuple[Gridline, ...]
    flags: tuple[CulpritFlag, ...]
    sentence: str

    @property
    def keys(self) -> tuple[Key, ...]:
        """The legend: of signs that not every plot has only those that are there."""
        blamed = self.blame.word
        if self.flags:
            own = {flag.position for flag in self.flags}
            each = all(x in own for one in self.series if one.focus for x, _ in one.culprits)
            blamed += ", numbered above" if each else ", its cause numbered above or to the left"
        return (
            Key("k-line", "M0 5H24", "total error"),
            *([Key("k-own", "M4 5h0M12 5h0M20 5h0", "intrinsic error")] if self._has("intrinsic") else []),
            Key("k-band", "M0 0H24V10H0z", "allowed in total"),
            *([Key("k-wrong", "M12 5h0", blamed)] if self._has("culprits") else []),
            *([Key("k-more", "M12 5h0", "amplifies what came in")] if self._has("amplifies") else []),
        )

    def _has(self, name: str) -> bool:
        return any(getattr(each, name) for each in self.series)


def chart(verification: Result) -> DepthChart | None:
    """The plot of a verification, or None where no cell has rows, or none of pairs."""
    cells = [cell for cell in verification.cells if cell.layers]
    if not cells or grouping.nothing_in_common(verification):
        return None
    deciding = sentences.deciding_cell(verification)
    focus = deciding if deciding in cells else cells[0]
    scale, vertical = _scale(cells)
    sites = max(len(cell.layers) for cell in cells)
    numbers = {id(cell): k for k, cell in enumerate(verification.cells)}
    return DepthChart(
        sites=sites,
        blame=signs.of_status(Status.CULPRIT, verification),
        series=tuple(_series(cell, numbers[id(cell)], scale, focus=cell is focus) for cell in cells),
        vertical=vertical,
        horizontal=_places(max(cells, key=lambda cell: len(cell.layers)).layers),
        flags=_flags(verification, focus, sites),
        sentence=_sentence(focus, verification),
    )


def _scale(cells: Sequence[CellResult]) -> tuple[Callable[[float], int], tuple[Gridline, ...]]:
    """From an error to its height, and the lines across."""
    known = [
        value
        for cell in cells
        for row in cell.layers
        for value in (_total(row), _intrinsic(row), row.budget.total if row.budget else None)
        if value is not None
    ]
    seen = [math.log10(value) for value in known if 0 < value < math.inf]
    low = min(_LARGEST - 1, max(_SMALLEST, math.floor(min(seen, default=-16))))
    high = max(low + 1, min(_LARGEST, math.ceil(max(seen, default=0))))

    def height(value: float) -> int:
        if math.isnan(value) or value == math.inf:
            return _BROKEN
        if value <= 0:
            return _ZERO
        share = (math.log10(value) - low) / (high - low)
        return round(_FOOT - min(1.0, max(0.0, share)) * (_FOOT - _TOP))

    step = max(1, math.ceil((high - low) / _TICKS))
    powers = [
        Gridline(height(10.0**power), _percent(height(10.0**power), HEIGHT), f"1e{power:+03d}")
        for power in range(high, low - 1, -step)
    ]
    ends = [Gridline(_ZERO, _percent(_ZERO, HEIGHT), "0")]
    if not all(map(math.isfinite, known)):
        ends.insert(0, Gridline(_BROKEN, _percent(_BROKEN, HEIGHT), "nan, inf"))
    return height, (*powers, *ends)


def _series(cell: CellResult, number: int, height: Callable[[float], int], *, focus: bool) -> CellErrors:
    def points(read: Callable[[PairResult], float | None]) -> list[Point | None]:
        return [
            None if value is None else (x, height(value)) for x, value in enumerate(map(read, cell.layers))
        ]

    total = points(_total)
    intrinsic = points(_intrinsic)

    def of(status: Status) -> tuple[Point, ...]:
        return tuple(
            total[x] or intrinsic[x] or (x, _BROKEN)
            for x, row in enumerate(cell.layers)
            if row.status is status
        )

    own = {row.index for row in cell.culprits}
    culprits = tuple(
        total[x] or intrinsic[x] or _on_the_line(total, x)
        for x, row in enumerate(cell.layers)
        if row.status is Status.CULPRIT or row.index in own
    )
    return CellErrors(
        name=cell.name,
        number=number,
        total=_known(total),
        budget=_known(points(lambda row: row.budget.total if row.budget else None)),
        intrinsic=_known(intrinsic),
        culprits=culprits,
        amplifies=of(Status.AMPLIFIES),
        focus=focus,
    )


def _on_the_line(points: Sequence[Point | None], x: int) -> Point:
    """Where what has no error of its own is marked: as high as what follows, or else what stands before it."""
    near = next((point for point in (*points[x:], *reversed(points[:x])) if point is not None), (x, _BROKEN))
    return x, near[1]


def _total(row: PairResult) -> float | None:
    return sentences.error(row.total, sentences.metric_of(row)) if row.total else None


def _intrinsic(row: PairResult) -> float | None:
    return sentences.error(row.intrinsic, sentences.metric_of(row)) if row.intrinsic else None


def _known(points: Sequence[Point | None]) -> tuple[Point, ...]:
    return tuple(point for point in points if point is not None)


def _line(run: Sequence[Point]) -> str:
    """Path data in steps from one point to the next: short, as most steps are."""
    if not run:
        return ""
    first = f"M{run[0][0]} {run[0][1]}"
    if len(run) == 1:
        return f"{first}h0"
    steps = " ".join(
        f"{x - before_x} {y - before_y}" for (before_x, before_y), (x, y) in itertools.pairwise(run)
    )
    return f"{first}l{steps.replace(' -', '-')}"


def _area(run: Sequence[Point]) -> str:
    """The area below steps, one as wide as a site around each point, told where the height changes."""
    if not run:
        return ""
    steps = [f"H{x - 0.5:g}V{y}" for (_, before), (x, y) in itertools.pairwise(run) if y != before]
    return f"M{run[0][0] - 0.5:g} {HEIGHT}V{run[0][1]}{''.join(steps)}H{run[-1][0] + 0.5:g}V{HEIGHT}z"


def _dots(points: Sequence[Point]) -> str:
    return "".join(f"M{x} {y}h0" for x, y in points)


def _places(rows: Sequence[PairResult]) -> tuple[Gridline, ...]:
    """Where the outermost modules begin, as far as there is room for their names."""
    found: list[tuple[int, str]] = []
    previous = None
    for x, row in enumerate(rows):
        name = row.baseline
        if name is None:
            continue
        top = name.split(".")[0]
        if top != previous:
            found.append((x, top))
            previous = top
    if not found:
        return ()
    sites = len(rows)

    def ends(x: int, name: str) -> float:
        return x + sites * max(1 / _LABELS, (len(name) + 1) / _CHARACTERS)

    kept: list[tuple[int, str]] = []
    # The long ones are worth a name before the short ones.
    lengths = {
        x: (following - x)
        for (x, _), (following, _) in zip(found, [*found[1:], (len(rows), "")], strict=True)
    }
    for x, top in sorted(found, key=lambda each: (-lengths[each[0]], each[0])):
        name = top[:_LONGEST]
        apart = all(x >= ends(*other) or ends(x, name) <= other[0] for other in kept)
        if apart and x + sites * len(name) / _CHARACTERS <= sites:
            kept.append((x, name))
    return tuple(Gridline(x, _percent(x, sites), name) for x, name in sorted(kept))


def _flags(verification: Result, focus: CellResult, sites: int) -> tuple[CulpritFlag, ...]:
    """Numbers of the causes at their culprits; those that would lie on one another share a flag."""
    position = {row.index: x for x, row in enumerate(focus.layers)}
    placed = sorted(
        (position[row.index], number, sentences.name(row))
        for number, group in enumerate(grouping.groups(verification), 1)
        for row in group.rows
        if position.get(row.index, sites) < sites
    )
    flags: list[CulpritFlag] = []
    shared: list[int] = []
    for x, number, name in placed:
        if flags and abs(x - flags[-1].position) * _FLAGS < sites:
            shared.append(number)
            flags[-1] = replace(flags[-1], number=_range(shared))
            continue
        shared = [number]
        flags.append(CulpritFlag(str(number), x, _percent(x + 0.5, sites), name))
    # Of a run of one number the first says it.
    return tuple(flag for k, flag in enumerate(flags) if not k or flag.number != flags[k - 1].number)


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"  # noqa: RUF001 - from, to


def _sentence(cell: CellResult, verification: Result) -> str:
    """What the plot shows, for those who do not see it."""
    largest = next(iter(sentences.worst(cell.layers, 1)), None)
    said = f"Total error of {wording.counted(len(cell.layers), 'site')} in {cell.name}"
    if largest is None:
        return f"{said}: none anywhere"
    culprits = sentences.culprits(len(cell.culprits), verification)
    error = wording.figure(sentences.error(largest.total))
    return f"{said}: at most {error}, at {sentences.name(largest)}; {culprits}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / max(1, whole):.2f}%"
