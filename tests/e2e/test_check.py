"""`check`: all that a policy's file names, in one process, with one exit code and one page."""

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

SMALL = '[defaults]\nimage_size = "small"\nbatch_size = 2\n'
SAME = '[[models]]\nname = "same"\nbaseline = "nets.py:net"\ncandidate = "nets.py:net"\n'
EPS = '[[models]]\nname = "eps"\nbaseline = "nets.py:net"\ncandidate = "nets.py:other_eps"\n'
WAIVER = """
[[waivers]]
model = "eps"
site = "bn2"
cause = "batchnorm-eps"
reason = "until the next training, TICKET-1"
expires = 9999-12-31
"""


@pytest.fixture
def check(place: Path, call: Callable[..., Ended]) -> Callable[..., Ended]:
    """Runs `check` with a policy of this text."""

    def run(text: str, *arguments: str) -> Ended:
        (place / "policy.toml").write_text(text, encoding="utf-8")
        return call("check", "--policy", "policy.toml", "--out", "OUT", *arguments)

    return run


def whole(ended: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ended.directory / "OUT/check.json").read_text(encoding="utf-8"))
    return found


def red(place: Path) -> dict[str, list[str]]:
    """The cases of the JUnit file that did not pass, with the types of what is wrong."""
    found: dict[str, list[str]] = {}
    for suite in ET.parse(place / "j.xml").getroot():
        for case in suite.iter("testcase"):
            kinds = [each.get("type", "") for tag in ("failure", "error") for each in case.iter(tag)]
            if kinds:
                found[f"{suite.get('name')} {case.get('name')}"] = kinds
    return found


def test_a_match_and_a_divergence_end_with_1_and_one_page(
    check: Callable[..., Ended], place: Path, written: Callable[[str], set[str]]
) -> None:
    ended = check(SMALL + SAME + EPS, "--junit", "j.xml", "--history", "h.sqlite")

    assert (ended.code, ended.err) == (1, "")
    lines = ended.out.splitlines()
    assert lines[0].split()[:2] == ["same", "match:"]
    assert lines[1].split()[:2] == ["eps", "diverged:"]
    assert "1 of 2 models match, 1 diverged" in ended.out
    assert "the candidate's own values were not compared" in ended.out
    assert ended.new == {
        "policy.toml", "j.xml", "OUT/check.json", "OUT/check.html", "h.sqlite",
        *written("OUT/same"), *written("OUT/eps"),
    } - {"policy.toml"} | (ended.new & {"h.sqlite-wal", "h.sqlite-shm"})  # fmt: skip
    page = (place / "OUT/check.html").read_text(encoding="utf-8")
    assert re.findall(r'href="([^"]+)"', page) == ["same/report.html", "eps/report.html"]
    assert [each["code"] for each in whole(ended)["models"]] == [0, 1]
    assert red(place) == {
        "nets.py:other_eps cpu/float64": ["batchnorm-eps"],
        "nets.py:other_eps cpu/float32": ["batchnorm-eps"],
    }


def test_a_waived_fault_is_accepted_and_told_everywhere(
    check: Callable[..., Ended], place: Path, call: Callable[..., Ended]
) -> None:
    ended = check(SMALL + SAME + EPS + WAIVER, "--junit", "j.xml", "--history", "h.sqlite")

    assert (ended.code, ended.err) == (0, "")
    assert "1 of 2 models match, 1 accepted by policy" in ended.out
    assert (
        "eps: bn2 in cpu/float64, cpu/float32: waived until 9999-12-31 (bn2): until the next training"
        in ended.out
    )
    assert red(place) == {}
    result = ended.result("OUT/eps")
    assert (result["verdict"], result["culprits"], result["model"]) == ("accepted", [], "eps")
    assert {each["cell"] for each in result["accepted"]} == {"cpu/float64", "cpu/float32"}
    for name in ("OUT/eps/summary.md", "OUT/eps/report.html", "OUT/check.html"):
        text = (place / name).read_text(encoding="utf-8")
        assert "until the next training, TICKET-1" in text, name
        assert "waived until 9999-12-31" in text, name
    assert "eps is 0.0001" in call("judge", "OUT/eps", "--policy", "policy.toml").out
    assert call("judge", "OUT/eps", "--policy", "strict").code == 1
    listed = call("history", "--history", "h.sqlite", "--verdict", "accepted")
    assert re.search(r"accepted +nets.py:other_eps against nets.py:net", listed.out)


@pytest.mark.parametrize(
    ("waiver", "says", "code"),
    [
        (WAIVER.replace("9999-12-31", "2020-01-31"), "waiver 1 (bn2) expired on 2020-01-31", 1),
        (WAIVER.replace("bn2", "bn1"), "waiver 1 (bn1) waived nothing", 1),
        (WAIVER.replace("batchnorm-eps", "relu-missing"), "it would have to name batchnorm-eps", 1),
    ],
)
def test_a_waiver_that_does_not_count_fails_beside_the_fault(
    check: Callable[..., Ended], place: Path, waiver: str, says: str, code: int
) -> None:
    ended = check(SMALL + EPS + waiver, "--junit", "j.xml")

    assert ended.code == code
    assert says in ended.out
    assert says in (place / "OUT/check.html").read_text(encoding="utf-8")
    assert red(place)["policy.toml verdict"] == ["policy"]
    assert ended.result("OUT/eps")["verdict"] == "diverged"


