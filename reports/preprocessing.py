"""What to say of stage 0: how photographs were prepared for both models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.sections import Section, lines, text
from reports.sentences import prepared
from reports.wording import dimensions, figure, shown

if TYPE_CHECKING:
    from verifier.records import Preprocessing, StageDifference, StageResult

TITLE = "Preprocessing (stage 0), against torchvision's"
_VERDICTS = {"differs": "diverged", "inconclusive": "inconclusive"}
_UNITS = {"1/255": "steps", "1": ""}


def line(found: Preprocessing | None) -> str:
    """Everything in one line where both prepare photographs alike, bit for bit; empty elsewhere."""
    return "; ".join(_lines(found)) if found is not None and found.status == "exact" else ""


def sections(found: Preprocessing) -> list[Section]:
    """Stage by stage where anything differs; else one line."""
    parts = [Section(TITLE, lines(_lines(found)))]
    if found.status != "exact":
        rows = [_row(each) for each in found.stages]
        rows.append(("final tensor", "", "", "", _gap(found.output, "1", found.output_shapes), ""))
        header = ("stage", "status", "exact on", "alone", "in all", "what torchvision does")
        parts.append(Section("Stages, largest difference", tuple(rows), header))
    return parts


def _lines(found: Preprocessing) -> list[str]:
    lines = [prepared(found)]
    if found.cause is not None and found.cause.remedy and found.status == "differs":
        lines.append(f"fix: {found.cause.remedy}")
    lines += found.notes
    if found.applied:
        lines.append("the candidate was run on what its own preprocessing made")
    return lines


def plain(found: Preprocessing, *, out_dir: str | None = None) -> str:
    """The outcome as text; it ends with a line break."""
    found = shown(found)
    verdict = _VERDICTS.get(found.status, "match")
    rows = tuple((each.name, each.status, each.words) for each in found.stages)
    parts = sections(found)
    if found.status == "exact":
        parts.append(Section("Stages", rows))
    if out_dir:
        parts.append(Section("Report", ((out_dir,),)))
    return text(f"{verdict}: {prepared(found)}", parts)


def _row(each: StageResult) -> tuple[str, ...]:
    return (
        each.name,
        each.status,
        f"{each.exact} of {each.pictures}",
        _gap(each.intrinsic, each.unit, each.shapes),
        _gap(each.total, each.unit, None),
        each.words,
    )


def _gap(
    gap: StageDifference | None, unit: str, shapes: tuple[tuple[int, ...], tuple[int, ...]] | None
) -> str:
    if shapes is not None:
        return f"{dimensions(shapes[0])} for {dimensions(shapes[1])}"
    if gap is None:
        return "-"
    return f"{figure(gap.largest)} {_UNITS.get(unit, unit)}".rstrip()
