"""The summary a run ends with: the answer in a few lines, and all there is to know without opening the report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from reports import (
    acceptance,
    besides,
    criteria,
    data_set,
    exercise,
    grouping,
    preprocessing,
    progressive,
    quantisation,
    sentences,
    signs,
    stages,
    wording,
)
from reports.headline import headline
from reports.sections import Section, lines, text
from verifier.records import TASK, Verdict, brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from verifier.records import CellResult, PairResult, Result

SHOWN = 5  # rows a section: the page has them all
LINE = 160  # characters of a line about a culprit, where not all is told
_ROOM = LINE - 2  # as sections are indented
_FAR = 2  # lines of how far off the first divergence is

_STYLES = {
    Verdict.MATCH: "bold green",
    Verdict.ACCEPTED: "bold yellow",
    Verdict.DIVERGED: "bold red",
    Verdict.INCONCLUSIVE: "bold yellow",
}


def summary(verification: Result, *, out_dir: str | None = None, verbose: bool = True) -> RenderableType:
    """The summary in colour, for `rich.console.Console.print`; without `verbose` the answer alone."""
    found = wording.shown(verification)
    return coloured(headline(found), found.verdict, sections(found, out_dir=out_dir, verbose=verbose))


def plain(verification: Result, *, out_dir: str | None = None, verbose: bool = True) -> str:
    """The summary as text, for pipes, logs and files; it ends with a line break."""
    found = wording.shown(verification)
    return text(headline(found), sections(found, out_dir=out_dir, verbose=verbose))


def coloured(headline: str, verdict: Verdict, listed: Sequence[Section]) -> RenderableType:
    """A headline in its verdict's colour and sections below it."""
    from rich.console import Group  # noqa: PLC0415 - a pipe needs no rich
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    parts: list[RenderableType] = [Text(headline, style=_STYLES.get(verdict, ""))]
    for section in listed:
        table = Table(box=None, show_header=bool(section.header), padding=(0, 2, 0, 0), pad_edge=False)
        for index in range(len(section.rows[0])):
            header = section.header[index] if section.header else ""
            table.add_column(Text(header, style="dim"), overflow="fold")
        for row in section.rows:
            table.add_row(*map(Text, row))
        parts += [Text(), Text(section.title, style="bold"), table]
    return Group(*parts)


def sections(verification: Result, *, out_dir: str | None = None, verbose: bool = True) -> list[Section]:
    """What both summaries show below the verdict, in order; sections without rows are left out.

    Without `verbose` figures are left out that no verdict rests on. What differs is told in any case; and where the
    verdict lets the models pass, what it says nothing of.
    """
    first = verification.first_divergence
    cell = sentences.deciding_cell(verification)
    stage_0 = verification.preprocessing
    doubtful = verbose or verification.verdict.passed
    unlike = len({signs.of_cell(each, verification) for each in verification.cells}) > 1
    notes: Sequence[str] = verification.notes
    if notes and not doubtful:
        notes = [f"{wording.counted(len(notes), 'note')}, with -v and on the page"]
    found = [
        *progressive.sections(verification, SHOWN),
        *(preprocessing.sections(stage_0) if stage_0 and stage_0.status == "differs" else []),
        Section(
            sentences.first(verification) + data_set.few(verification), lines(_first(first, verbose=verbose))
        ),
        Section(grouping.title(verification), lines(_culprits(verification, verbose=verbose))),
        Section(besides.TITLE, lines(besides.lines(verification))),
        Section(acceptance.TITLE, lines(_some(acceptance.lines(verification)))),
        Section(
            "Published criteria",
            lines([criteria.sentence(each) for each in verification.criteria if each.source != TASK]),
        ),
        Section(
            "Budgets of the task",
            lines([criteria.sentence(each) for each in verification.criteria if each.source == TASK]),
        ),
        Section(data_set.TITLE, lines(data_set.lines(verification))),
        *(_figures(verification, cell) if verbose else []),
        Section(
            "Weights and policy",
            lines([sentences.weights(verification), sentences.policy(verification)] if doubtful else []),
        ),
        *quantisation.sections(verification, None if verbose else quantisation.SHOWN),
        *stages.sections(verification),
        Section("Cells", tuple(_cells(verification)) if verbose or unlike else ()),
        *(_circumstances(verification) if verbose else []),
        Section("Differs, and no input reached it", lines(_some(exercise.silent(verification)))),
        Section("Exercised", lines(exercise.lines(verification) if doubtful else [])),
        Section("Probes", lines(exercise.probes(verification))),
        Section(
            "Coverage",
            lines(
                [sentences.coverage(verification.coverage), *_unmatched(verification)]
                if verbose or verification.verdict is Verdict.INCONCLUSIVE
                else _alone(verification)
            ),
        ),
        Section("What they return otherwise", lines(verification.coverage.returned)),
        Section("Notes", lines(notes)),
        Section("Report", lines([os.path.join(out_dir, "report.html")] if out_dir is not None else [])),
    ]
    return [section for section in found if section.rows]


def _figures(verification: Result, cell: CellResult | None) -> list[Section]:
    worst = sentences.worst(cell.layers, SHOWN) if cell else []
    impact = sentences.impact(verification.output)
    stage_0 = verification.preprocessing
    return [
        Section("Output", lines([impact] if impact else [])),
        Section(
            f"Largest total errors in {cell.name if cell else 'no cell'}",
            tuple(_site(pair, verification) for pair in worst),
            ("site", "op", "status", "total", "intrinsic", "allowed"),
        ),
        *(preprocessing.sections(stage_0) if stage_0 and stage_0.status != "differs" else []),
    ]