def test_one_model_is_checked_again_by_the_command_on_its_page(
    check: Callable[..., Ended], call: Callable[..., Ended], place: Path
) -> None:
    whole_check = check(SMALL + SAME + EPS)
    command = whole_check.result("OUT/same")["command"]
    assert command == "python -m verifier check --policy policy.toml --out OUT --only same"

    again = call(*command.split()[3:])

    assert (again.code, again.err) == (0, "")
    assert again.result("OUT/same")["command"] == command
    assert "did you mean 'same'" in call("check", "--policy", "policy.toml", "--only", "sane").err


def test_the_page_of_all_marks_what_was_checked_alone_since(
    check: Callable[..., Ended], call: Callable[..., Ended], place: Path
) -> None:
    check(SMALL + SAME + EPS)

    alone = check(SMALL + SAME + EPS + WAIVER, "--only", "eps")

    assert (alone.code, alone.err) == (0, "")
    told = call("report", "OUT").out
    assert told.startswith("1 of 2 models match, 1 diverged, 1 checked again since (accepted)\n")
    assert "eps: accepted: by policy, no match: 1 culprit waived (bn2); until 9999-12-31 (2" in told
    page = (place / "OUT/check.html").read_text(encoding="utf-8")
    assert page.count("Checked again alone since") == 1
    same, eps = whole(alone)["models"]
    assert (same["verdict"], same["later"]) == ("match", None)
    assert (eps["verdict"], eps["later"]["verdict"], eps["report"]) == (
        "diverged",
        "accepted",
        "eps/report.html",
    )
    failed = check(SMALL + EPS.replace("other_eps", "nobody"), "--only", "eps")
    assert failed.code == 2
    assert whole(failed)["models"][1]["later"]["verdict"] is None
    again = check(SMALL + SAME + EPS)
    assert [each["later"] for each in whole(again)["models"]] == [None, None]


def test_rules_of_the_only_model_asked_for_are_judged_and_no_others(check: Callable[..., Ended]) -> None:
    budget = '[[budgets]]\nmodel = "same"\nsite = "nowhere"\ntotal = 1e-5\nreason = "x"\n'
    of_all = '[[budgets]]\nsite = "nowhere_else"\ntotal = 1e-5\nreason = "x"\n'

    own = check(SMALL + SAME + EPS + budget + of_all, "--only", "same")
    others = check(SMALL + SAME + EPS + WAIVER.replace("bn2", "bn1") + of_all, "--only", "same")

    assert (own.code, others.code) == (1, 0)
    assert "1 of 1 models match, the policy itself fails: budget 1 (nowhere) is for no site" in own.out
    assert "nowhere_else" not in own.out + others.out
    assert not (own.directory / "OUT/check.html").exists()


@pytest.mark.parametrize("expires", ["2020-01-31", "9999-12-31"])
def test_a_waiver_of_what_is_mended_fails_by_itself(
    check: Callable[..., Ended], place: Path, expires: str
) -> None:
    waiver = WAIVER.replace('"eps"', '"same"').replace("9999-12-31", expires)

    ended = check(SMALL + SAME + waiver, "--junit", "j.xml")

    assert ended.code == 1
    assert "1 of 1 models match, the policy itself fails: waiver 1 (bn2)" in ended.out
    assert red(place) == {"policy.toml verdict": ["policy"]}


def test_a_model_that_cannot_run_does_not_keep_the_others_from_it(check: Callable[..., Ended]) -> None:
    ended = check(SMALL + SAME + EPS.replace("other_eps", "nobody") + WAIVER)

    assert ended.code == 2
    assert whole(ended)["failures"] == []
    assert [each["verdict"] for each in whole(ended)["models"]] == ["match", None]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SMALL + SAME + "seeed = 1\n", "model same has no key 'seeed'; did you mean 'seed'?"),
        (SMALL + SAME + 'cells = ["cpu/float31"]\n', "model same: "),
        (SMALL, "nothing to check"),
    ],
)
def test_a_mistake_is_refused_before_anything_runs(
    check: Callable[..., Ended], place: Path, text: str, says: str
) -> None:
    said = check(text)

    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert not (place / "OUT").exists()


def test_a_table_of_pyproject_is_found_from_below_and_its_paths_are_its_own(
    place: Path, call: Callable[..., Ended], command: Callable[..., Ended]
) -> None:
    text = (SMALL + SAME).replace("[defaults]", "[tool.verifier.defaults]")
    (place / "pyproject.toml").write_text(text.replace("[[models]]", "[[tool.verifier.models]]"))
    below = place / "below"
    below.mkdir()

    ended = command(below, "check", "--no-history")

    assert ended.code == 0, ended.err
    assert ended.result("verifier-report/same")["candidate"]["spec"] == "../nets.py:net"


def test_what_is_suggested_for_a_saved_result_makes_it_pass(
    eps_fault: Ended, place: Path, call: Callable[..., Ended]
) -> None:
    saved = str(eps_fault.directory / "DIR")

    suggested = call("judge", saved, "--suggest")
    assert suggested.code == 0
    (place / "suggested.toml").write_text(suggested.out, encoding="utf-8")
    ended = call("judge", saved, "--policy", "suggested.toml")

    assert ended.code == 0
    assert ended.out.startswith("accepted: by policy, no match: ")
    assert "not approved" in ended.out


def test_judge_needs_something_to_judge_by(eps_fault: Ended, call: Callable[..., Ended]) -> None:
    assert "--suggest" in call("judge", str(eps_fault.directory / "DIR")).refusal(2)
