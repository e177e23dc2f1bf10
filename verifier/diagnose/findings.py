"""Writing what was found into the rows of a cell."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec

from verifier.graph.operators import MOVES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.diagnose.diagnosis import Examined
    from verifier.diagnose.trials import Tried
    from verifier.records import Cause, PairResult


def with_findings(rows: Sequence[PairResult], found: Mapping[int, Examined]) -> tuple[PairResult, ...]:
    """`rows` with what running their sites again has shown, and with causes.

    The cause of a region goes to the first site without a partner on either side: those are what is named.
    """
    found = _counted(rows, _moved(rows, found))
    lonely = {
        ("c" if row.baseline is None else "b") + str(row.baseline or row.candidate): row.op
        for row in rows
        if row.baseline is None or row.candidate is None
    }
    above: dict[str, Cause] = {}
    for index, examined in found.items():
        if examined.above is not None and examined.follows is None:
            row = rows[index]
            for side, between in (("b", row.between_baseline), ("c", row.between_candidate)):
                for name in _first(between, side, lonely):
                    above.setdefault(side + name, examined.above)
    return tuple(_with_finding(row, found.get(row.index), above) for row in rows)


_NAMED = 3


def _counted(rows: Sequence[PairResult], found: Mapping[int, Examined]) -> dict[int, Examined]:
    """What was found, each cause that is the same at several sites with where else it is."""
    told = dict(found)
    alike: dict[tuple[str, str], list[int]] = {}
    for index, each in found.items():
        cause = each.above or each.here
        if cause is not None and cause.confirmed and each.follows is None:
            alike.setdefault((cause.code, cause.summary), []).append(index)
    for indices in alike.values():
        for index in indices if len(indices) > 1 else ():
            others = [
                rows[other].candidate or rows[other].baseline or "" for other in indices if other != index
            ]
            named = ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
            line = f"the same at {len(others)} other site{'s' if len(others) > 1 else ''}: {named}"
            each = told[index]
            field = "here" if each.above is None else "above"
            cause = getattr(each, field)
            cause = msgspec.structs.replace(cause, evidence=(*cause.evidence, line))
            told[index] = dataclasses.replace(each, **{field: cause})
    return told


def _first(between: Sequence[str], side: str, ops: Mapping[str, str]) -> set[str]:
    """The first of the sites between, and the first that computes: either may be named."""
    computing = [name for name in between if ops.get(side + name) not in MOVES]
    return {*between[:1], *computing[:1]}


def with_unreached(rows: Sequence[PairResult], found: Mapping[int, Tried]) -> tuple[PairResult, ...]:
    """`rows` with where sites part on inputs that were not given, and why.

    But for those that share a call or a region with a row that parts on the given: that says it all.
    """
    at_fault = {
        name
        for row in rows
        if row.replayed_shape is not None and (row.inputs_differ or row.follows is not None)
        for name in _calls(row)
    }
    return tuple(
        msgspec.structs.replace(row, excited=found[row.index].excited, cause=found[row.index].cause)
        if row.index in found and found[row.index].excited is not None and at_fault.isdisjoint(_calls(row))
        else row
        for row in rows
    )


def _calls(row: PairResult) -> set[str]:
    """The candidate's calls that a row is about, by the names of their first sites."""
    names = (*row.between_candidate, row.candidate or "")
    return {name.partition("[")[0] for name in names}


def _with_finding(row: PairResult, examined: Examined | None, above: Mapping[str, Cause]) -> PairResult:
    if row.baseline is None or row.candidate is None:
        key = f"b{row.baseline}" if row.candidate is None else f"c{row.candidate}"
        return msgspec.structs.replace(row, cause=above.get(key))
    if examined is None:
        return row
    cause = examined.here
    if cause is None and not row.apart:
        cause = examined.above
    return msgspec.structs.replace(
        row,
        cause=cause,
        replayed=examined.replayed,
        replayed_shape=examined.replayed_shape,
        inputs_differ=examined.inputs_differ,
        follows=examined.follows,
    )


def _moved(rows: Sequence[PairResult], found: Mapping[int, Examined]) -> dict[int, Examined]:
    """What was found, with an operator that is missing next to where it is too many told as one that was moved."""
    told = dict(found)
    for index, examined in found.items():
        for near in rows[index].above:
            beside = found.get(near)
            if beside is None or beside.above is None or examined.above is None:
                continue
            (op, what), (op_beside, what_beside) = (
                each.above.code.rpartition("-")[::2] for each in (examined, beside) if each.above is not None
            )
            if op != op_beside or {what, what_beside} != {"missing", "extra"}:
                continue
            later = what == "missing"  # the baseline has it after the site it stands before here
            summary = f"{op} stands {'before' if later else 'after'} {rows[near].candidate}, " + (
                f"in the baseline {'after' if later else 'before'} it"
            )
            for key, each in ((index, examined), (near, beside)):
                if each.above is not None:
                    cause = msgspec.structs.replace(each.above, code="order-different", summary=summary)
                    told[key] = dataclasses.replace(each, above=cause)
    return told
