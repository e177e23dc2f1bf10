"""JUnit XML: a suite for each candidate, a case for each cell, a failure for each cause.

The format has no standard; this is what the schema of Jenkins' xUnit plugin (junit-10.xsd) allows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from reports import signs
from verifier.gate import places
from verifier.gate.findings import findings, in_cell
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.gate.findings import Finding, Outcome
    from verifier.records import CellResult, Result

# Characters that XML 1.0 has no way to write.
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

WHOLE = "verdict"
"""The case of a verdict that no cell has given: too little was compared, say, or nothing could be run."""


def document(outcomes: Sequence[Outcome]) -> str:
    """The XML text. It has a failure or an error exactly where a verdict is neither `match` nor `accepted`."""
    root = ET.Element("testsuites", name="parity-verifier")
    counts = [_suite(root, outcome) for outcome in outcomes]
    for name, values in zip(("tests", "failures", "errors"), zip(*counts, strict=True), strict=False):
        root.set(name, str(sum(values)))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(root: ET.Element, outcome: Outcome) -> tuple[int, int, int]:
    """Put the suite of a candidate there; how many cases it has, how many failed, and how many have no answer."""
    suite = ET.SubElement(root, "testsuite", name=_text(outcome.name))
    result = outcome.result
    if result is not None:
        suite.set("time", f"{result.seconds:.3f}")
        suite.set("timestamp", result.created.partition("+")[0])
        _properties(suite, result)
        for cell in result.cells:
            _case(suite, outcome, result, cell)
    answered = suite.find("testcase/failure" if outcome.verdict is Verdict.DIVERGED else "testcase/error")
    if not (outcome.verdict and outcome.verdict.passed) and answered is None:
        case = ET.SubElement(suite, "testcase", classname=_text(outcome.name), name=WHOLE)
        if outcome.trouble:
            _add(case, "error", "inconclusive" if result else outcome.kind, outcome.trouble, "")
        for found in findings(outcome):
            _fail(case, found)
    cases = suite.findall("testcase")
    failed = sum(case.find("failure") is not None for case in cases)
    errors = sum(case.find("error") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    for name, count in (
        ("tests", len(cases)),
        ("failures", failed),
        ("errors", errors),
        ("skipped", skipped),
    ):
        suite.set(name, str(count))
    return len(cases), failed, errors


def _properties(suite: ET.Element, result: Result) -> None:
    properties = ET.SubElement(suite, "properties")
    said = {
        "verdict": str(result.verdict),
        "baseline": places.without_home(result.baseline_name),
        "policy": result.policy,
        "weights": result.weights.mode,
        "pairs compared": str(result.coverage.compared),
        "torch": result.environment.packages.get("torch", ""),
    }
    for name, value in said.items():
        ET.SubElement(properties, "property", name=name, value=_text(value))


def _case(suite: ET.Element, outcome: Outcome, result: Result, cell: CellResult) -> None:
    """A cell; where the whole is a match (a policy may see to the outputs alone), what it says is no failure."""
    case = ET.SubElement(
        suite, "testcase", classname=_text(outcome.name), name=_text(cell.name), time=f"{cell.seconds:.3f}"
    )
    if cell.verdict is Verdict.MATCH:
        return
    passed = result.verdict.passed
    if cell.verdict is Verdict.SKIPPED and (passed or not cell.named):
        ET.SubElement(case, "skipped", message=_text(cell.reason))
    elif cell.verdict is Verdict.DIVERGED and result.verdict is Verdict.DIVERGED:
        for found in in_cell(outcome, cell):
            _fail(case, found)
    elif passed or cell.verdict in (Verdict.DIVERGED, Verdict.ACCEPTED):
        ET.SubElement(case, "system-out").text = _text(f"{signs.of_cell(cell, result).word}: {cell.reason}")
    else:
        kind = "could not run" if cell.verdict is Verdict.SKIPPED else "inconclusive"
        _add(case, "error", kind, f"{kind}: {cell.reason}", "")


def _fail(case: ET.Element, found: Finding) -> None:
    lines = [found.details, *found.besides]
    several = sum(len(each.sites) for each in found.spots) > 1
    for spot in found.spots:
        sites = f": {', '.join(spot.sites)}" if several else ""
        lines += [f"candidate: {spot.place or 'no line is known'}{sites}"] if spot.place or several else []
    lines += [f"baseline: {each}" for each in found.baseline]
    _add(case, "failure", found.rule, found.message, "\n".join(lines))


def _add(case: ET.Element, tag: str, kind: str, message: str, text: str) -> None:
    ET.SubElement(case, tag, type=kind, message=_text(message)).text = _text(text or message)


def _text(text: str) -> str:
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text)
