"""Every cause with its culprits, what supports it, how the two sides are written and what the error looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import grouping, sentences, wording
from reports.painting import Picture, bars, picture
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reports.grouping import Group
    from verifier.records import CellResult, Exhibit, Histogram, PairResult, Result

SHOWN = 24  # causes in full; further ones in a sentence each
_NAMED = 3  # sites of a cause that its heading names
WIDTH, HEIGHT = 320, 72  # of a diagram of bars


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One line of how a site is written, on both sides; `differs` marks it."""

    name: str
    baseline: str
    candidate: str
    differs: bool


@dataclass(frozen=True, slots=True)
class Bars:
    """A diagram of bars: path data, what the axes say, and a sentence for those who do not see it."""

    title: str
    path: str
    left: str
    right: str
    alt: str
    note: str


@dataclass(frozen=True, slots=True)
class SiteLine:
    """One of several sites of one cause: its figures, its lines in the source, and what is told of it alone."""

    name: str
    error: str
    mse: str
    correlation: str
    source: str
    told: str
    row: int | None


@dataclass(frozen=True, slots=True)
class Culprit:
    """A cause as the page shows it, at one site or at several; figures and pictures are of one, which `of` names."""

    anchor: str
    number: str
    name: str
    op: str
    cause: str
    code: str
    sure: str
    confirmed: bool
    remedy: str
    of: str
    sites: tuple[SiteLine, ...]
    listed: str
    source: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, str], ...]
    evidence: tuple[str, ...]
    pattern: tuple[str, ...]
    settings: tuple[SettingRow, ...]
    pictures: tuple[Picture, ...]
    pictured: str
    channels: Bars | None
    histogram: Bars | None
    row: int | None


def culprits(verification: Result) -> tuple[Culprit, ...]:
    """The causes of the deciding cell's culprits, those shown in full."""
    decides = sentences.deciding_cell(verification)
    # Of what a policy accepts the culprits are another cell's than the one that decides.
    cell = next((each for each in verification.cells if each.culprits == verification.culprits), decides)
    positions = {row.index: k for k, row in enumerate(decides.layers)} if decides else {}
    return tuple(
        _culprit(verification, group, number, cell, positions)
        for number, group in enumerate(grouping.groups(verification)[:SHOWN], 1)
    )


def _culprit(
    verification: Result,
    group: Group,
    number: int,
    cell: CellResult | None,
    positions: Mapping[int, int],
) -> Culprit:
    exhibits = {each.index: each for each in cell.exhibits} if cell else {}
    pair = next((row for row in group.rows if row.index in exhibits), group.first)
    exhibit, cause = exhibits.get(pair.index), pair.cause
    return Culprit(
        anchor=f"culprit-{number}",
        number=str(number),
        name=group.where,
        op=grouping.names(group, _NAMED) if group.many else pair.op,
        cause=group.what,
        code=", ".join(group.codes),
        sure="" if cause is None else "confirmed" if group.confirmed else "not confirmed",
        confirmed=group.confirmed,
        remedy="" if verification.verdict.passed else grouping.remedy(group),
        of=sentences.site(pair) if group.many else "",
        sites=tuple(_line(row, pair, positions.get(row.index)) for row in group.rows) if group.many else (),
        listed=f"All {wording.counted(len(group.rows), 'site')}",
        source=sentences.located(verification, pair, *group.rows),
        figures=(*_figures(pair), *_worst(group)),
        evidence=cause.evidence if cause else (),
        pattern=exhibit.pattern if exhibit else (),
        settings=_settings(pair, exhibit, verification.weights.parameter_map, extra=_is_extra(pair, cell)),
        pictures=_pictures(exhibit) if exhibit else (),
        pictured=_pictured(exhibit, pair, cell) if exhibit else "",
        channels=_channels(exhibit) if exhibit else None,
        histogram=_histogram(exhibit.histogram) if exhibit and exhibit.histogram else None,
        row=positions.get(pair.index),
    )


