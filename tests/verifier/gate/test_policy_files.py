"""Policies from files: what is read, what is refused and how, and what fails in them once all is verified."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests import samples
from verifier import UsageError
from verifier.gate.breaches import expired, unused
from verifier.gate.policy_files import find, policy_for, read, seen_from_here
from verifier.judge import Policy
from verifier.judge.rules import SiteBudget, Waiver
from verifier.records import Accepted, Result, Verdict

MODEL = '[[models]]\nname = "net"\nbaseline = "old.py:build"\ncandidate = "new.py:build"\n'
OTHER = '[[models]]\nname = "head"\nbaseline = "head.safetensors"\ncandidate = "new.py:head"\n'
WAIVER = '[[waivers]]\nsite = "bn2"\nreason = "known"\nexpires = 2030-01-31\n'
BUDGET = '[[budgets]]\nsite = "layer1.*"\ntotal = 1e-3\nreason = "fast kernel"\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "p.toml") -> Path:
    file = Path(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as raised:
        read(write(text))
    said = str(raised.value)
    assert said.startswith("--policy p.toml")
    assert "\n" not in said
    return said


def test_models_budgets_waivers_and_constants_are_read() -> None:
    found = read(
        write(
            f'minimum_coverage = 0.9\n[defaults]\nseed = 3\n{MODEL}cells = ["cpu/float64"]\n{BUDGET}{WAIVER}'
        )
    )

    [entry] = found.entries
    assert (entry.name, entry.cells, entry.seed) == ("net", ("cpu/float64",), 3)
    policy = found.policies["net"]
    assert (policy.name, policy.minimum_coverage) == ("p.toml", 0.9)
    assert policy.waivers == (Waiver(site="bn2", reason="known", expires=date(2030, 1, 31)),)
    assert policy.budgets == (SiteBudget(site="layer1.*", total=1e-3, reason="fast kernel"),)


def test_a_model_has_the_rules_that_are_for_it() -> None:
    rules = f'{BUDGET}model = "head"\n{WAIVER}model = "net"\n'

    found = read(write(f"{MODEL}minimum_coverage = 0.7\n{OTHER}{rules}"))

    assert [(len(each.budgets), len(each.waivers)) for each in found.policies.values()] == [(0, 1), (1, 0)]
    assert [each.minimum_coverage for each in found.policies.values()] == [0.7, 0.5]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("minimum_coverag = 1\n" + MODEL, "no key 'minimum_coverag'; did you mean 'minimum_coverage'?"),
        (MODEL.replace("candidate", "candidat"), "model net has no key 'candidat'; did you mean 'candidate'"),
        (f"[defaults]\ncell = 1\n{MODEL}", "defaults has no key 'cell'; did you mean 'cells'?"),
        (f"[defaults]\nname = 'a'\n{MODEL}", "defaults has no key 'name'"),
        (MODEL + BUDGET.replace("reason", "reasn"), "budget 1 (layer1.*) has no key 'reasn'; did you mean 'reason'?"),
        (MODEL + WAIVER.replace("expires", "expire"), "waiver 1 (bn2) has no key 'expire'; did you mean 'expires'?"),
        (MODEL + WAIVER.replace("[[waivers]]", "[[waiver]]"), "no key 'waiver'; did you mean 'waivers'?"),
        (MODEL + BUDGET.replace('reason = "fast kernel"', ""), "budget 1 (layer1.*) has no reason: say why"),
        (MODEL + WAIVER.replace('reason = "known"', ""), "waiver 1 (bn2) has no reason: say why"),
        (MODEL + WAIVER.replace('"known"', '" "'), "the reason is empty"),
        (MODEL + WAIVER.replace("expires = 2030-01-31", ""), "has no expires: give the last day"),
        (MODEL + WAIVER.replace("2030-01-31", '"soon"'), "expires"),
        (MODEL + WAIVER.replace("2030-01-31", "2030-01-31T10:00:00Z"), "expires"),
        (MODEL + WAIVER.replace('site = "bn2"', ""), "waiver 1 has no site"),
        (MODEL + WAIVER.replace("bn2", "*"), "whatever goes wrong"),
        (MODEL + OTHER + WAIVER, "name its model, or the cause as well"),
        (MODEL + WAIVER + 'model = "nett"\n', "'nett', which there is not; did you mean 'net'?"),
        (MODEL + BUDGET.replace("1e-3", "nan"), "total is nan"),
        (MODEL + BUDGET.replace("total = 1e-3", ""), "no limit is given"),
        (MODEL + BUDGET.replace("[[budgets]]", "[budgets]"), "write each under [[budgets]]"),
        ("", "names no models, so there is nothing to check"),
        (WAIVER, "names no models"),
        ("models = []", "names no models"),
        ("models = 3", "write each under [[models]]"),
        (MODEL.replace('name = "net"', ""), "model 1 has no name"),
        (MODEL.replace('"net"', '"../net"'), "a folder's"),
        (MODEL + MODEL, "two models are called net"),
        (MODEL + "cells = []\n", "no cells"),
        (MODEL + 'localise = "allways"\n', "localise"),
        (MODEL + "repeat = 0\n", "repeat is 0"),
        (MODEL.replace('baseline = "old.py:build"', ""), "model net has no baseline"),
        ('[[models]]\nname = "a"\narch = "all"\n', "arch names several"),
        ("base = 'strickt'\n" + MODEL, "did you mean 'strict'?"),
        ("x = [", "no TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_what_where_and_what_to_do(text: str, says: str) -> None:
    assert says in refusal(text)


def test_the_next_pyproject_with_a_table_is_found() -> None:
    write("[tool.other]\n", "in/pyproject.toml")
    write(
        f"[project]\nname = 'x'\n{MODEL.replace('[[models]]', '[[tool.verifier.models]]')}", "pyproject.toml"
    )

    found = find(Path("in").absolute())

    assert found == Path("pyproject.toml").absolute()
    assert [each.name for each in read(found).entries] == ["net"]


def test_where_none_is_found_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"\[tool.verifier\]"):
        find(Path.cwd())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("old.py:build", "nets/old.py:build"),
        ("sub/old.py:build", "nets/sub/old.py:build"),
        ("net.safetensors", "nets/net.safetensors"),
        ("torchvision:resnet18", "torchvision:resnet18"),
        ("package.module:build", "package.module:build"),
        ("/tmp/old.py:build", "/tmp/old.py:build"),
        ("samples", "samples"),
        ("photos", "nets/photos"),
    ],
)
def test_paths_are_relative_to_the_file_they_stand_in(text: str, told: str) -> None:
    Path("nets/photos").mkdir(parents=True)

    assert seen_from_here(text, Path("nets")) == told


def test_run_and_judge_are_given_the_rules_of_the_same_models() -> None:
    file = str(write(f'{MODEL}minimum_coverage = 0.7\n{OTHER}{WAIVER}model = "net"\n'))

    assert len(policy_for(file, "old.py:build", "new.py:build").waivers) == 1
    assert policy_for(file, "old.py:build", "new.py:build").minimum_coverage == 0.7
    assert len(policy_for(file, "x", "y", "net").waivers) == 1
    assert policy_for(file, "old.py:build", "other.py:build").waivers == ()
    assert policy_for("strict", "a", "b") == Policy()


TODAY = date(2026, 6, 1)


def results(*accepted: Accepted) -> dict[str, Result | None]:
    return {"net": replace(samples.diverged(), accepted=accepted), "head": samples.verification()}


def taken(rule: Waiver, **changes: Any) -> Accepted:
    made = Accepted(
        by="waiver", cell="cpu/float64", baseline="b", candidate="c", pattern=str(rule.site),
        reason=rule.reason, said="", expires=rule.expires.isoformat(),
    )  # fmt: skip
    return replace(made, **changes)


KNOWN = Waiver(site="bn2", model="net", reason="known", expires=date(2026, 6, 1))


def test_a_waiver_that_was_needed_fails_nothing() -> None:
    policy = Policy(waivers=(KNOWN,))

    assert expired(policy, TODAY) == ()
    assert unused(policy, results(taken(KNOWN)), TODAY) == ()


def test_a_cause_that_is_misspelt_is_refused_with_the_code_that_was_meant() -> None:
    text = MODEL + WAIVER + 'cause = ["relu-missing", "batchnorm-epps"]\n'
    said = (
        "waiver 1 (bn2) names the cause 'batchnorm-epps', which there is not; did you mean 'batchnorm-eps'?"
    )

    assert said in refusal(text)
    with pytest.raises(UsageError, match="did you mean 'batchnorm-eps'"):
        policy_for("p.toml", "old.py:build", "new.py:build")


def test_one_that_has_expired_fails_and_is_told_once() -> None:
    policy, tomorrow = Policy(waivers=(KNOWN,)), date(2026, 6, 2)

    [said] = expired(policy, tomorrow)
    assert said.startswith("waiver 1 (bn2) expired on 2026-06-01: ")
    assert unused(policy, results(), tomorrow) == ()


def test_one_that_waived_nothing_fails() -> None:
    policy = Policy(waivers=(KNOWN, replace(KNOWN, reason="another")))

    [said] = unused(policy, results(taken(KNOWN)), TODAY)
    assert said.startswith("waiver 2 (bn2) waived nothing: remove it")


def test_a_waiver_of_another_cause_is_told_what_is_wrong_there() -> None:
    [culprit] = samples.diverged().cells[0].culprits
    assert culprit.cause is not None
    policy = Policy(waivers=(replace(KNOWN, site=culprit.baseline or "", cause="relu-missing"),))

    [said] = unused(policy, results(), TODAY)
    assert f"it would have to name {culprit.cause.code}" in said


def test_nothing_is_said_of_rules_for_what_could_not_run() -> None:
    budget = SiteBudget(site="nowhere", total=1.0, reason="x")
    policy = Policy(waivers=(KNOWN,), budgets=(budget,))

    assert unused(policy, {"net": None, "head": samples.verification()}, TODAY) == ()


def test_a_budget_of_no_site_fails() -> None:
    policy = Policy(
        budgets=(
            SiteBudget(site="nowhere", total=1.0, reason="x"),
            SiteBudget(site="*", cell="cuda/*", total=1.0, reason="x"),
            SiteBudget(site="*", cell="cpu/*", total=1.0, reason="x"),
        )
    )

    said = unused(policy, results(), TODAY)

    assert [each.partition(" is for")[0] for each in said] == ["budget 1 (nowhere)", "budget 2 (*)"]


def test_an_accepted_result_is_no_finding() -> None:
    from verifier.gate import code_quality, junit, sarif
    from verifier.gate.annotations import commands
    from verifier.gate.findings import Outcome

    found = samples.diverged()
    cells = tuple(
        replace(cell, verdict=Verdict.ACCEPTED, culprits=()) if cell.culprits else cell
        for cell in found.cells
    )
    outcome = Outcome.of(replace(found, verdict=Verdict.ACCEPTED, culprits=(), cells=cells))

    assert "<failure" not in junit.document([outcome])
    assert "<error" not in junit.document([outcome])
    assert '"results": []' in sarif.document([outcome])
    assert (code_quality.document([outcome]), commands([outcome])) == ("[]\n", "")


def test_a_policy_that_fails_is_a_failure_in_every_format() -> None:
    from verifier.gate import code_quality, junit, sarif
    from verifier.gate.annotations import commands
    from verifier.gate.findings import Outcome

    broken = Outcome.of_policy("p.toml", ["waiver 1 (bn2) waived nothing: remove it."])

    for text in (junit.document([broken]), sarif.document([broken]), code_quality.document([broken])):
        assert "policy: waiver 1 (bn2) waived nothing" in text
    assert commands([broken]).startswith("::error title=p.toml::policy: waiver 1")
