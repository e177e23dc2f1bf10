"""A check as text and as a page: how each of a policy's models ended, and what fails in the policy itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import signs
from reports.acceptance import TITLE
from reports.sections import Section, lines
from verifier.records import Verdict, brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.signs import Mark
    from verifier.records import Check, CheckedModel

LATER = "Checked again alone since"
FAILURES = "The policy itself fails"
NOT_RUN = signs.Mark("could not run", signs.VERDICT_SIGNS[Verdict.DIVERGED], "diverged")


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model in the list of models; `page` is the address of its report, empty for none."""

    name: str
    mark: Mark
    said: str
    models: str
    page: str
    accepted: tuple[str, ...]
    weights: str
    later: str
    later_accepted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the page prints."""

    title: str
    headline: str
    tone: str
    policy: str
    failures: tuple[str, ...]
    accepted_title: str
    later_title: str
    models: tuple[ModelRow, ...]
    command: str
    circumstances: str


def headline(found: Check) -> str:
    """How all of it ended, in one sentence."""
    said = [counts([each.verdict for each in found.models], "models")]
    if again := [each.later.verdict for each in found.models if each.later is not None]:
        ended = ", ".join(dict.fromkeys("could not run" if each is None else str(each) for each in again))
        said.append(f"{len(again):,} checked again since ({ended})")
    if found.failures:
        said.append(f"the policy itself fails: {found.failures[0]}")
    return brief(", ".join(said))


def counts(verdicts: Sequence[Verdict | None], noun: str, awaited: int = 0) -> str:
    """How many of all ended how; None stands for one that could not run, `awaited` are not reached yet."""
    said = [f"{verdicts.count(Verdict.MATCH):,} of {len(verdicts) + awaited:,} {noun} match"]
    said += [
        f"{verdicts.count(verdict):,} {word}"
        for verdict, word in (
            (Verdict.ACCEPTED, "accepted by policy"),
            (Verdict.DIVERGED, "diverged"),
            (Verdict.INCONCLUSIVE, "inconclusive"),
            (None, "could not run"),
        )
        if verdict in verdicts
    ]
    return ", ".join([*said, f"{awaited:,} not reached"] if awaited else said)


def sections(found: Check) -> list[Section]:
    """What was checked again, fails in the policy itself or is accepted by it, and which weights were compared."""
    said = {each.weights for each in found.models if each.weights}
    which = [f"{each.name}: {each.weights}" for each in found.models if each.weights]
    return [
        Section(title, lines(texts))
        for title, texts in (
            (LATER, [f"{each.name}: {_later(each, found)}" for each in found.models if each.later]),
            (FAILURES, found.failures),
            (TITLE, [f"{each.name}: {said}" for each in found.models for said in _accepted(each)]),
            ("What was compared", which if len(said) > 1 else sorted(said)),
        )
        if texts
    ]


def page(found: Check) -> Page:
    """The page of a check."""
    tone = {0: "match", 4: "inconclusive"}.get(found.code, "diverged")
    if found.code == 0 and any(each.verdict is Verdict.ACCEPTED for each in found.models):
        tone = "accepted"
    return Page(
        title=f"check of {found.policy}: {headline(found)}",
        headline=headline(found),
        tone=tone,
        policy=found.policy,
        failures=found.failures,
        accepted_title=TITLE,
        later_title=LATER,
        models=tuple(_row(each, found) for each in found.models),
        command=found.command,
        circumstances=f"{found.created}, {found.seconds:.1f} s, exit code {found.code}",
    )


def _accepted(model: CheckedModel) -> tuple[str, ...]:
    """What is accepted of a model, as it was looked at last."""
    return model.accepted if model.later is None else model.later.accepted


def _later(model: CheckedModel, found: Check) -> str:
    """When a model was checked again, how it ended then, and by which policy if by another; empty if it was not."""
    if model.later is None:
        return ""
    policy = "" if model.later.policy == found.policy else f", {model.later.policy}"
    return f"{model.later.said} ({model.later.created}{policy})"


def _row(model: CheckedModel, found: Check) -> ModelRow:
    return ModelRow(
        name=model.name,
        mark=NOT_RUN if model.verdict is None else signs.of_verdict(model.verdict),
        said=model.said,
        models=f"{model.candidate} against {model.baseline}",
        page=model.report,
        accepted=model.accepted,
        weights=model.weights,
        later=_later(model, found),
        later_accepted=() if model.later is None else model.later.accepted,
    )
