"""A history as text and as a page: runs, what changed between them, and the errors of sites over runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import grouping, wording
from reports.curves import Curve, LineChart, Panel, chart, panels
from reports.headline import headline
from reports.sections import Section, lines, text
from reports.wording import counted, figure
from verifier.records import History, Status, Verdict, brief, tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from verifier.records import (
        Bisection,
        Change,
        Point,
        RecordedRun,
        Result,
        SiteLine,
        Timeline,
        Trial,
    )

_CAUSE, _NAME = 60, 40  # characters of a cause and of a name in a table
_CHANGES = 10  # runs with changes shown of a network; the page shows all
_RUN_HEADER = ("run", "when (UTC)", "commit", "verdict", "network", "first divergence", "cause")
_POINT_HEADER = ("run", "when (UTC)", "commit", "verdict", "total", "intrinsic", "allowed", "status", "")


@dataclass(frozen=True, slots=True)
class NetworkHistory:
    """What the page shows of one network."""

    title: str
    ground: str
    changes: tuple[str, ...]
    panels: tuple[Panel, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the page prints."""

    title: str
    headline: str
    tone: str
    file: str
    networks: tuple[NetworkHistory, ...]
    runs: Section


def plain(history: History, *, sites: bool, most: int | None = None) -> str:
    """The history as text, with a table a site where sites were asked for; it ends with a line break.

    Of the runs listed there are at most the last `most`.
    """
    history = wording.shown(history)
    listed = history.listed[-most:] if most else history.listed
    title = (
        "Runs" if listed == history.listed else f"Runs, the last {len(listed):,} of {len(history.listed):,}"
    )
    history = History(
        **{name: getattr(history, name) for name in History.__struct_fields__} | {"listed": listed}
    )
    sections = [] if sites else [_runs(history, title)]
    for timeline in history.timelines:
        title = f"{_network(history, timeline.runs[-1])}: {'what changed' if _told(timeline) else 'nothing changed'}"
        told = _told(timeline)
        sections.append(Section(title, lines(_latest(told) or (counted(len(timeline.runs), "run"),))))
        if sites:
            sections += _tables(history, timeline)
    if sites and history.timelines and not any(timeline.lines for timeline in history.timelines):
        sections.append(Section("Sites", lines(("no site of these runs is as asked for",))))
    return text(_headline(history), [section for section in sections if section.rows])


def page(history: History) -> Page:
    """The page of a history."""
    history = wording.shown(history)
    return Page(
        title=_headline(history),
        headline=_headline(history, file=False),
        tone=_tone(history),
        file=history.file,
        networks=tuple(
            NetworkHistory(
                title=_network(history, timeline.runs[-1]),
                ground=_ground(timeline.runs[-1]),
                changes=tuple(_told(timeline)),
                panels=panels(_charts(timeline)),
                sections=tuple(_tables(history, timeline)),
            )
            for timeline in history.timelines
        ),
        runs=_runs(history),
    )


def bisected(found: Bisection, result: Result | None) -> str:
    """How a bisection ended, as text: the commit, its subject, the site and the cause."""
    found = wording.shown(found)
    skipped = sum(trial.verdict == "skipped" for trial in found.trials)
    tried = f"{counted(len(found.trials), 'run')}{f', {skipped:,} skipped' if skipped else ''}"
    span = f"{counted(found.between, 'commit')} after {found.good[:12]} up to {found.bad[:12]}"
    told = [
        f"{commit[:12]} {subject}".rstrip()
        for commit, subject in zip(found.commits, found.subjects, strict=True)
    ]
    if len(told) > 1:
        head = f"the first bad commit is one of {len(told):,}: the others cannot be told from it, as they did not run"
        why = [
            f"{trial.commit[:12]} {brief(trial.subject, _CAUSE)}: {trial.said}"
            for trial in found.trials
            if trial.verdict is Verdict.SKIPPED
        ]
        return text(
            head,
            [
                Section("Candidates, oldest first", lines(told)),
                Section("Tried", lines((f"{span}: {tried}",))),
                Section("Why commits were skipped", lines(why)),
                Section("Next", lines(_NEXT)),
            ],
        )
    rows = [
        ("by", f"{found.author}, {found.date}"),
        ("in", ", ".join(found.changed[:5]) or "no file"),
        ("tried", f"{span}: {tried}"),
    ]
    sections = [Section("Commit", tuple(rows))]
    if result is not None:
        result = wording.shown(result)
        culprits = [grouping.sentence(group) for group in grouping.groups(result)[:3]]
        sections.append(Section("Verdict there", lines((headline(result),))))
        sections.append(Section("Site and cause", lines(culprits)))
    return text(f"first bad commit: {told[0]}", [section for section in sections if section.rows])


