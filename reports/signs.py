"""Verdicts and statuses as a word, a sign and a tone: colour is never the only one to tell."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.records import Status, Verdict

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


def of_status(status: Status) -> Mark:
    """The mark of a status."""
    return Mark(str(status), STATUS_SIGNS[status], str(status))


def of_outcome(*, passed: bool) -> Mark:
    """The mark of a criterion."""
    return Mark("passed", "✓", "match") if passed else Mark("failed", "✗", "diverged")
