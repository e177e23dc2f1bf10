"""The ladder of a deployed form: its stages across, sites down, and which kernel of a stage makes which sites."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from reports import wording
from reports.sections import Section, cut

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.records import FormStage, PairResult, Result, StageKernel

_MOST = 2000  # rows: a page has them all, or is slow
_NONE = "-"
TITLE = "Which kernel makes which sites"


def sections(verification: Result) -> list[Section]:
    """A table for each form whose runtime tells of its kernels, folded."""
    found = []
    for role in ("baseline", "candidate"):
        stages = [each for each in verification.stages if each.role == role and each.kernels]
        if stages:
            found.append(_section(verification, role, stages))
    return found


def counts(stage: FormStage) -> str:
    """How many kernels of a stage make how many sites; empty where that is not told."""
    if not stage.kernels:
        return ""
    sites = wording.counted(sum(len(each.sites) for each in stage.kernels), "site")
    more = "more than " if stage.kernels_left else ""
    return f"{more}{len(stage.kernels):,} for {sites}"


def _section(verification: Result, role: str, stages: Sequence[FormStage]) -> Section:
    certificate = verification.certificate
    against = f", against {certificate.source or 'the certificate'}" if certificate is not None else ""
    made = [{site: kernel for kernel in each.kernels for site in kernel.sites} for each in stages]
    places = [place for place in _places(verification, role) if any(place[1] in each for each in made)]
    columns = [_column(places, each, _usual(stage)) for each, stage in zip(made, stages, strict=True)]
    ops = {getattr(row, role): _operator(row, role) for row in verification.layers}
    rows = tuple((name, ops.get(own, ""), *told) for (name, own), *told in zip(places, *columns, strict=True))
    header = (
        "site",
        "one by one",
        *(f"{each.name}, {dtype}" if (dtype := _usual(each)) else each.name for each in stages),
    )
    title = f"{TITLE} of the {role}, {stages[0].form}{against}"
    said = f"{wording.counted(len(rows), 'site')}; what one kernel makes stands with its first"
    return Section(title, cut(rows, _MOST), header, folded=said)


def _operator(row: PairResult, role: str) -> str:
    return (row.candidate_op if role == "candidate" else None) or row.op


def _places(verification: Result, role: str) -> Iterator[tuple[str, str]]:
    """All sites in order: the baseline's name of each, or the program's, and the program's that stands for it."""
    together = {
        each.name: each.compared_at
        for each in verification.coverage.unmatched
        if each.side == "baseline" and each.compared_at
    }
    partner = {row.baseline: row.candidate for row in verification.layers if row.baseline and row.candidate}
    for row in verification.layers:
        own = row.baseline if role == "baseline" else row.candidate
        if own is None and row.baseline is not None:
            own = partner.get(together.get(row.baseline, ""))
        if own is not None:
            yield row.baseline or own, own


def _column(places: Sequence[tuple[str, str]], made: Mapping[str, StageKernel], usual: str) -> Iterator[str]:
    """What stands at each site: its kernel, or where that stands already."""
    count = Counter(id(made[own]) for _, own in places if own in made)
    first: dict[int, str] = {}
    for name, own in places:
        kernel = made.get(own)
        if kernel is None:
            yield _NONE
        elif id(kernel) in first:
            yield f"with {first[id(kernel)]}"
        else:
            first[id(kernel)] = name
            dtype = f" in {kernel.dtype}" if kernel.dtype not in ("", usual) else ""
            several = count[id(kernel)]
            yield f"{kernel.operator}{dtype}{f', {several} sites' if several > 1 else ''}"


def _usual(stage: FormStage) -> str:
    """The dtype that most kernels compute in."""
    found = Counter(each.dtype for each in stage.kernels if each.dtype)
    return found.most_common(1)[0][0] if found else ""