_NEXT = (
    "check one of them out and run the same command there to see all it says",
    "mend what keeps them from running, if it lies outside of the commits (a package, an untracked file), and repeat",
    "or give other ends, between which commits run",
)


def trial(found: Trial) -> str:
    """What one step of a bisection found, in one line."""
    found = wording.shown(found)
    why = f": {brief(found.said.removeprefix(f'{found.verdict}: '))}" if found.said else ""
    return f"{found.commit[:12]} {brief(found.subject, _CAUSE)}: {found.verdict}{why}"


def _headline(history: History, *, file: bool = True) -> str:
    """How many runs there are, and of how many networks something changed."""
    runs = sum(len(timeline.runs) for timeline in history.timelines)
    if not runs:
        return f"no run in {history.file} is as asked for"
    networks = len({timeline.runs[-1].network for timeline in history.timelines})
    series = len(history.timelines)
    told = counted(networks, "network") + (f" in {series:,} series" if series > networks else "")
    where = f"{counted(runs, 'run')} of {told}{f' in {history.file}' if file else ''}, {_order(history)}"
    changed = [timeline for timeline in history.timelines if _told(timeline)]
    noun = f"{len(changed):,} of them" if series > networks else counted(len(changed), "network")
    said = f"{noun} changed" if changed else "nothing changed"
    shown = len(history.listed)
    if shown < runs:
        are = "is" if shown == 1 else "are"
        said = f"{said}, over all these runs, of which {f'{shown:,}' if shown else 'none'} {are} listed"
    return f"{where}; {said}"


def _order(history: History) -> str:
    if not history.by_commit:
        return "in the order they were recorded"
    unknown = counted(history.unknown, "run")
    rest = f", but for {unknown} of no commit that git knows here" if history.unknown else ""
    return f"in the order of their commits{rest}"


def _tone(history: History) -> str:
    """The verdict on the run that was recorded last."""
    last = max((t.runs[-1] for t in history.timelines), key=lambda run: run.number, default=None)
    return "inconclusive" if last is None else str(last.verdict)


def _network(history: History, run: RecordedRun) -> str:
    """Both models, with what tells this series from others of theirs."""
    alike = [each.runs[-1] for each in history.timelines if each.runs[-1].network == run.network]
    apart = [
        f"{word}{getattr(run, field)}"
        for field, word in _GROUND.items()
        if len({getattr(each, field) for each in alike}) > 1
    ]
    return f"{run.network} ({', '.join(apart)})" if apart else run.network


_GROUND = {"weights": "weights ", "inputs": "", "seed": "seed ", "policy": "policy "}


def _ground(run: RecordedRun) -> str:
    return f"{run.inputs}; weights {run.weights}, seed {run.seed}, policy {run.policy}"


def _runs(history: History, title: str = "Runs") -> Section:
    listed = set(history.listed)
    found = [run for timeline in history.timelines for run in timeline.runs if run.number in listed]
    if len(history.timelines) > 1:
        place = {number: k for k, number in enumerate(history.listed)}
        found.sort(key=lambda run: place[run.number])
    rows = tuple(
        (
            *_about(run),
            brief(_network(history, run), 2 * _NAME),
            tail(run.first, _NAME) or "-",
            brief(run.cause, _CAUSE) if run.cause else "-",
        )
        for run in found
    )
    return Section(title, rows, _RUN_HEADER)


def _about(run: RecordedRun) -> tuple[str, ...]:
    return str(run.number), _when(run), _commit(run), str(run.verdict)


def _when(run: RecordedRun) -> str:
    return run.created[:16].replace("T", " ")


def _commit(run: RecordedRun) -> str:
    """The beginning of the commit, with a plus where the tree differed from it."""
    return (run.commit[:8] + ("+" if run.dirty else "")) if run.commit else "-"


def _told(timeline: Timeline) -> list[str]:
    """A sentence a run in which an error or the verdict is another than before, oldest first."""
    by_run: dict[int, list[Change]] = {}
    for change in timeline.changes:
        by_run.setdefault(change.run, []).append(change)
    runs = {run.number: run for run in timeline.runs}
    above = {after.number: one for one, after in zip(timeline.runs, timeline.runs[1:], strict=False)}
    return [
        _sentence(
            run,
            runs[timeline.befores[run.number]],
            by_run.get(run.number, ()),
            aside=timeline.befores[run.number] != above[run.number].number,
        )
        for run in timeline.runs
        if run.number in by_run or run.number in timeline.verdicts
    ]


