"""A verdict as a failing test prints it: a few lines that say where, why and what to open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import sentences
from reports.headline import headline
from reports.wording import counted, shown
from verifier.records import brief

if TYPE_CHECKING:
    from verifier.records import PairResult, Result

LINES = 8
_WIDTH = 200  # characters of a line
_CULPRITS = 3  # each of which may have a line for its remedy


def _drawn(pair: PairResult) -> bool:
    return pair.cause is not None and pair.cause.code.endswith("-not-loaded")


def _because(pair: PairResult) -> str:
    """The cause; where none was looked for, what differs as written."""
    said = "; ".join(pair.differences) if pair.cause is None else sentences.because(pair.cause, _WIDTH)
    return f": {said}" if said else ""


def failure(verification: Result, report: str | None = None, advice: str = "") -> list[str]:
    """At most `LINES` lines: the headline, the first culprits with causes and remedies, advice, the report's path."""
    found = shown(verification)
    lines = [headline(found)]
    last = [*([advice] if advice else []), *([] if report is None else [f"report: {report}"])]
    for pair in found.culprits[:_CULPRITS]:
        lines.append(brief(f"{sentences.site(pair, _WIDTH // 3)}{_because(pair)}", _WIDTH))
        if pair.cause is not None and pair.cause.remedy:
            lines.append(brief(f"  fix: {pair.cause.remedy}", _WIDTH))
    if found.weights.mode == "as-is" and all(_drawn(pair) for pair in found.culprits) and found.culprits:
        last.insert(0, 'weights="transfer" compares the programs alone')
    more = len(found.culprits) - _CULPRITS
    if more > 0:
        last.insert(0, f"and {counted(more, 'more culprit')}")
    return [*lines[: LINES - len(last)], *last]
