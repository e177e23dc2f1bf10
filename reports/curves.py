"""Line charts as numbers: where each line and tick goes. The template draws them, so that all text is escaped."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
HUES = 8  # as many as the style sheet has colours for lines


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (x, y), joined by a line unless `style` is `dots` or `rings`; else it is `solid` or `dashed`.

    `hue` is a number of a colour.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    style: str = "solid"
    hue: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A series in the chart's own coordinates."""

    label: str
    path: str
    dots: tuple[tuple[str, str], ...]
    tone: str
    radius: int = 4


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
) -> LineChart:
    """Lay out a chart. Points that are not finite are left out; axes span the rest.

    Args:
        title: Above it.
        x_label: Below it.
        y_label: Beside the title.
        series: What to draw.
        percent: Whether y is a share, to be written in percent.
        powers: Whether y is laid out by its logarithm; what is not positive is left out.
    """
    if powers:
        series = [
            Curve(
                each.label, tuple((x, math.log10(y)) for x, y in each.points if y > 0), each.style, each.hue
            )
            for each in series
        ]
    kept = [
        Curve(each.label, points, each.style, each.hue)
        for each in series
        if (points := tuple(p for p in each.points if math.isfinite(p[0]) and math.isfinite(p[1])))
    ]
    xs = [x for each in kept for x, _ in each.points] or [0.0, 1.0]
    ys = [y for each in kept for _, y in each.points] or [0.0, 1.0]
    x_marks, y_marks = ticks(min(xs), max(xs), whole=True), ticks(min(ys), max(ys), whole=powers)
    if percent:
        y_marks = tuple(mark for mark in y_marks if 0 <= mark <= 1)
    x_span, y_span = _span(xs, x_marks), _span(ys, y_marks)

    def across(x: float) -> str:
        return f"{LEFT + (x - x_span[0]) / (x_span[1] - x_span[0]) * (WIDTH - LEFT - RIGHT):.1f}"

    def down(y: float) -> str:
        return f"{HEIGHT - BOTTOM - (y - y_span[0]) / (y_span[1] - y_span[0]) * (HEIGHT - TOP - BOTTOM):.1f}"

    return LineChart(
        title=title,
        x_label=x_label,
        y_label=y_label,
        x_ticks=tuple(Tick(across(x), f"{x:g}") for x in x_marks),
        y_ticks=tuple(
            Tick(down(y), f"{100 * y:g} %" if percent else f"{10**y if powers else y:g}") for y in y_marks
        ),
        lines=tuple(
            Line(
                label=each.label,
                path=" ".join(f"{across(x)},{down(y)}" for x, y in each.points),
                dots=tuple((across(x), down(y)) for x, y in each.points)
                if each.style in ("dots", "rings") or len(each.points) == 1
                else (),
                tone=f"hue{each.hue % HUES} {each.style}",
                radius=6 if each.style == "rings" else 4,
            )
            for each in kept
        ),
    )


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
