"""What a policy allows at single sites: budgets in place of a rule's own, and waivers of faults that are known."""

from __future__ import annotations

import math
import re
from datetime import date  # noqa: TC003 - msgspec reads annotations when a rule is read
from fnmatch import fnmatchcase

import msgspec

from verifier.records import UNEXPLAINED, Cause

Patterns = str | tuple[str, ...]
"""A name or a pattern (`layer1.*`), or several."""

LIMITS = ("total", "intrinsic", "oracle_total", "oracle_intrinsic", "oracle_systematic")
"""The limits of a budget (`verifier.records.Budget`) that a policy can put in place of the rule's own."""

_WILD = re.compile(r"[*?\[]")


class SiteBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What sites may be off by, relative to their tensors, in place of what rules say. Of several the last counts.

    Attributes:
        site: Names or patterns of sites, the baseline's or the candidate's.
        reason: Why that much is right.
        cell: Cells by name or pattern; empty for all but float64's, where an error is no rounding: those have to be
            named (`*/float64`).
        model: What the policy calls the models this is for; empty for all.
        total: The limits, as in `verifier.records.Budget`; None leaves the rule's own.
    """

    site: Patterns
    reason: str
    cell: Patterns = ()
    model: Patterns = ()
    total: float | None = None
    intrinsic: float | None = None
    oracle_total: float | None = None
    oracle_intrinsic: float | None = None
    oracle_systematic: float | None = None

    def __post_init__(self) -> None:
        """See that it says something that can be meant.

        Raises:
            ValueError: It does not.
        """
        _check(self)
        given = self.limits
        if not given:
            raise ValueError(f"no limit is given: write one of {', '.join(LIMITS)}")
        for name, value in given.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, but has to be a finite number that is not negative")

    @property
    def limits(self) -> dict[str, float]:
        """The limits it gives, by name."""
        found = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in found.items() if value is not None}

    def fits(self, names: tuple[str | None, str | None], cell: str) -> bool:
        """Whether it is for a pair of these names in a cell."""
        cells = several(self.cell)
        if cell.split("/")[1] == "float64":
            cells = tuple(each for each in cells if each.split("/")[1:2] == ["float64"])
        elif not cells:
            cells = ("*",)
        return _any(cells, cell) and any(
            name is not None and _any(several(self.site), name) for name in names
        )


class Waiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault that is known and accepted until a day; no other fault is.

    Attributes:
        site: The name of a site, the baseline's or the candidate's; with `cause` also patterns.
        reason: Why it may stay.
        expires: The last day on which it counts.
        cell: Cells by name or pattern; empty for all.
        model: What the policy calls the models this is for; patterns need a `cause`, too.
        cause: Codes of causes. The fault then has to be confirmed, and to have no other codes than these.
    """

    site: Patterns
    reason: str
    expires: date
    cell: Patterns = ()
    model: Patterns = ()
    cause: Patterns = ()

    def __post_init__(self) -> None:
        """See that it names one fault, and not whatever comes.

        Raises:
            ValueError: It does not.
        """
        _check(self)
        if UNEXPLAINED in several(self.cause):
            raise ValueError(f"{UNEXPLAINED} is no cause: name the site alone, or wait until it is explained")
        wild = [each for each in (*several(self.site), *several(self.model)) if _WILD.search(each)]
        if wild and not self.cause:
            raise ValueError(
                f"{wild[0]!r} would waive whatever goes wrong there: name one site of one model, or the cause as well"
            )

    def covers(self, names: tuple[str | None, str | None], cell: str) -> bool:
        """Whether it is for a pair of these names in a cell, whatever is wrong there."""
        return _any(several(self.cell) or ("*",), cell) and any(
            name is not None and _any(several(self.site), name) for name in names
        )

    def names_cause(self, cause: Cause | None) -> bool:
        """Whether a fault of this cause is the one it names."""
        if not self.cause:
            return True
        return cause is not None and cause.confirmed and {cause.code, *cause.also} <= set(several(self.cause))


Rule = SiteBudget | Waiver


def several(given: Patterns) -> tuple[str, ...]:
    """One or several, as several; none of nothing."""
    return (given,) if isinstance(given, str) else given


def words(rule: Rule) -> str:
    """The sites that a rule is for, as records call them."""
    return ", ".join(several(rule.site))


def is_for(rule: Rule, model: str) -> bool:
    """Whether a rule is for what the policy calls so."""
    return _any(several(rule.model) or ("*",), model)


def _any(patterns: tuple[str, ...], name: str) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _check(rule: Rule) -> None:
    if not rule.reason.strip():
        raise ValueError("the reason is empty: say why")
    if not rule.site:
        raise ValueError("no site is named")
    for name in rule.__struct_fields__:
        value = getattr(rule, name)
        if isinstance(value, tuple) and not all(value):
            raise ValueError(f"{name} has an empty name")
