"""The verdict and what it rests on, in one sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reports import acceptance, exercise, grouping, sentences
from reports.wording import counted, figure
from verifier.records import HEADLINE, Status, Verdict, brief, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.records import CellResult, PairResult, Result

_NAME, _CLAUSE = 48, 100  # characters of a name, and of what is put in brackets, in a headline


def headline(verification: Result) -> str:
    """The verdict and what it rests on, in one sentence of at most `HEADLINE` characters.

    What does not fit into it is told below it: of its clauses the last ones are left out first.
    """
    first = verification.first_divergence
    if verification.verdict is Verdict.MATCH:
        clauses = _agreement(verification)
    elif verification.verdict is Verdict.ACCEPTED:
        clauses = acceptance.clauses(verification)
    elif verification.verdict is Verdict.DIVERGED and first is not None:
        clauses = _divergence(verification, first)
        beside = bool(verification.accepted) and not verification.culprits
        if verification.reason and (beside or not _by_sites(verification, first)):
            clauses.insert(0, verification.reason)
    else:
        clauses = [verification.reason or "no reason was recorded"]
    stage_0 = verification.preprocessing
    if verification.verdict is Verdict.DIVERGED and stage_0 is not None and stage_0.applied:
        clauses.insert(0, sentences.prepared(stage_0))
    room = HEADLINE - len(f"{verification.verdict}: ")
    while len(clauses) > 1 and len("; ".join(clauses)) > room:
        clauses.pop()
    return f"{verification.verdict}: {brief('; '.join(clauses), room)}"


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
    if verification.coverage.unmatched:
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


def _divergence(verification: Result, first: PairResult) -> list[str]:
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
        said = [_group(verification, known, first)]
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
    followers = (
        sum(row.kind == "site" and row.status in (Status.CARRIES, Status.AMPLIFIES) for row in cell.layers)
        if cell
        else 0
    )
    if followers:
        said.append(
            f"{counted(followers, 'other site')} only {'carries' if followers == 1 else 'carry'} what came in"
        )
    return said


def _group(verification: Result, group: grouping.Group, first: PairResult) -> str:
    """What is wrong at the first divergence, and at how many other sites."""
    row = next(each for each in group.rows if _same(each, first))
    if group.loading:
        return f"{group.what}; {group.where} are wrong, first {_short(row)}"
    at = f"{grouping.wrong(group, row, _NAME)}: "
    return at + group.told(HEADLINE - len(f"{verification.verdict}: {at}"))


def _localised(verification: Result) -> bool:
    """Whether a forced pass ran in the deciding cell."""
    cell = sentences.deciding_cell(verification)
    return cell is not None and sentences.localised(cell)


def _same(one: PairResult, other: PairResult) -> bool:
    return (one.baseline, one.candidate) == (other.baseline, other.candidate)