def _sentence(run: RecordedRun, before: RecordedRun, changes: Sequence[Change], *, aside: bool) -> str:
    """Which site changed first in a run; `changes` come with the most telling one first.

    `aside` says that the run before on its line is not the one it is listed behind.
    """
    told = [f"run {run.number}, {_commit(run)}, {_when(run)}"]
    if aside:
        told.append(f"against run {before.number}, {_commit(before)}")
    if run.verdict is not before.verdict:
        told.append(f"{before.verdict} before, now {run.verdict}")
    if changes:
        first = changes[0]
        told.append(_changed(first))
        more = sum(each.rounding is first.rounding and each.cell == first.cell for each in changes) - 1
        if more:
            told.append(f"{counted(more, 'further site')} with it")
        if first.grounds:
            told.append(f"but {', '.join(first.grounds)}")
        if run.cause and not first.rounding:
            told.append(run.cause)
    return "; ".join(told)


def _changed(change: Change) -> str:
    where = f"{change.site}, {change.op}, in {change.cell}"
    if change.kind == "partner":
        return f"{where} {'has no partner any more' if change.status == Status.UNMATCHED else 'has a partner again'}"
    errors = f"{change.kind} relative error {_error(change.was)}, now {_error(change.now)}"
    return f"{where}: {errors}{' (rounding alone)' if change.rounding else ''}"


def _latest(told: list[str]) -> list[str]:
    more = len(told) - _CHANGES
    return told if more <= 0 else [*told[: _CHANGES // 2], f"and {more:,} more", *told[-_CHANGES // 2 :]]


def _error(value: float | None) -> str:
    return "exact" if value == 0 else figure(value)


def _tables(history: History, timeline: Timeline) -> Iterator[Section]:
    listed = set(history.listed)
    runs = {run.number: run for run in timeline.runs}
    marks = {(change.run, change.cell, change.site): _mark(change) for change in timeline.changes}
    for line in timeline.lines:
        rows = tuple(
            (
                *_about(runs[number]),
                _error(point.total),
                _error(point.intrinsic),
                figure(point.allowed_total if point.intrinsic is None else point.allowed_intrinsic),
                point.status,
                marks.get((number, line.cell, line.site), ""),
            )
            for number, point in line.points
            if number in listed
        )
        yield Section(f"{line.site}, {line.op}, in {line.cell}", rows, _POINT_HEADER)


def _mark(change: Change) -> str:
    return "rounding" if change.rounding else "inherited" if change.inherited else "changed"


def _charts(timeline: Timeline) -> Iterator[LineChart]:
    """A chart a cell: total errors as lines, intrinsic ones as dots, over runs in their order."""
    place = {run.number: k + 1 for k, run in enumerate(timeline.runs)}
    for cell in dict.fromkeys(line.cell for line in timeline.lines):
        own = [line for line in timeline.lines if line.cell == cell]
        foot = _foot(own)
        if foot is not None:
            curves = [
                Curve(f"{tail(line.site, _NAME)}, {kind}", _points(line, place, get, foot), style, hue)
                for hue, line in enumerate(own)
                for kind, style, get in _KINDS
            ]
            yield chart(
                f"{cell}: relative error",
                "run, oldest first",
                f"{foot:.0e} stands for exact",
                curves,
                powers=True,
            )


_KINDS: tuple[tuple[str, str, Callable[[Point], float | None]], ...] = (
    ("total", "solid", lambda point: point.total),
    ("intrinsic", "dots", lambda point: point.intrinsic),
)


def _foot(own: Iterable[SiteLine]) -> float | None:
    """Where exact agreement is drawn, a power of ten below all that is not exact; None where nothing differs."""
    seen = [
        value
        for line in own
        for _, point in line.points
        for value in (point.total, point.intrinsic)
        if value is not None and 0 < value < math.inf
    ]
    return 10.0 ** (math.floor(math.log10(min(seen))) - 1) if seen else None


def _points(
    line: SiteLine, place: dict[int, int], get: Callable[[Point], float | None], foot: float
) -> tuple[tuple[float, float], ...]:
    found = ((place[number], get(point)) for number, point in line.points)
    return tuple((float(x), max(y, foot)) for x, y in found if y is not None and math.isfinite(y))
