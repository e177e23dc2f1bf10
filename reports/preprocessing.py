"""What to say of stage 0: how photographs were prepared for both models; its page, where it was compared alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import listing
from reports.preparation import prepared
from reports.sections import Section, cut, lines, text
from reports.wording import dimensions, figure, shown
from verifier.records import Verdict

if TYPE_CHECKING:
    from verifier.records import PreparationAlone, Preprocessing, StageDifference, StageResult

TITLE = "Preprocessing (stage 0), against torchvision's"
_VERDICTS = {"differs": Verdict.DIVERGED, "inconclusive": Verdict.INCONCLUSIVE}
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
    parts = _all(found)
    if out_dir:
        parts.append(Section("Report", ((out_dir,),)))
    return text(f"{verdict(found)}: {prepared(found)}", parts)


def verdict(found: Preprocessing) -> Verdict:
    """What the stages amount to."""
    return _VERDICTS.get(found.status, Verdict.MATCH)


def page(found: PreparationAlone) -> str:
    """The page of a comparison of preparations, the same bytes for the same record."""
    found = shown(found)
    mark, answer = listing.answer(verdict(found), prepared(found))
    candidate = found.candidate or "this package's transforms"
    files = Section(f"Photographs: {len(found.files):,}", cut(lines(found.files), listing.SHOWN), ("file",))
    return listing.render(
        listing.Page(
            eyebrow="A comparison of how photographs are prepared",
            title=f"{mark.word}: {_compared(found)}",
            mark=mark,
            answer=answer,
            models=(
                ("Baseline", "torchvision's transforms"),
                ("Candidate", candidate),
                ("Recipe", found.recipe),
            ),
            panels=(),
            sections=(*_all(found), files),
            facts=() if found.environment is None else listing.surroundings(found.environment),
            command=found.command,
            circumstances=listing.circumstances(found.created, found.seconds),
        )
    )


def _compared(found: Preprocessing) -> str:
    """Whether photographs are prepared as torchvision's transforms do, in a few words."""
    whose = f"{found.candidate} prepares" if found.candidate else "this package's transforms prepare"
    if found.status == "inconclusive":
        return f"whether {whose} photographs as torchvision's transforms do cannot be told"
    if found.status == "differs":
        return f"{whose} photographs otherwise than torchvision's transforms"
    rounding = ", but for rounding" if found.status == "rounding" else ""
    return f"{whose} photographs as torchvision's transforms do{rounding}"


def _all(found: Preprocessing) -> list[Section]:
    """Every stage, where all are exact too."""
    parts = sections(found)
    if found.status == "exact":
        rows = tuple((each.name, each.status, each.words) for each in found.stages)
        parts.append(Section("Stages", rows))
    return parts


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
