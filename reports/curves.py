"""Line charts as numbers: where each line and tick goes. The template draws them, so that all text is escaped."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

WIDTH, HEIGHT = 560, 300  # of the viewBox; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 48
# Where all charts have their frame and the words around it, in the viewBox.
BOX = {
    "width": WIDTH,
    "height": HEIGHT,
    "left": LEFT,
    "right": WIDTH - RIGHT,
    "beside": LEFT - 6,
    "below": HEIGHT - BOTTOM + 21,
    "foot": HEIGHT - 6,
    "middle": (LEFT + WIDTH - RIGHT) // 2,
}
_TICKS = 5
_DECADES = 2.5  # from so many powers of ten on, ticks stand at these alone
_WORD, _LINE = 24, 11  # a word of four digits, wide and high
_BESIDE = 8  # of a point its word begins
_SAME = 1e-9  # of logarithms
MARKS = ("dots", "rings", "diamonds")
HUES = 8  # as many as the style sheet has colours for lines


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (x, y), joined by a line unless `style` is one of `MARKS`; else it is `solid` or `dashed`.

    `hue` is a number of a colour. `names` say of each point what it is: first in a word beside it, then in full.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    style: str = "solid"
    hue: int = 0
    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Dot:
    """A point by itself: where, a word on its right or `left`, and what it is in full."""

    x: str
    y: str
    word: str = ""
    name: str = ""
    left: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A series in the chart's own coordinates."""

    label: str
    path: str
    dots: tuple[Dot, ...]
    tone: str
    radius: int = 4

    @property
    def hollow(self) -> bool:
        """Whether its points are diamonds."""
        return self.tone.endswith("diamonds")


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: str
    text: str


