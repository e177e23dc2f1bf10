"""Deployed forms at each of their stages, from their graph to what runs where they are shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import wording
from reports.sections import Section
from verifier.records import Verdict

if TYPE_CHECKING:
    from verifier.records import FormStage, Result

_NAMED = 3
TITLE = "As it is run, against its operators one by one"


def sections(verification: Result) -> list[Section]:
    """A row for each stage of each form; nothing where neither model is one."""
    rows = tuple(_row(each) for each in verification.stages)
    return [Section(TITLE, rows, ("model", "form", "stage", "outcome", "first changed site"))] if rows else []


def _row(stage: FormStage) -> tuple[str, ...]:
    if stage.exact:
        outcome = "the same bits"
    elif stage.verdict is Verdict.MATCH:
        outcome = f"within rounding ({wording.figure(stage.error)})"
    else:
        outcome = f"differs ({wording.figure(stage.error)})"
    site = f"{stage.site} ({stage.operator})" if stage.site else ""
    if stage.mended:
        site = f"{site}; not with {wording.some(stage.mended, _NAMED)} kept apart"
    if stage.cell:
        outcome = f"{outcome} in {stage.cell}"
    return stage.role, stage.form, stage.name, outcome, site