def _circumstances(verification: Result) -> list[Section]:
    return [
        Section(
            "The device against float64 on the CPU, one step of the baseline",
            tuple((each.name, sentences.exactness(each)) for each in verification.cells if each.hardware),
        ),
        Section(
            "The baseline against itself, largest relative error",
            tuple(_floor(each) for each in verification.cells if each.noise_floor),
            ("cell", "other threads", "other layout", "other position in the batch"),
        ),
    ]


def _first(pair: PairResult | None, *, verbose: bool) -> list[str]:
    if pair is None:
        return []
    where, how_far = sentences.parted(pair)
    said = [f"{where}: {how_far}"]
    if not verbose and len(said[0]) > _ROOM:
        called = next((each for each in (where, *sentences.forms(pair)) if len(each) < _ROOM), "")
        said = [f"{called}:", *grouping.below(brief(how_far, _FAR * _ROOM), _ROOM)]
    return [*said, *filter(None, [sentences.agreement(pair.total or pair.intrinsic)])]


def _culprits(verification: Result, *, verbose: bool) -> list[str]:
    """The causes, each with its fix, and below it where its first sites are in the source."""
    if grouping.nothing_in_common(verification):
        return []
    fix, every = not verification.verdict.passed, grouping.groups(verification)
    said = []
    for group in every[:SHOWN]:
        told = [grouping.sentence(group, fix=fix)] if verbose else grouping.told(group, _ROOM, fix=fix)
        places = ", ".join(f"{side} {line}" for side, line in sentences.located(verification, *group.rows))
        said += [*told, *([f"  {places}"] if places else [])]
    rest = every[SHOWN:]
    sites = sum(len(group.rows) for group in rest)
    more = f"and {len(rest):,} more" + (f", at {sites:,} sites" if sites > len(rest) else "")
    return [*said, *([more] if rest else [])]


def _some(lines: Sequence[str]) -> list[str]:
    return progressive.some(list(lines), SHOWN)


def _site(pair: PairResult, verification: Result) -> tuple[str, ...]:
    metric = sentences.metric_of(pair)
    return (
        sentences.name(pair),
        pair.op,
        signs.of_status(pair.status, verification).word,
        wording.figure(sentences.error(pair.total, metric)),
        wording.figure(sentences.error(pair.intrinsic, metric) if pair.intrinsic else None),
        wording.figure(pair.budget.total if pair.budget else None),
    )


def _cells(verification: Result) -> list[tuple[str, ...]]:
    return [
        (
            cell.name,
            cell.role,
            signs.of_cell(cell, verification).word,
            f"{wording.counted(cell.batch_size, 'sample')}, {cell.seconds:.1f} s",
            _outcome(cell, verification),
        )
        for cell in verification.cells
    ]


def _floor(cell: CellResult) -> tuple[str, ...]:
    floor = cell.noise_floor
    figures = (floor.threads, floor.layout, floor.position) if floor else ()
    return (cell.name, *map(wording.figure, figures))


def _outcome(cell: CellResult, verification: Result) -> str:
    """A divergence's place, as its figures are told above; else the reason for the verdict, if any."""
    if cell.name in {each.cell for each in verification.accepted} and not cell.culprits:
        return cell.reason
    if cell.first_divergence is None:
        broken = cell.repeatable.broken if cell.repeatable else ""
        told = bool(broken) and cell.reason == broken
        repeated = "" if told else sentences.repeated(cell)
        return "; ".join(each for each in (cell.reason, repeated, *cell.notes) if each)
    known = sentences.localised(cell) or cell.culprits
    culprits = sentences.culprits(len(cell.culprits), verification) if known else "culprits not looked for"
    return f"first at {sentences.name(cell.first_divergence)}, {culprits}"


def _alone(verification: Result) -> list[str]:
    """How many sites have no partner, in one line; they are named on the page."""
    unmatched = verification.coverage.unmatched
    if not unmatched or grouping.nothing_in_common(verification):
        return []
    counts = {side: sum(each.side == side for each in unmatched) for side in ("baseline", "candidate")}
    sites = wording.counted(counts["baseline"] or counts["candidate"], "site")
    sides = " and ".join(
        f"{sites if not k else f'{count:,}'} of the {side}"
        for k, (side, count) in enumerate((side, count) for side, count in counts.items() if count)
    )
    alone = sum(each.compared_at is None for each in unmatched)
    if not alone:
        how = "compared with what they lead to" if len(unmatched) > 1 else "compared with what it leads to"
    elif alone == len(unmatched):
        how = "not compared"
    else:
        how = f"{alone:,} of them not compared"
    return [f"{sides} without a partner, {how}"]


def _unmatched(verification: Result) -> list[str]:
    if grouping.nothing_in_common(verification):
        return []
    unmatched = verification.coverage.unmatched
    together = sum(each.compared_at is not None for each in unmatched)
    found = _some(
        [
            f"not compared: {each.name} of the {each.side} ({each.op})"
            + (f": {each.reason}" if each.reason else "")
            for each in unmatched
            if each.compared_at is None
        ]
    )
    if together:
        found.append(
            f"{wording.counted(together, 'site')} without a partner, compared with what they lead to"
        )
    return found
