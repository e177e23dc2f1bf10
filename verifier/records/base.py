"""The base of all records, and the words for verdicts."""

from __future__ import annotations

import enum
from typing import Any

import msgspec


class Verdict(enum.StrEnum):
    """The answer: are the two models the same function?"""

    MATCH = "match"
    DIVERGED = "diverged"
    INCONCLUSIVE = "inconclusive"
    ACCEPTED = "accepted"
    """No match: beyond what rounding explains, and a policy's budgets or waivers accept all of it."""
    SKIPPED = "skipped"
    """Of a cell that could not run; a whole verification never ends so."""

    @property
    def passed(self) -> bool:
        """Whether nothing has to be done: a match, or what a policy accepts."""
        return self in (Verdict.MATCH, Verdict.ACCEPTED)


class Status(enum.StrEnum):
    """What happened at one pair.

    `culprit`: its intrinsic error exceeds its budget. `amplifies`: only its total error does, and it is larger
    (relative to the tensor) than what came in, or its intrinsic error does by what could not be made equal above it.
    `carries`: only its total error does, and it is no larger than what came in. `unmatched`: the site has no partner
    in the other model. `waived`: a culprit that a policy accepts.
    """

    OK = "ok"
    CULPRIT = "culprit"
    AMPLIFIES = "amplifies"
    CARRIES = "carries"
    UNMATCHED = "unmatched"
    WAIVED = "waived"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records: immutable, compared by value, keyword arguments only."""


def to_builtins(record: Record) -> Any:
    """`record` as dicts, lists, strings and numbers that strict JSON can hold: NaN becomes "nan", infinity "inf"."""
    return _spell_nonfinite(msgspec.to_builtins(record))


def _spell_nonfinite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return str(value)
    if isinstance(value, dict):
        return {key: _spell_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spell_nonfinite(item) for item in value]
    return value
