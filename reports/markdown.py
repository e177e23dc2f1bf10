"""The summary as Markdown, for a pull request's comment or a job's summary."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from reports import (
    acceptance,
    besides,
    criteria,
    data_set,
    exercise,
    grouping,
    quantisation,
    sentences,
    signs,
    stages,
    wording,
)
from reports.headline import headline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from reports.grouping import Group
    from reports.sections import Section
    from verifier.records import PairResult, Result

SHOWN = 5  # culprits and sites: the page has them all
MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def summary(verification: Result, *, plot: str | None = None) -> str:
    """The verdict, culprits, cells, criteria and coverage; `plot` is the address of the picture, if there is one."""
    return "\n".join(_lines(wording.shown(verification), plot)) + "\n"


def _lines(verification: Result, plot: str | None) -> Iterator[str]:
    sign, passed = signs.VERDICT_SIGNS[verification.verdict], verification.verdict.passed
    yield f"### {sign} {text(headline(verification))}"
    yield ""
    yield text(sentences.models(verification))
    if plot is not None:
        yield from ("", f"![Error over depth]({plot})")
    first = verification.first_divergence
    if first is not None:
        parted = sentences.divergence(first), sentences.agreement(first.total or first.intrinsic)
        title = text(sentences.first(verification) + data_set.few(verification))
        yield from ("", f"**{title}:** {text('; '.join(filter(None, parted)))}")
    if verification.culprits and not grouping.nothing_in_common(verification):
        yield from ("", f"**{grouping.title(verification)}**", "")
        causes = [
            "; ".join([grouping.sentence(each, fix=not passed), *_places(verification, each)])
            for each in grouping.groups(verification)
        ]
        yield from _some([f"{k}. {text(each)}" for k, each in enumerate(causes, 1)])
    if verification.cells:
        yield ""
        yield from _table(
            ("cell", "verdict", "beyond rounding" if passed else "culprits", "largest error", "why"),
            (
                (
                    cell.name,
                    f"{mark.sign} {mark.word}",
                    str(len(cell.culprits)),
                    _largest(cell.layers),
                    "" if cell.culprits else cell.reason,
                )
                for cell in verification.cells
                for mark in [signs.of_cell(cell, verification)]
            ),
        )
    if verification.criteria:
        yield ""
        yield from _table(
            ("published criterion", "measured", "required", "outcome"),
            (
                (
                    each.title,
                    criteria.measured(each),
                    f"{each.comparison} {wording.figure(each.limit)}",
                    signs.of_outcome(passed=each.passed).sign + (" passed" if each.passed else " failed"),
                )
                for each in verification.criteria
            ),
        )
    for section in (*quantisation.sections(verification), *stages.sections(verification)):
        yield from ("", f"**{section.title}**", "", *_listed(section))
    for title, found in (
        (besides.TITLE, besides.lines(verification)),
        (data_set.TITLE, data_set.lines(verification)),
        (acceptance.TITLE, acceptance.lines(verification)),
        ("Differs, and no input reached it", exercise.silent(verification)),
        ("What they return otherwise", verification.coverage.returned),
    ):
        if found:
            yield from ("", f"**{title}**", "")
            yield from _some([f"- {text(each)}" for each in found])
    told = (
        sentences.impact(verification.output),
        sentences.coverage(verification.coverage),
        *exercise.lines(verification),
    )
    for each in filter(None, told):
        yield from ("", text(each[0].upper() + each[1:] + "."))
    if verification.probes:
        yield ""
        yield from (f"- {text(each)}" for each in exercise.probes(verification))
    if verification.command:
        yield from ("", *code(verification.command))


def _listed(section: Section) -> Iterator[str]:
    if section.header:
        return _table(section.header, section.rows)
    return (f"- {text(line)}" for (line,) in section.rows)


def _places(verification: Result, group: Group) -> list[str]:
    return [f"{side} {line}" for side, line in sentences.located(verification, *group.rows)]


def text(given: str) -> str:
    """Text that says in Markdown what it says: no markup, no line break, nobody's name is called."""
    return MARKUP.sub(r"\\\1", given).replace("@", "@\u200b")


def code(given: str) -> Iterator[str]:
    """Text as a block of code, in a fence longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", given)), default=0)
    fence = "`" * max(3, longest + 1)
    yield from (f"{fence}console", given, fence)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(map(text, row))} |"


def _largest(layers: Sequence[PairResult]) -> str:
    worst = next(iter(sentences.worst(layers, 1)), None)
    return "0" if worst is None else wording.figure(sentences.error(worst.total))


def _some(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield from ("", f"and {len(lines) - SHOWN} more")
