"""What a policy accepts, in words: each site once, however many cells it was found in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.wording import counted
from verifier.records import tail

if TYPE_CHECKING:
    from verifier.records import Accepted, Result

TITLE = "Accepted by policy, no match"
_NAME = 48  # characters of a name in a headline


def lines(verification: Result) -> tuple[str, ...]:
    """A sentence for each site: what is accepted there, until when, why, and what was measured."""
    found: dict[tuple[str, ...], list[Accepted]] = {}
    for each in verification.accepted:
        found.setdefault((each.by, _site(each), each.pattern, each.reason), []).append(each)
    return tuple(_sentence(several) for several in found.values())


def by_rule(verification: Result) -> tuple[str, ...]:
    """A sentence for each rule and cause: of several sites the first, and how many more there are."""
    found: dict[tuple[str, ...], dict[str, list[Accepted]]] = {}
    codes = {
        _site(each): each.code for each in verification.accepted if each.code
    }  # not every cell has shown it
    for each in verification.accepted:
        rule = (each.by, each.pattern, each.reason, each.expires, codes.get(_site(each), ""))
        found.setdefault(rule, {}).setdefault(_site(each), []).append(each)
    return tuple(_sentence(next(iter(sites.values())), others=len(sites) - 1) for sites in found.values())


def clauses(verification: Result) -> list[str]:
    """How much is accepted, the most telling first, as clauses of a headline."""
    said = []
    for by, word, what in (
        ("waiver", "culprit", "waived"),
        ("budget", "site", "within budgets of the policy"),
    ):
        sites = list(dict.fromkeys(_site(each) for each in verification.accepted if each.by == by))
        if sites:
            more = ", ..." if sites[1:] else ""
            said.append(f"{counted(len(sites), word)} {what} ({tail(sites[0], _NAME)}{more})")
    until = min((each.expires for each in verification.accepted if each.expires), default="")
    return [f"by policy, no match: {', '.join(said)}", *([f"until {until}"] if until else [])]


def _sentence(several: list[Accepted], others: int = 0) -> str:
    first = max(several, key=lambda each: bool(each.code))
    cells = ", ".join(dict.fromkeys(each.cell for each in several))
    how = f"waived until {first.expires}" if first.by == "waiver" else "within a budget of the policy"
    cause = f"; {first.cause} ({first.code})" if first.code else ""
    said = next((each.said for each in several if each.said), "")
    measured = f"; {said}" if said else ""
    more = f" and {counted(others, 'other site')}" if others else ""
    return f"{_site(first)}{more} in {cells}: {how} ({first.pattern}): {first.reason}{cause}{measured}"


def _site(each: Accepted) -> str:
    return each.baseline or each.candidate or "unnamed"
