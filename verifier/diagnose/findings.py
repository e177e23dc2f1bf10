"""Writing what was found into the rows of a cell."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.diagnose.diagnosis import Examined
    from verifier.diagnose.trials import Tried
    from verifier.records import Cause, PairResult


def with_findings(rows: Sequence[PairResult], found: Mapping[int, Examined]) -> tuple[PairResult, ...]:
    """`rows` with what running their sites again has shown, and with causes.

    The cause of a region goes to the first site without a partner on either side: those are what is named.
    """
    found = _moved(rows, found)
    above: dict[str, Cause] = {}
    for index, examined in found.items():
        if examined.above is not None:
            row = rows[index]
            for side, between in (("b", row.between_baseline), ("c", row.between_candidate)):
                if between:
                    above.setdefault(side + between[0], examined.above)
    return tuple(_with_finding(row, found.get(row.index), above) for row in rows)


def with_unreached(rows: Sequence[PairResult], found: Mapping[int, Tried]) -> tuple[PairResult, ...]:
    """`rows` with where sites part on inputs that were not given, and why."""
    return tuple(
        msgspec.structs.replace(row, excited=found[row.index].excited, cause=found[row.index].cause)
        if row.index in found and found[row.index].excited is not None
        else row
        for row in rows
    )


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
