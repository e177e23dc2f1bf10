"""SARIF 2.1.0: results at source lines, with rules from the table of causes.

The standard: docs.oasis-open.org/sarif/sarif/v2.1.0. A run for each candidate, told apart by `automationDetails`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from verifier.gate.findings import findings, rule
from verifier.gate.places import REPOSITORY
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.gate.findings import Finding, Outcome, Spot
    from verifier.gate.places import Place

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "%SRCROOT%"
_CODES = {Verdict.MATCH: 0, Verdict.ACCEPTED: 0, Verdict.DIVERGED: 1, Verdict.INCONCLUSIVE: 4}


def document(outcomes: Sequence[Outcome]) -> str:
    """The JSON text. A result is a cause; why there is no answer is a notification of the run."""
    found = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(outcome) for outcome in outcomes]}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _run(outcome: Outcome) -> dict[str, Any]:
    found = findings(outcome)
    codes = list(dict.fromkeys(each.rule for each in found))
    invocation: dict[str, Any] = {"executionSuccessful": outcome.result is not None}
    if outcome.result is not None:
        invocation["exitCode"] = _CODES[outcome.result.verdict]
        invocation["endTimeUtc"] = outcome.result.created.replace("+00:00", "Z")
    if outcome.trouble:
        invocation["toolExecutionNotifications"] = [{"level": "error", "message": {"text": outcome.trouble}}]
    driver = {"name": "parity-verifier", "rules": [_rule(code) for code in codes]}
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"parity-verifier/{outcome.name}/"},
        "invocations": [invocation],
        "results": [_result(each, codes.index(each.rule)) for each in found],
    }


def _rule(code: str) -> dict[str, Any]:
    meaning, fix = rule(code)
    return {
        "id": code,
        "shortDescription": {"text": meaning},
        "fullDescription": {"text": meaning},
        "help": {"text": fix, "markdown": fix},
        "defaultConfiguration": {"level": "error"},
    }


def _result(found: Finding, index: int) -> dict[str, Any]:
    return {
        "ruleId": found.rule,
        "ruleIndex": index,
        "level": "error",
        "message": {"text": f"{found.whole}."},
        # The standard has several where all of them have to be changed; GitHub shows the first.
        "locations": [_location(each) for each in found.spots],
        "relatedLocations": [
            _physical(each) | {"id": k, "message": {"text": "the baseline"}}
            for k, each in enumerate(found.baseline, 1)
        ],
        # The second is the only one that GitHub's code scanning reads.
        "partialFingerprints": {
            "parityFinding/v2": found.fingerprint,
            "primaryLocationLineHash": f"{found.fingerprint}:1",
        },
        "properties": {"cells": list(found.cells), "details": found.details},
    }


def _location(spot: Spot) -> dict[str, Any]:
    location = _physical(spot.place or REPOSITORY)
    if spot.sites:
        location["logicalLocations"] = [{"fullyQualifiedName": each, "kind": "member"} for each in spot.sites]
    return location


def _physical(place: Place) -> dict[str, Any]:
    """A location. GitHub asks each for a line: the first stands for a file as a whole."""
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(place.file), "uriBaseId": _ROOT},
            "region": {"startLine": place.line or 1},
        }
    }
