"""The verdict and what it rests on, in one sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reports import acceptance, exercise, grouping, sentences
from reports.preparation import prepared
from reports.wording import counted, figure
from verifier.records import HEADLINE, Status, Verdict, brief, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.records import CellResult, PairResult, Result

_NAME, _CLAUSE = 48, 100  # characters of a name, and of what is put in brackets, in a headline


def headline(verification: Result, said: str | None = None) -> str:
    """The verdict and what it rests on, in one sentence of at most `HEADLINE` characters.

    What does not fit into it is told below it: of its clauses the last ones are left out first. `said` stands in the
    verdict's place, if given.
    """
    first = verification.first_divergence
    said = str(verification.verdict) if said is None else said
    room = HEADLINE - len(f"{said}: ")
    if verification.verdict is Verdict.MATCH:
        clauses = _agreement(verification)
    elif verification.verdict is Verdict.ACCEPTED:
        clauses = acceptance.clauses(verification)
    elif verification.verdict is Verdict.DIVERGED and first is not None and first.stage == "quantisation":
        clauses = [verification.reason]
    elif verification.verdict is Verdict.DIVERGED and first is not None:
        clauses = _divergence(verification, first, room)
        beside = bool(verification.accepted) and not verification.culprits
        if verification.reason and (beside or not _by_sites(verification, first)):
            clauses.insert(0, verification.reason)
    else:
        clauses = [verification.reason or "no reason was recorded"]
    stage_0 = verification.preprocessing
    if verification.verdict is Verdict.DIVERGED and stage_0 is not None and stage_0.applied:
        clauses.insert(0, prepared(stage_0))
    while len(clauses) > 1 and len("; ".join(clauses)) > room:
        clauses.pop()
    return f"{said}: {brief('; '.join(clauses), room)}"


def _by_sites(verification: Result, first: PairResult) -> bool:
    """Whether it was sites that decided, and nothing besides them."""
    cell = sentences.deciding_cell(verification)
    told = cell is not None and verification.reason.startswith(f"{cell.name}: ")
    return told or sentences.name(first) in verification.reason


def _short(pair: PairResult) -> str:
    return sentences.site(pair, _NAME)


def _agreement(verification: Result) -> list[str]:
    cell = sentences.deciding_cell(verification)
    diverged = [each for each in verification.cells if each.verdict is Verdict.DIVERGED]
    if diverged:
        by = f"accepted by policy {tail(verification.policy, _NAME)}"
        return [f"{by}, though {_parted(verification, cell, diverged)}"]
    said, agreeing = _counted(verification, cell.layers if cell else ())
    unseen = exercise.unreached(verification)
    if unseen:
        differ = "differs" if len(unseen) == 1 else "differ"
        said = f"{said}; {counted(len(unseen), 'tensor')} {differ}, which no input reached"
    ran = sorted(verification.cells, key=lambda each: each is not cell)
    clauses = []
    for each in ran:  # the deciding cell first: what is exact there need not be so in others
        largest = next(iter(sentences.worst(filter(_measured, each.layers), 1)), None)
        if largest is not None:
            where = "" if each is cell else f" in {each.name}"
            size = figure(sentences.error(largest.total))
            clauses.append(f"largest relative error {size} at {_short(largest)}{where}")
            break
    unmeasured = [row for each in ran for row in each.layers if not _measured(row)]
    empty = {row.baseline for row in unmeasured if row.total is not None and not row.total.elements}
    huge = {row.baseline for row in unmeasured} - empty
    if huge:
        clauses.append(f"{counted(len(huge), 'site')} of numbers too large for a figure")
    if empty:
        clauses.append(f"{counted(len(empty), 'site')} of no elements")
    if not clauses and agreeing:
        return [said.replace(" agree", " agree exactly", 1)]
    return [said, *clauses]


def _measured(pair: PairResult) -> bool:
    """Whether the error at a pair that agrees is a number; that of the largest numbers overflows, of none is none."""
    return pair.total is None or math.isfinite(pair.total.nrmse) or pair.status is not Status.OK


def _counted(verification: Result, rows: Sequence[PairResult]) -> tuple[str, int]:
    """How many of a cell's pairs agree, in words and as a number; rows that are no pair of sites do not count."""
    pairs = [row for row in rows if row.kind == "site" and row.status is not Status.UNMATCHED]
    agreeing = sum(pair.status is Status.OK for pair in pairs)
    layers = verification.quantisation is not None and len(pairs) < verification.coverage.baseline_sites
    if verification.coverage.unmatched or layers:
        whole = "all" if agreeing == len(pairs) else f"{agreeing:,} of"
        return f"{whole} {counted(len(pairs), 'pair')} agree", agreeing
    whole_sites = max(verification.coverage.baseline_sites, len(pairs))
    return f"{agreeing:,} of {counted(whole_sites, 'site')} agree", agreeing