@dataclass(frozen=True, slots=True)
class LineChart:
    """A chart ready to be drawn."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """Charts of the same series, and the legend of all of them; none where it would only say a title again."""

    charts: tuple[LineChart, ...]
    legend: tuple[Line, ...]

    @property
    def several(self) -> bool:
        """Whether they share it."""
        return len(self.charts) > 1


def panels(charts: Iterable[LineChart]) -> tuple[Panel, ...]:
    """Charts in their order; neighbours that show the same series share a legend."""
    found = []
    for _, group in itertools.groupby(charts, lambda each: [(line.label, line.tone) for line in each.lines]):
        together = tuple(group)
        lines = together[0].lines
        told = len(lines) == 1 and lines[0].label.casefold() == together[0].title.casefold()
        found.append(Panel(together, () if told else lines))
    return tuple(found)


def chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Curve],
    *,
    percent: bool = False,
    powers: bool = False,
    x_powers: bool = False,
) -> LineChart:
    """Lay out a chart. Points that are not finite are left out; axes span the rest.

    Args:
        title: Above it.
        x_label: Below it.
        y_label: Beside the title.
        series: What to draw.
        percent: Whether y is a share, to be written in percent.
        powers: Whether y is laid out by its logarithm; what is not positive is left out.
        x_powers: Likewise x.
    """
    kept = [made for each in series if (made := _laid_out(each, x_powers=x_powers, y_powers=powers)).points]
    xs = [x for each in kept for x, _ in each.points] or [0.0, 1.0]
    ys = [y for each in kept for _, y in each.points] or [0.0, 1.0]
    x_marks = powers_of_ten(min(xs), max(xs)) if x_powers else ticks(min(xs), max(xs), whole=True)
    y_marks = ticks(min(ys), max(ys), whole=powers)
    if percent:
        y_marks = tuple(mark for mark in y_marks if 0 <= mark <= 1)
    x_span, y_span = _span(xs, x_marks), _span(ys, y_marks)

    def across(x: float) -> str:
        return f"{LEFT + (x - x_span[0]) / (x_span[1] - x_span[0]) * (WIDTH - LEFT - RIGHT):.1f}"

    def down(y: float) -> str:
        return f"{HEIGHT - BOTTOM - (y - y_span[0]) / (y_span[1] - y_span[0]) * (HEIGHT - TOP - BOTTOM):.1f}"

    taken: list[tuple[float, float]] = []
    marks = [(float(across(x)), float(down(y))) for each in kept if _marked(each) for x, y in each.points]
    return LineChart(
        title=title,
        x_label=x_label,
        y_label=y_label,
        x_ticks=tuple(Tick(across(x), f"{10**x if x_powers else x:g}") for x in x_marks),
        y_ticks=tuple(
            Tick(down(y), f"{100 * y:g} %" if percent else f"{10**y if powers else y:g}") for y in y_marks
        ),
        lines=tuple(
            Line(
                label=each.label,
                path=" ".join(f"{across(x)},{down(y)}" for x, y in each.points),
                dots=tuple(_dots(each, [(across(x), down(y)) for x, y in each.points], taken, marks))
                if _marked(each)
                else (),
                tone=f"hue{each.hue % HUES} {each.style}",
                radius=6 if each.style == "rings" else 4,
            )
            for each in kept
        ),
    )


def _marked(each: Curve) -> bool:
    """Whether its points are drawn by themselves."""
    return each.style in MARKS or len(each.points) == 1


def _dots(
    each: Curve,
    places: Sequence[tuple[str, str]],
    taken: list[tuple[float, float]],
    marks: Sequence[tuple[float, float]],
) -> Iterator[Dot]:
    """A curve's points, each with its word on the right, or on the left where there is more room.

    A word that would lie on one that is `taken`, or under one of the `marks`, is left to the point's full name.
    """
    for (x, y), (word, name) in zip(places, each.names or [("", "")] * len(places), strict=True):
        for left in (False, True):
            place = float(x) - left * (_WORD + 2 * _BESIDE), float(y)
            if word and _free(place, taken, marks):
                taken.append(place)
                yield Dot(x, y, word, name, left)
                break
        else:
            yield Dot(x, y, "", name)


def _free(
    place: tuple[float, float], taken: Sequence[tuple[float, float]], marks: Sequence[tuple[float, float]]
) -> bool:
    """Whether a word beside a point at `place` can be read there: inside the frame, on no other word or mark."""
    start = place[0] + _BESIDE
    return (
        start + _WORD <= WIDTH
        and start >= LEFT
        and all(abs(place[0] - a) >= _WORD or abs(place[1] - b) >= _LINE for a, b in taken)
        and not any(start - 4 < a < start + _WORD + 4 and -4 < place[1] - b < _LINE + 9 for a, b in marks)
    )


def _laid_out(each: Curve, *, x_powers: bool, y_powers: bool) -> Curve:
    """The points that can be drawn, those on a logarithmic axis by their logarithms."""
    names = each.names or [("", "")] * len(each.points)
    kept = [
        ((math.log10(x) if x_powers else x, math.log10(y) if y_powers else y), name)
        for (x, y), name in zip(each.points, names, strict=True)
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not x_powers) and (y > 0 or not y_powers)
    ]
    points, told = tuple(point for point, _ in kept), tuple(name for _, name in kept) if each.names else ()
    return Curve(each.label, points, each.style, each.hue, told)


def powers_of_ten(low: float, high: float) -> tuple[float, ...]:
    """Logarithms of a few round numbers that span those of which `low` and `high` are the logarithms."""
    if high - low >= _DECADES:
        return ticks(low, high, whole=True)
    each = [
        k + math.log10(factor)
        for k in range(math.floor(low) - 1, math.ceil(high) + 2)
        for factor in (1, 2, 5)
    ]
    first = max(number for number, mark in enumerate(each) if mark <= low + _SAME)
    last = min(number for number, mark in enumerate(each) if mark >= high - _SAME)
    return tuple(each[first : max(last, first + 1) + 1])


def ticks(low: float, high: float, *, whole: bool = False) -> tuple[float, ...]:
    """A few round numbers that span `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        spread = abs(low) / 10 or 1.0
        low, high = low - spread, high + spread
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return tuple(float(f"{k * step:.12g}") for k in range(first, last + 1))


def _span(values: Sequence[float], marks: Sequence[float]) -> tuple[float, float]:
    return min(*values, *marks), max(*values, *marks)
