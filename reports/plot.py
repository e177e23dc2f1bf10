"""Error over depth as a PNG, for places that show no SVG: a pull request, a job's summary, a README."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from reports import wording
from reports.depth import HEIGHT, DepthChart, chart
from reports.signs import ACCEPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from reports.depth import CellErrors, Point
    from verifier.records import Result

_WIDE, _HIGH = 1000, 380
_LEFT, _RIGHT, _ABOVE, _BELOW = 64, 16, 30, 58
_FINER = 2  # drawn so many times as large and then made small: lines get smooth edges

# As in templates/style.css, on a white ground that any page can be put around.
_GROUND, _INK, _FAINT, _LINE = "#ffffff", "#1c1d1f", "#5a5e63", "#dcdcd6"
_WRONG, _ACCEPTED, _AMPLIFIES = "#b0271d", "#7a5200", "#8a4a00"
_CELLS = ("#1c4fa0", "#0a7a6c", "#8a3ab0", "#7a5d00", "#b3326a", "#4d6070")


def png(verification: Result) -> bytes | None:
    """The plot as the bytes of a PNG of 1000 x 380 pixels; None where there is nothing to draw."""
    drawn = chart(wording.shown(verification))
    return None if drawn is None else _Painter(drawn).bytes()


class _Painter:
    def __init__(self, drawn: DepthChart) -> None:
        self.chart = drawn
        self.blame = _ACCEPTED if drawn.blame is ACCEPTED else _WRONG
        self.image = Image.new("RGB", (_WIDE * _FINER, _HIGH * _FINER), _GROUND)
        self.pen = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(12 * _FINER)

    def bytes(self) -> bytes:
        for tick in self.chart.vertical:
            height = self._y(tick.position)
            self.pen.line([self._x(-0.5), height, self._x(self.chart.sites - 0.5), height], _LINE, _FINER)
            self._text((_LEFT - 8, height / _FINER), tick.label, "rm")
        for tick in self.chart.horizontal:
            self._text((self._x(tick.position - 0.5) / _FINER, _HIGH - _BELOW + 6), tick.label, "la")
        # What is in focus lies on top of everything else.
        for one in sorted(self.chart.series, key=lambda each: each.focus):
            self._series(one)
        for flag in self.chart.flags:
            self._text((self._x(flag.position) / _FINER, _ABOVE - 8), flag.number, "ms", self.blame)
        self._legend()
        stream = io.BytesIO()
        small = self.image.resize((_WIDE, _HIGH), Image.Resampling.LANCZOS)
        small.save(stream, "PNG")
        return stream.getvalue()

    def _x(self, site: float) -> float:
        return (_LEFT + (site + 0.5) / self.chart.sites * (_WIDE - _LEFT - _RIGHT)) * _FINER

    def _y(self, height: float) -> float:
        return (_ABOVE + height / HEIGHT * (_HIGH - _ABOVE - _BELOW)) * _FINER

    def _points(self, points: Iterable[Point]) -> list[tuple[float, float]]:
        return [(self._x(x), self._y(y)) for x, y in points]

    def _text(self, at: tuple[float, float], text: str, anchor: str, colour: str = _FAINT) -> None:
        self.pen.text((at[0] * _FINER, at[1] * _FINER), text, colour, self.font, anchor)

    def _series(self, one: CellErrors) -> None:
        colour = _CELLS[min(one.number, len(_CELLS) - 1)]
        if one.focus:
            if one.budget:
                (first, _), (last, _), foot = one.budget[0], one.budget[-1], self._y(HEIGHT)
                ends = (self._x(last + 0.5), foot), (self._x(first - 0.5), foot)
                self.pen.polygon([*self._points(one.budget), *ends], _tint(colour, 0.1))
            for x, _ in one.culprits:
                self.pen.line(
                    [self._x(x), self._y(0), self._x(x), self._y(HEIGHT)], _tint(self.blame, 0.4), _FINER
                )
            self._dots(one.intrinsic, _tint(colour, 0.6), 1.3)
        if len(one.total) > 1:
            self.pen.line(
                self._points(one.total), colour if one.focus else _tint(colour, 0.6), 2 * _FINER, "curve"
            )
        else:
            self._dots(one.total, colour, 1)
        if one.focus:
            self._dots(one.amplifies, _AMPLIFIES, 3, square=True)
            self._dots(one.culprits, self.blame, 4.5)

    def _dots(self, points: Sequence[Point], colour: str, radius: float, *, square: bool = False) -> None:
        draw = self.pen.rectangle if square else self.pen.ellipse
        reach = radius * _FINER
        for x, y in self._points(points):
            draw([x - reach, y - reach, x + reach, y + reach], colour)

    def _legend(self) -> None:
        left, height = float(_LEFT), _HIGH - 16
        for one in self.chart.series:
            colour = _CELLS[min(one.number, len(_CELLS) - 1)]
            self.pen.line(
                [left * _FINER, height * _FINER, (left + 18) * _FINER, height * _FINER], colour, 2 * _FINER
            )
            name = one.name[:40]
            self._text((left + 24, height), name, "lm", _INK if one.focus else _FAINT)
            left += 24 + self.pen.textlength(name, self.font) / _FINER + 18
            if left > _WIDE - 300:
                break
        if any(one.culprits for one in self.chart.series if one.focus):
            self.pen.ellipse(
                [(left) * _FINER, (height - 4) * _FINER, (left + 8) * _FINER, (height + 4) * _FINER],
                self.blame,
            )
            self._text((left + 14, height), self.chart.blame.word, "lm")


def _tint(colour: str, strength: float) -> str:
    """The colour mixed with the ground."""
    channels = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(255 - strength * (255 - channel)):02x}" for channel in channels)
