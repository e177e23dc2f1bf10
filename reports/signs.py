"""Verdicts and statuses as a word, a sign and a tone: colour is never the only one to tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from verifier.records import Status, Verdict

if TYPE_CHECKING:
    from verifier.records import CellResult, Result

VERDICT_SIGNS = {
    Verdict.MATCH: "✓",
    Verdict.DIVERGED: "✗",
    Verdict.ACCEPTED: "≈",
    Verdict.INCONCLUSIVE: "?",
    Verdict.SKIPPED: "–",  # noqa: RUF001 - a dash, as for nothing
}
STATUS_SIGNS = {
    Status.OK: "✓",
    Status.CULPRIT: "✗",
    Status.AMPLIFIES: "▲",
    Status.CARRIES: "→",
    Status.UNMATCHED: "?",
    Status.WAIVED: "≈",
}

# From the worst to the best: what a group of sites is marked with.
BY_SEVERITY = (Status.CULPRIT, Status.UNMATCHED, Status.WAIVED, Status.AMPLIFIES, Status.CARRIES, Status.OK)


@dataclass(frozen=True, slots=True)
class Mark:
    """A verdict or status: its word, its sign, and the class that colours it."""

    word: str
    sign: str
    tone: str


def of_verdict(verdict: Verdict) -> Mark:
    """The mark of a verdict."""
    return Mark(str(verdict), VERDICT_SIGNS[verdict], str(verdict))


_FINER = {"float64": 0, "float32": 1}  # of all other dtypes none tells more than the others
ACCEPTED = Mark("accepted by policy", VERDICT_SIGNS[Verdict.ACCEPTED], str(Verdict.ACCEPTED))


def of_cell(cell: CellResult, verification: Result) -> Mark:
    """The mark of a cell, as one of those that the verdict rests on.

    What a cell calls different and a policy accepts is `accepted by policy`; and a cell in which nothing shows of
    what a finer one has found is no match, but `within bfloat16 rounding`.
    """
    if cell.verdict is Verdict.ACCEPTED or (cell.verdict is Verdict.DIVERGED and verification.verdict.passed):
        return ACCEPTED
    found = {each.name for each in verification.cells if each.verdict in (Verdict.DIVERGED, Verdict.ACCEPTED)}
    if cell.verdict is Verdict.MATCH and any(_fineness(name) < _fineness(cell.name) for name in found):
        return Mark(f"within {_dtype(cell.name)} rounding", "~", "unseen")
    return of_verdict(cell.verdict)


def _dtype(cell: str) -> str:
    return cell.split("/")[1] if "/" in cell else cell


def _fineness(cell: str) -> int:
    return _FINER.get(_dtype(cell), len(_FINER))


def of_status(status: Status, verification: Result) -> Mark:
    """The mark of a status; a culprit is `accepted by policy` where the verdict passes all the same."""
    if status is Status.CULPRIT and verification.verdict.passed:
        return ACCEPTED
    return Mark(str(status), STATUS_SIGNS[status], str(status))


def of_outcome(*, passed: bool) -> Mark:
    """The mark of a criterion."""
    return Mark("passed", "✓", "match") if passed else Mark("failed", "✗", "diverged")
