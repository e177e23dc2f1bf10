"""Deployed forms at each of their stages, from their graph to what runs where they are shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import ladder, wording
from reports.sections import Section
from verifier.records import Verdict

if TYPE_CHECKING:
    from verifier.records import FormStage, Result

_NAMED = 3
TITLE = "As it is run, against its operators one by one"


def sections(verification: Result) -> list[Section]:
    """A row for each stage of each form; nothing where neither model is one."""
    every = verification.stages
    kernels = ("kernels",) if any(each.kernels for each in every) else ()
    rows = tuple((*_row(each), *(ladder.counts(each) for _ in kernels)) for each in every)
    header = "model", "form", "stage", "outcome", "first changed site", *kernels
    return [Section(TITLE, rows, header)] if rows else []


def _row(stage: FormStage) -> tuple[str, ...]:
    if stage.exact:
        outcome = "the same bits"
    elif stage.verdict is Verdict.MATCH:
        outcome = f"within rounding ({wording.figure(stage.error)})"
    else:
        outcome = f"differs ({wording.figure(stage.error)})"
    site = f"{stage.site} ({stage.operator})" if stage.site else stage.unplaced
    if stage.mended:
        site = f"{site}; not with {wording.some(stage.mended, _NAMED)} kept apart"
    if stage.casts:
        site = "; ".join(filter(None, (site, "not where it rounds between operators as torch does")))
    if stage.cell:
        outcome = f"{outcome} in {stage.cell}"
    return stage.role, stage.form, stage.name, outcome, site