def _parted(verification: Result, main: CellResult | None, diverged: Sequence[CellResult]) -> str:
    """What cells that diverged keep a match from being: the same function, or as accurate a one."""
    cell = main if main is not None and main.verdict is Verdict.DIVERGED else diverged[0]
    where = "" if cell is main else f" in {cell.name}"
    said, agreeing = _counted(verification, cell.layers)
    everywhere = agreeing >= sum(
        row.kind == "site" and row.status is not Status.UNMATCHED for row in cell.layers
    )
    # What differs may be sites without a partner alone, behind which all is equal or nothing could be compared.
    what = f"the models part{where} while {said}" if everywhere else f"only {said}{where}"
    exactly = [each for each in verification.cells if each.role == "semantics"]
    same = bool(exactly) and all(each.verdict is Verdict.MATCH for each in exactly)
    return f"{what}: it is {'the same function, less accurate' if same else 'not the same function'}"


def _divergence(verification: Result, first: PairResult, room: int) -> list[str]:
    if nothing := grouping.nothing_in_common(verification):
        return [nothing]
    known = next(
        (
            group
            for group in grouping.groups(verification)
            if any(_same(row, first) and row.cause for row in group.rows)
        ),
        None,
    )
    if known is not None:
        said = [_group(known, first, room)]
    elif first.status is Status.UNMATCHED:
        said = [
            f"the models first part at {_short(first)} ({brief(sentences.excess(first, sentences.TOTAL), _CLAUSE)})"
        ]
    else:
        kind = sentences.TOTAL if first.total or not first.intrinsic else sentences.INTRINSIC
        written = "; ".join(first.differences) if first.status is Status.CULPRIT else ""
        why = f": {brief(written, _CLAUSE)}" if written else ""
        said = [f"{_short(first)} is the first site beyond its budget{why} ({sentences.excess(first, kind)})"]
    culprits = len(verification.culprits)
    if not culprits:
        looked = _localised(verification)
        return [
            *said,
            "no site exceeds its budget alone"
            if looked
            else "which sites are at fault was not looked for (--localise always does)",
        ]
    if known is None:
        said.append(counted(culprits, "culprit"))
    elif culprits > len(known.rows):
        said.append(counted(culprits - len(known.rows), "further culprit"))
    cell = sentences.deciding_cell(verification)
    followers = _followers(cell) if cell else []
    if followers:
        words = [
            each for status, each in _FOLLOWING.items() if any(row.status is status for row in followers)
        ]
        do = " or ".join(each[len(followers) > 1] for each in words)
        said.append(f"{counted(len(followers), 'other site')} only {do} what came in")
    return said


_FOLLOWING = {Status.CARRIES: ("carries", "carry"), Status.AMPLIFIES: ("amplifies", "amplify")}
"""What a site does with what came in, of one and of several."""


def _followers(cell: CellResult) -> list[PairResult]:
    """The sites that are not at fault but differ; what is told as an unmatched culprit shows at the one behind it."""
    regions = [row for row in cell.culprits if row.status is Status.UNMATCHED]
    places = {row.index for row in regions}
    lonely = {name for row in regions for name in (row.baseline, row.candidate) if name}

    def is_behind(row: PairResult) -> bool:
        alone = row.status is Status.AMPLIFIES or row.intrinsic is None
        through = lonely.intersection((*row.between_baseline, *row.between_candidate))
        return row.index in places or (alone and bool(through))

    return [
        row for row in cell.layers if row.kind == "site" and row.status in _FOLLOWING and not is_behind(row)
    ]


def _group(group: grouping.Group, first: PairResult, room: int) -> str:
    """What is wrong at the first divergence, and at how many other sites, in as many characters."""
    row = next(each for each in group.rows if _same(each, first))
    if group.loading:
        return f"{group.what}; {group.where} are wrong, first {_short(row)}"
    starts = [f"{grouping.wrong(group, row, own)}: " for own in sentences.forms(row)]
    at = next((each for each in starts if len(each) + len(group.because) <= room), starts[-1])
    return at + group.told(room - len(at))


def _localised(verification: Result) -> bool:
    """Whether a forced pass ran in the deciding cell."""
    cell = sentences.deciding_cell(verification)
    return cell is not None and sentences.localised(cell)


def _same(one: PairResult, other: PairResult) -> bool:
    return (one.baseline, one.candidate) == (other.baseline, other.candidate)