def _line(row: PairResult, shown: PairResult, position: int | None) -> SiteLine:
    cause, common = row.cause, shown.cause
    measured = row.intrinsic or row.total
    return SiteLine(
        name=sentences.site(row),
        error=wording.figure(sentences.error(measured, sentences.metric_of(row)) if measured else None),
        mse=wording.figure(measured.mse if measured else None),
        correlation=wording.figure(measured.one_minus_pearson if measured else None),
        source=sentences.place(row.candidate_source) if row.candidate_source else "",
        told=cause.summary if cause and (common is None or cause.summary != common.summary) else "",
        row=position,
    )


def _figures(pair: PairResult) -> Iterable[tuple[str, str]]:
    """The numbers that make it a culprit, and what running its call again has given."""
    metric = sentences.metric_of(pair)
    word = sentences.METRICS.get(metric, metric)
    budget = pair.budget
    # What stands in one model alone has no error: that is of the site behind it, and run again was that one.
    lonely = pair.status is Status.UNMATCHED
    behind = ", behind it" if lonely else ""
    if pair.candidate_shape is not None:
        yield (
            "shape",
            f"{wording.dimensions(pair.candidate_shape)}, the baseline's {wording.dimensions(pair.shape)}",
        )
    else:
        yield "shape", wording.dimensions(pair.shape)
    if pair.intrinsic is not None:
        yield (
            f"intrinsic: {word} on identical inputs{behind}",
            wording.figure(sentences.error(pair.intrinsic, metric)),
        )
    if budget is not None:
        yield "allowed", f"{wording.figure(budget.intrinsic)}, rule {budget.rule}"
    if pair.total is not None:
        yield f"total: {word} in the whole model{behind}", wording.figure(sentences.error(pair.total, metric))
    yield from _agreement(pair)
    shown = pair.intrinsic or pair.total
    if shown is not None and shown.interval is not None:
        low, high = shown.interval.nrmse
        yield "estimated from a recording, 95 % interval", f"{wording.figure(low)} to {wording.figure(high)}"
    if shown is not None and shown.max_abs_index is not None:
        yield "largest absolute difference", f"{wording.figure(shown.max_abs)} at {shown.max_abs_index}"
    if shown is not None and shown.nonfinite_mismatched:
        yield "not finite in one model only", wording.counted(shown.nonfinite_mismatched, "value")
    if pair.replayed is not None and not lonely:
        yield "run again on the baseline's inputs", wording.figure(sentences.error(pair.replayed, metric))
    if pair.accuracy is not None:
        for kind, words in (
            ("intrinsic", "this step's distance from float64"),
            ("total", "distance from float64"),
        ):
            c = getattr(pair.accuracy, f"candidate_{kind}")
            b = getattr(pair.accuracy, f"baseline_{kind}")
            if c is not None and b is not None:
                yield words, f"{wording.figure(c)}, the baseline's {wording.figure(b)}"


def _worst(group: Group) -> Iterable[tuple[str, str]]:
    """Of several sites the one that is farthest off."""
    row = group.worst
    if group.many and row.intrinsic is not None:
        error = sentences.error(row.intrinsic, sentences.metric_of(row))
        yield (
            f"largest of all {len(group.rows):,} sites",
            f"{wording.figure(error)}, MSE {wording.figure(row.intrinsic.mse)}, at {sentences.name(row)}",
        )


def _agreement(pair: PairResult) -> Iterable[tuple[str, str]]:
    """The figures that everybody asks for: mean squared error and correlation, alone and in the whole model."""
    for comparison, where in ((pair.intrinsic, "on identical inputs"), (pair.total, "in the whole model")):
        if comparison is not None:
            yield f"MSE {where}", wording.figure(comparison.mse)
            yield f"Pearson's r {where}", sentences.correlation(comparison)


def _is_extra(pair: PairResult, cell: CellResult | None) -> bool:
    """Whether a culprit is what the candidate alone has: it then stands at the row of the site behind it."""
    at = next((row for row in (cell.layers if cell else ()) if row.index == pair.index), pair)
    return pair.status is Status.UNMATCHED and at.status is not Status.UNMATCHED


