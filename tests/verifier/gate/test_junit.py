"""JUnit XML, as a program that reads such files reads it."""

from __future__ import annotations

import msgspec
import pytest
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from tests import samples
from tests.verifier.gate.conftest import OUTCOMES
from verifier.gate import junit
from verifier.gate.findings import Outcome, findings
from verifier.records import Verdict


def read(*outcomes: Outcome) -> JUnitXml:
    return JUnitXml.fromstring(junit.document(outcomes).encode())


def cases(xml: JUnitXml) -> list[TestCase]:
    return [case for suite in xml for case in suite]


def test_a_case_is_a_cell_and_a_failure_a_cause() -> None:
    [case] = cases(read(OUTCOMES["three culprits"]))

    assert case.name == "cpu/float64"
    assert [type(each) for each in case.result] == [Failure] * 3
    assert [each.type for each in case.result] == ["batchnorm-eps", "dropout-extra", "unexplained"]
    assert [each.message for each in case.result] == [
        each.message for each in findings(OUTCOMES["three culprits"])
    ]
    assert "candidate: nets/new.py:30 (Bottleneck.forward)" in case.result[0].text
    assert "fix: set eps to 1e-05" in case.result[0].text


def test_a_failure_names_all_sites_of_its_cause_by_their_lines() -> None:
    [[failure]] = [case.result for case in cases(read(OUTCOMES["one cause"]))]

    assert failure.message.startswith("3 of 5 batch_norm sites are wrong, first layer0.0.bn: eps is 0.001")
    assert [line for line in failure.text.splitlines() if line.startswith("candidate: ")] == [
        f"candidate: nets/new.py:4{k} (Net.forward): layer0.{k}.bn" for k in range(3)
    ]
    [[failure]] = [case.result for case in cases(read(OUTCOMES["one line"]))]
    assert (
        "candidate: nets/new.py:161 (Bottleneck.forward): layer0.0.bn, layer0.1.bn, layer0.2.bn"
        in failure.text.splitlines()
    )


def test_something_is_red_exactly_where_the_verdict_is_no_match(outcome: Outcome) -> None:
    found = cases(read(outcome))

    red = {type(each) for case in found for each in case.result} & {Failure, Error}
    assert bool(red) == (outcome.verdict is not Verdict.MATCH)
    assert (Failure in red) == (outcome.verdict is Verdict.DIVERGED)


def test_counts_are_of_cases(outcome: Outcome) -> None:
    xml = read(outcome, OUTCOMES["diverged"])

    parts: list[tuple[JUnitXml | TestSuite, list[TestCase]]] = [(xml, cases(xml))]
    parts += [(suite, list(suite)) for suite in xml]
    for whole, inside in parts:
        kinds = [{type(each) for each in case.result} for case in inside]
        assert whole.tests == len(inside) > 0
        assert whole.failures == sum(Failure in each for each in kinds)
        assert whole.errors == sum(Error in each for each in kinds)


def test_cells_keep_their_order_and_what_became_of_them() -> None:
    found = cases(read(OUTCOMES["cells"]))

    assert [case.name for case in found] == [cell.name for cell in samples.matrix().cells]
    kinds = {Verdict.MATCH: [], Verdict.DIVERGED: [Failure], Verdict.SKIPPED: [Error]}
    assert [[type(each) for each in case.result] for case in found] == [
        kinds[cell.verdict] for cell in samples.matrix().cells
    ]


@pytest.mark.parametrize("named", [True, False])
def test_a_cell_that_could_not_run_is_an_error_if_it_was_asked_for(named: bool) -> None:
    result = samples.diverged()
    skipped = msgspec.structs.replace(
        result.cells[1], verdict=Verdict.SKIPPED, named=named, culprits=(), layers=(), first_divergence=None
    )
    [_, case] = cases(read(Outcome.of(msgspec.structs.replace(result, cells=(result.cells[0], skipped)))))

    assert [type(each) for each in case.result] == [Error if named else Skipped]


def test_a_cell_that_diverged_is_no_failure_where_the_policy_is_content() -> None:
    result = msgspec.structs.replace(samples.diverged(), verdict=Verdict.MATCH, reason="")
    found = cases(read(Outcome.of(result)))

    assert [case.result for case in found] == [[], []]
    assert all((case.system_out or "").startswith("accepted by policy: ") for case in found)


def test_a_verdict_that_no_cell_gave_has_a_case() -> None:
    assert [case.name for case in cases(read(OUTCOMES["criteria"]))] == [
        "cpu/float64",
        "cpu/float32",
        junit.WHOLE,
    ]


def test_why_nothing_could_be_run_is_readable() -> None:
    [case] = cases(read(OUTCOMES["could not run"]))

    [error] = case.result
    assert isinstance(error, Error)
    assert error.type == "could not run"
    assert error.message.startswith("could not run: out of memory")
    assert "layer1 ]]> <&> " in error.message


def test_several_candidates_are_suites() -> None:
    xml = read(OUTCOMES["match"], OUTCOMES["could not run"])

    assert [suite.name for suite in xml] == ["reference:resnet50", "new.py:load"]
