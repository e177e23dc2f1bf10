"""GitLab's code quality report, held to what its documentation asks of an issue."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from tests.verifier.gate.conftest import OUTCOMES
from verifier.gate import code_quality
from verifier.records import Verdict

if TYPE_CHECKING:
    from verifier.gate.findings import Outcome

# docs.gitlab.com, "Code Quality", "Code Quality report format".
DOCUMENTED = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "location", "severity"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "minLength": 1},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": "^(?!/|\\./)."},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
            # codeclimate's specification, "Other locations"; GitLab passes over it.
            "other_locations": {"type": "array", "minItems": 1},
        },
    },
}


def issues(*outcomes: Outcome) -> list[dict[str, Any]]:
    found = json.loads(code_quality.document(outcomes).encode("utf-8", errors="backslashreplace"))
    assert isinstance(found, list)
    return found


def test_every_outcome_is_as_documented(outcome: Outcome) -> None:
    Draft202012Validator(DOCUMENTED).validate(issues(outcome))
    assert bool(issues(outcome)) == (outcome.verdict is not Verdict.MATCH)


def test_an_issue_is_a_culprit_at_its_line() -> None:
    first, *rest = issues(OUTCOMES["three culprits"])

    assert first["location"] == {"path": "nets/new.py", "lines": {"begin": 30}}
    assert first["check_name"] == "batchnorm-eps"
    assert len({each["fingerprint"] for each in (first, *rest)}) == 3


def test_an_issue_of_several_places_has_the_others_beside_the_first() -> None:
    [issue] = issues(OUTCOMES["one cause"])

    assert issue["location"]["lines"] == {"begin": 40}
    assert issue["other_locations"] == [
        {"path": "nets/new.py", "lines": {"begin": line}} for line in (41, 42)
    ]
    [issue] = issues(OUTCOMES["one line"])
    assert "other_locations" not in issue


def test_without_an_answer_the_issue_is_at_the_candidates_file() -> None:
    [issue] = issues(OUTCOMES["could not run"])

    assert issue["location"]["path"] == "new.py"
    assert issue["severity"] == "blocker"
