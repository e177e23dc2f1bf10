"""What to say of blocks and stages that were run alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import sentences, wording
from reports.sections import Section, lines
from verifier.records import Level, Verdict

if TYPE_CHECKING:
    from verifier.records import Result

TITLE = "Blocks alone on the baseline's inputs, then stages, then the network"


def sections(verification: Result, shown: int | None = None) -> list[Section]:
    """Blocks, then stages, then the network: of those that match the number, `shown` of the others, or all."""
    if not verification.steps:
        return []
    said: list[str] = []
    for level in Level:
        steps = [step for step in verification.steps if step.level is level]
        matching = sum(step.verdict is Verdict.MATCH for step in steps)
        said.append(f"{matching} of {wording.counted(len(steps), level)} match")
        said += some([sentences.step(step) for step in steps if step.verdict is not Verdict.MATCH], shown)
    said.append(f"the network: {verification.verdict}")
    return [Section(TITLE, lines(said))]


def some(lines: list[str], shown: int | None) -> list[str]:
    """The first lines, and how many more there are; all where `shown` is None."""
    hidden = 0 if shown is None else len(lines) - shown
    return [*lines[:shown], *([f"and {hidden} more"] if hidden > 0 else [])]