def _settings(
    pair: PairResult,
    exhibit: Exhibit | None,
    mapping: Mapping[str, str | tuple[str, ...]],
    *,
    extra: bool,
) -> tuple[SettingRow, ...]:
    # The baseline's site behind what is extra is written in another way since it is another operator.
    b: Mapping[str, str] = exhibit.baseline_settings if exhibit and not extra else {}
    c: Mapping[str, str] = exhibit.candidate_settings if exhibit else {}
    names = [*b, *(name for name in c if name not in b)]
    lines = [
        SettingRow(
            name, b.get(name, "-"), c.get(name, "-"), differs=not _alike(b.get(name), c.get(name), mapping)
        )
        for name in names
    ]
    if lines or not pair.differences:
        return tuple(lines)
    # Results of before the settings were recorded know at least what differs.
    found = []
    for each in pair.differences:  # "eps 0.001, baseline 1e-05"
        left, _, baseline = each.partition(", baseline ")
        name, _, candidate = left.partition(" ")
        found.append(SettingRow(name, baseline or "-", candidate or "-", differs=True))
    return tuple(found)


def _alike(baseline: str | None, candidate: str | None, mapping: Mapping[str, str | tuple[str, ...]]) -> bool:
    """Whether a setting is the same on both sides; a weight is if it is made of the baseline's, whatever its name."""
    if baseline is None or candidate is None:
        return False
    (b_name, _, b_shape), (c_name, _, c_shape) = baseline.partition(", "), candidate.partition(", ")
    return baseline == candidate or (b_shape == c_shape and mapping.get(c_name) == b_name)


def _pictured(exhibit: Exhibit, pair: PairResult, cell: CellResult | None) -> str:
    """What the pictures are of."""
    if exhibit.channel is None or exhibit.sample is None:
        return ""
    where = "" if exhibit.site in (pair.baseline, pair.candidate) else f" at {exhibit.site}"
    inside = f" in {cell.name}" if cell else ""
    return f"On the baseline's inputs{inside}{where}: channel {exhibit.channel} of sample {exhibit.sample}, the worst"


def _pictures(exhibit: Exhibit) -> tuple[Picture, ...]:
    found = (
        picture(exhibit.baseline, "baseline"),
        picture(exhibit.candidate, "candidate"),
        picture(exhibit.difference, "candidate minus baseline", diverging=True),
    )
    return tuple(each for each in found if each is not None)


def _channels(exhibit: Exhibit) -> Bars | None:
    heights = [0.0 if math.isnan(each) else each for each in exhibit.channels]
    finite = [each for each in heights if each < math.inf]
    largest = max(finite, default=0.0)
    if not heights or (largest <= 0 and len(finite) == len(heights)):
        return None
    shares = [1.0 if each == math.inf else each / largest if largest > 0 else 0.0 for each in heights]
    many = exhibit.channels_each > 1
    note = f"up to {wording.figure(largest)}" + (
        f", a bar for {exhibit.channels_each} channels" if many else ""
    )
    last = len(heights) * max(1, exhibit.channels_each) - 1
    worst = "" if exhibit.channel is None else f", the largest at channel {exhibit.channel}"
    return Bars(
        title="error of each channel",
        path=bars(shares, WIDTH, HEIGHT),
        left="0",
        right=str(last),
        alt=f"Error of each channel, up to {wording.figure(largest)}{worst}",
        note=note,
    )


def _histogram(histogram: Histogram) -> Bars | None:
    counts = [max(0, each) for each in histogram.counts]
    most = max(counts, default=0)
    if not most:
        return None
    notes = [
        f"{histogram.equal:,} equal" if histogram.equal else "",
        f"{histogram.nonfinite:,} not finite" if histogram.nonfinite else "",
    ]
    low, high = wording.figure(histogram.low), wording.figure(histogram.high)
    return Bars(
        title="differences, candidate minus baseline",
        path=bars([math.log1p(each) / math.log1p(most) for each in counts], WIDTH, HEIGHT),
        left=low,
        right=high,
        alt=f"Histogram of {sum(counts):,} differences from {low} to {high}, at most {most:,} in a bin",
        note=", ".join([f"log counts up to {most:,}", *(each for each in notes if each)]),
    )
