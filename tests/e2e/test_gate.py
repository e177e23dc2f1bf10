"""What continuous integration reads of the real command, whatever its end."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended

FILES = ("--junit", "ci/j.xml", "--sarif", "ci/s.sarif", "--code-quality", "ci/q.json")


def red(place: Path) -> dict[str, list[str]]:
    """The tests of the JUnit file that did not pass, with the types of what is wrong."""
    root = ET.parse(place / "ci" / "j.xml").getroot()
    wrong = {
        case.get("name", ""): [
            each.get("type", "") for tag in ("failure", "error") for each in case.iter(tag)
        ]
        for case in root.iter("testcase")
    }
    return {name: kinds for name, kinds in wrong.items() if kinds}


def sarif(place: Path) -> dict[str, Any]:
    [run] = json.loads((place / "ci" / "s.sarif").read_text(encoding="utf-8"))["runs"]
    assert isinstance(run, dict)
    return run


def quality(place: Path) -> list[dict[str, Any]]:
    found = json.loads((place / "ci" / "q.json").read_text(encoding="utf-8"))
    assert isinstance(found, list)
    return found


@pytest.fixture
def candidate(place: Path) -> int:
    """A candidate with one line that is another; the number of that line."""
    code = (
        "import torch\n"
        "import nets\n\n\n"
        "class Other(nets.Net):\n"
        "    def between(self, x):\n"
        "        return torch.clamp(x, max=0.5)\n\n\n"
        "def load():\n"
        "    torch.manual_seed(0)\n"
        "    return Other().eval()\n"
    )
    (place / "other.py").write_text(code, encoding="utf-8")
    return 7


def test_a_fault_stands_at_its_line_in_every_format(
    candidate: int, place: Path, compare: Callable[..., Ended], call: Callable[..., Ended]
) -> None:
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(place / "step.md")}
    named = ("--baseline", "nets.py:net", "--candidate", "other.py:load")
    ended = compare(*named, *FILES, "--out", "DIR", env=environment)

    assert (ended.code, ended.err) == (1, "")
    [result] = sarif(place)["results"]
    physical = result["locations"][0]["physicalLocation"]
    assert physical["artifactLocation"]["uri"] == "other.py"
    assert physical["region"]["startLine"] == candidate
    [issue] = quality(place)
    assert issue["location"] == {"path": "other.py", "lines": {"begin": candidate}}
    assert red(place) == {"cpu/float64": [result["ruleId"]], "cpu/float32": [result["ruleId"]]}
    [annotation] = re.findall(r"^::error .*$", ended.out, re.MULTILINE)
    assert annotation.startswith(f"::error file=other.py,line={candidate},title=other.py%3Aload")
    summary = (place / "step.md").read_text(encoding="utf-8")
    assert summary.startswith("### ✗ diverged: ")
    assert result["ruleId"] in summary

    written = {name: (place / "ci" / name).read_bytes() for name in ("j.xml", "s.sarif", "q.json")}
    for name in written:
        (place / "ci" / name).unlink()
    assert call("report", "DIR", *FILES).code == 0
    assert {name: (place / "ci" / name).read_bytes() for name in written} == written


def test_a_match_is_green_everywhere(place: Path, compare: Callable[..., Ended]) -> None:
    ended = compare(*FILES, env={"GITHUB_ACTIONS": "true"})

    assert (ended.code, ended.err) == (0, "")
    assert "::error" not in ended.out
    assert (red(place), sarif(place)["results"], quality(place)) == ({}, [], [])


def test_another_policy_is_judged_into_the_same_files(
    eps_fault: Ended, place: Path, call: Callable[..., Ended]
) -> None:
    saved = str(eps_fault.directory / "DIR")

    assert call("judge", saved, "--policy", "strict", *FILES).code == 1
    assert red(place)
    assert call("judge", saved, "--policy", "criteria", *FILES).code == 0
    assert (red(place), sarif(place)["results"], quality(place)) == ({}, [], [])


@pytest.mark.parametrize(
    ("candidate", "options", "said"),
    [
        ("ends.py:is_killed", ["--isolate"], "killed"),
        ("ends.py:loops", ["--timeout", "8"], "--timeout"),
        ("nets.py:raising", [], "raised"),
        ("nets.py:nobody", [], "does not exist"),
    ],
)
def test_why_nothing_was_verified_is_told(
    candidate: str, options: list[str], said: str, place: Path, compare: Callable[..., Ended]
) -> None:
    ended = compare("--baseline", "nets.py:net", "--candidate", candidate, *options, *FILES)

    assert ended.code in (2, 3)
    assert said in ended.err
    assert red(place) == {"verdict": ["could not run"]}
    [invocation] = sarif(place)["invocations"]
    [note] = invocation["toolExecutionNotifications"]
    assert note["message"]["text"] == f"could not run: {ended.err.removeprefix('verifier: ').strip()}"
    [issue] = quality(place)
    assert issue["severity"] == "blocker"


def test_several_networks_are_suites_of_one_file(place: Path, call: Callable[..., Ended]) -> None:
    ended = call("run", "--arch", "small_resnet18,resnet18", "--image-size", "small", *FILES)

    assert ended.code == 0, ended.err
    root = ET.parse(place / "ci" / "j.xml").getroot()
    assert [suite.get("name") for suite in root] == ["reference:small_resnet18", "reference:resnet18"]


def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(compare: Callable[..., Ended]) -> None:
    said = compare("--junit", "nets.py/j.xml", "--sarif", "s.sarif").refusal(2)

    assert said.startswith("--junit nets.py/j.xml: ")


def test_a_file_that_is_lost_at_the_end_changes_no_exit_code(
    place: Path, compare: Callable[..., Ended]
) -> None:
    code = "import pathlib, nets\n\n\ndef load():\n    pathlib.Path('j.xml').mkdir()\n    return nets.net()\n"
    (place / "other.py").write_text(code, encoding="utf-8")

    ended = compare("--baseline", "nets.py:net", "--candidate", "other.py:load", "--junit", "j.xml")

    assert ended.code == 0
    assert ended.err.startswith("verifier: warning: --junit j.xml was not written: ")


def test_two_results_side_by_side_have_no_such_files(eps_fault: Ended, call: Callable[..., Ended]) -> None:
    saved = str(eps_fault.directory / "DIR")

    said = call("report", saved, saved, "--junit", "j.xml").refusal(2)

    assert said.startswith("--junit: only of one result")
