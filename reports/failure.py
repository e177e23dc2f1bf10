"""A verdict as a failing test prints it: a few lines that say where, why and what to open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import grouping
from reports.headline import headline
from reports.wording import counted, shown
from verifier.records import brief

if TYPE_CHECKING:
    from verifier.records import PairResult, Result

LINES = 8
_WIDTH = 200  # characters of a line
_CAUSES = 3  # each of which may have a line for its remedy


def _drawn(pair: PairResult) -> bool:
    return pair.cause is not None and pair.cause.code.endswith("-not-loaded")


def failure(verification: Result, report: str | None = None, advice: str = "") -> list[str]:
    """At most `LINES` lines: the headline, the first causes with their remedies, advice, the report's path."""
    found = shown(verification)
    lines = [headline(found)]
    last = [*([advice] if advice else []), *([] if report is None else [f"report: {report}"])]
    groups = grouping.groups(found)
    for group in groups[:_CAUSES]:
        lines.append(grouping.line(group, _WIDTH))
        if remedy := grouping.remedy(group):
            lines.append(brief(f"  fix: {remedy}", _WIDTH))
    if found.weights.mode == "as-is" and all(_drawn(pair) for pair in found.culprits) and found.culprits:
        last.insert(0, 'weights="transfer" compares the programs alone')
    more = len(groups) - _CAUSES
    if more > 0:
        last.insert(0, f"and {counted(more, 'more cause')}")
    return [*lines[: LINES - len(last)], *last]
