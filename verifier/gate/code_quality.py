"""GitLab's code quality report: a JSON list of issues in Code Climate's format, of which GitLab reads a part.

It shows one place an issue; `other_locations` is for what else reads that format.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from verifier.gate import places
from verifier.gate.findings import findings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.gate.findings import Outcome
    from verifier.gate.places import Place


def document(outcomes: Sequence[Outcome]) -> str:
    """The JSON text: an issue for each cause, and one where there is no answer."""
    found = [issue for outcome in outcomes for issue in _issues(outcome)]
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _issues(outcome: Outcome) -> list[dict[str, Any]]:
    if outcome.trouble:
        kind, severity = ("inconclusive", "major") if outcome.result else (outcome.kind, "blocker")
        place = places.of_spec(outcome.spec)
        return [_issue(outcome.trouble, kind, severity, place, f"{outcome.name}: {kind}")]
    return [
        _issue(each.whole, each.rule, "critical", each.place, each.fingerprint)
        | ({"other_locations": [_location(place) for place in each.further]} if each.further else {})
        for each in findings(outcome)
    ]


def _issue(message: str, rule: str, severity: str, place: Place | None, fingerprint: str) -> dict[str, Any]:
    return {
        "description": message,
        "check_name": rule,
        "fingerprint": fingerprint,
        "severity": severity,
        "location": _location(place or places.REPOSITORY),
    }


def _location(place: Place) -> dict[str, Any]:
    return {"path": place.file, "lines": {"begin": place.line or 1}}
