"""What is known of each stage while photographs are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verifier.preprocessing.rules import RULES
from verifier.records import StageDifference, StageResult

if TYPE_CHECKING:
    from verifier.preprocessing.recipes import Stage
    from verifier.records import Cause

WRONG = ("differs", "missing")
UNDECIDED = "inconclusive"
_ORDER = ("differs", "missing", UNDECIDED, "rounding", "carries", "exact", "given", "unseen")


@dataclass
class Entry:
    """What is known of one stage so far."""

    stage: Stage
    pictures: int = 0
    exact: int = 0
    statuses: set[str] = field(default_factory=set)
    total: StageDifference | None = None
    intrinsic: StageDifference | None = None
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    drawn_alike: bool | None = None
    reason: str = ""
    cause: Cause | None = None
    square: bool = False

    def drawn(self, *, alike: bool) -> None:
        """Whether both drew the same parameters for one more photograph."""
        self.drawn_alike = alike and self.drawn_alike is not False

    @property
    def status(self) -> str:
        """The worst of any photograph."""
        return next((each for each in _ORDER if each in self.statuses), "unseen")

    def record(self) -> StageResult:
        """What was found on all photographs."""
        rule = RULES[self.stage.rule]
        return StageResult(
            name=self.stage.name,
            words=self.stage.words,
            status=self.status,
            rule=f"{rule.name}: {rule.why}",
            unit=rule.unit,
            pictures=self.pictures,
            exact=self.exact,
            total=self.total,
            intrinsic=self.intrinsic,
            shapes=self.shapes,
            drawn_alike=self.drawn_alike,
            reason=self.reason,
            cause=self.cause,
        )


def worse(one: StageDifference | None, other: StageDifference | None) -> StageDifference | None:
    """The largest of both, figure by figure."""
    if one is None or other is None:
        return one or other
    worst = max(one, other, key=lambda each: each.largest)
    return StageDifference(
        largest=worst.largest,
        mean=max(one.mean, other.mean),
        share=max(one.share, other.share),
        picture=worst.picture,
    )
