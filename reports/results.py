"""Accuracy over size, time and depth, families apart, beside what is published."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.curves import Curve, LineChart, chart

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verifier.training.records import Experiment

_STYLES = {"candidate": "dots", "baseline": "rings", "published": "diamonds"}
_WIDE = 10  # times the least is the most on an axis of depths that is laid out by powers of ten
_UNNAMED = "other networks"


@dataclass(frozen=True, slots=True)
class _Spot:
    """A network as measured or published: millions of parameters, minutes of training, accuracy in 0..1."""

    name: str
    family: str
    whose: str
    depth: int | None
    parameters: float
    minutes: float | None
    accuracy: float
    source: str = ""

    @property
    def names(self) -> tuple[str, str]:
        """Beside its mark, where that is not another's, too, and in full."""
        word = "" if self.whose == "baseline" else str(self.depth or self.name)
        return word, f"{self.name}, {self.source or self.whose}: {self.accuracy:.2%}"


def charts(found: Experiment) -> Iterator[LineChart]:
    """Accuracy by size, by time and by depth; each where something measured has others to stand beside."""
    spots = [*_measured(found), *_published(found)]
    depths = [each.depth for each in spots if each.depth is not None]
    wide = bool(depths) and max(depths) >= _WIDE * min(depths)
    yield from _chart(spots, "Accuracy by size", "parameters, millions", "parameters", powers=True)
    yield from _chart(spots, "Accuracy by time", "minutes of training", "minutes", powers=True)
    yield from _chart(spots, "Accuracy by depth", "layers with weights", "depth", powers=wide)


def _chart(
    spots: Iterable[_Spot], title: str, x_label: str, measure: str, *, powers: bool
) -> Iterator[LineChart]:
    placed = [each for each in spots if getattr(each, measure) is not None]
    if len({each.name for each in placed}) < 2 or all(each.whose == "published" for each in placed):
        return
    # Colours do not depend on what else was trained where all families are published ones.
    families = sorted({each.family for each in placed})
    series = []
    for hue, family in enumerate(families):
        for whose, style in _STYLES.items():
            own = [each for each in placed if (each.family, each.whose) == (family, whose)]
            own.sort(key=lambda each: float(getattr(each, measure)))
            points = tuple((float(getattr(each, measure)), each.accuracy) for each in own)
            series.append(Curve(f"{family}, {whose}", points, style, hue, tuple(each.names for each in own)))
    yield chart(title, x_label, "test images told rightly", series, percent=True, x_powers=powers)


def _measured(found: Experiment) -> Iterator[_Spot]:
    for each in found.learners:
        seconds = math.fsum(epoch.seconds for epoch in each.epochs)
        yield _Spot(
            name=each.name,
            family=each.family or _UNNAMED,
            whose=each.role,
            depth=each.depth,
            parameters=each.parameters / 1e6,
            minutes=seconds / 60 if seconds > 0 else None,
            accuracy=each.accuracy,
        )


def _published(found: Experiment) -> Iterator[_Spot]:
    for each in found.references:
        yield _Spot(
            name=each.name,
            family=each.family,
            whose="published",
            depth=each.depth,
            parameters=each.parameters / 1e6,
            minutes=each.minutes,
            accuracy=each.accuracy,
            source=each.source,
        )
