"""What there is to report: each cause once, known by what does not change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from tests import samples
from tests.verifier.gate.conftest import OUTCOMES, moved, without_blame
from verifier.gate import code_quality, junit, sarif
from verifier.gate.annotations import commands, summary
from verifier.gate.findings import Finding, Outcome, findings, in_cell, rule
from verifier.gate.places import Place, of_spec, without_home
from verifier.records import Result, Status, Verdict

if TYPE_CHECKING:
    from pathlib import Path


def site_of(found: Finding) -> str:
    """The site of a finding of one."""
    [[site]] = [each.sites for each in found.spots]
    return site


def test_a_culprit_of_several_cells_is_one_finding() -> None:
    [found] = findings(OUTCOMES["diverged"])

    assert found.cells == ("cpu/float64", "cpu/float32")
    assert [each.sites for each in found.spots] == [("stem.bn",)]
    assert found.rule == "batchnorm-eps"
    assert (
        found.message
        == "bn1 (candidate: stem.bn) is wrong: eps is 0.001 instead of 1e-05 (confirmed, batchnorm-eps)"
    )
    assert found.place == Place("nets/new.py", 161, "Bottleneck.forward")
    assert found.baseline == (Place("torchvision/models/resnet.py", 151, "Bottleneck.forward"),)


def test_of_several_cells_the_one_that_knows_a_cause_speaks() -> None:
    result = samples.diverged()
    [first, second] = result.cells
    unknown = tuple(msgspec.structs.replace(row, cause=None) for row in first.culprits)
    cells = (msgspec.structs.replace(first, culprits=unknown), second)

    [found] = findings(Outcome.of(msgspec.structs.replace(result, cells=cells)))

    assert found.rule == "batchnorm-eps"
    assert found.cells == ("cpu/float64", "cpu/float32")


def test_culprits_of_one_cause_are_one_finding_known_by_the_first_of_them() -> None:
    [found] = findings(OUTCOMES["one cause"])

    assert found.message == (
        "3 of 5 batch_norm sites are wrong, first layer0.0.bn: eps is 0.001, the baseline's 1e-05 "
        "(confirmed, batchnorm-eps)"
    )
    assert [(each.place and each.place.line, each.sites) for each in found.spots] == [
        (40 + k, (f"layer0.{k}.bn",)) for k in range(3)
    ]
    assert [each.line for each in found.baseline] == [20, 21, 22]
    [alone] = findings(Outcome.of(samples.caused(samples.cause())))
    assert found.fingerprint == alone.fingerprint


def test_of_one_cause_what_other_cells_find_besides_belongs_to_it() -> None:
    result = samples.caused(samples.cause(), each=3)
    [cell] = result.cells
    cells = (
        msgspec.structs.replace(cell, culprits=cell.culprits[:1]),
        msgspec.structs.replace(
            cell,
            name="cpu/float32",
            culprits=tuple(msgspec.structs.replace(row, cause=None) for row in cell.culprits[:1])
            + cell.culprits[1:],
        ),
    )
    outcome = Outcome.of(msgspec.structs.replace(result, cells=cells))

    [found] = findings(outcome)
    assert found.cells == ("cpu/float64", "cpu/float32")
    assert len(found.spots) == 3
    assert [len(each.spots) for each in in_cell(outcome, cells[1])] == [3]


def test_where_no_culprit_is_known_cells_that_part_elsewhere_are_findings_of_their_own() -> None:
    result = OUTCOMES["not localised"].result
    assert result is not None
    [first, second] = result.cells
    assert second.first_divergence is not None
    elsewhere = msgspec.structs.replace(second.first_divergence, baseline="fc", candidate="fc")
    cells = (first, msgspec.structs.replace(second, first_divergence=elsewhere))

    found = findings(Outcome.of(msgspec.structs.replace(result, cells=cells)))
    assert [(site_of(each), each.cells) for each in found] == [
        ("stem.bn", ("cpu/float64",)),
        ("fc", ("cpu/float32",)),
    ]


def test_every_culprit_is_found_in_order() -> None:
    assert [(site_of(each), each.rule) for each in findings(OUTCOMES["three culprits"])] == [
        ("stem.bn", "batchnorm-eps"),
        ("layer1.0.dropout", "dropout-extra"),
        ("layer1.0.relu", "unexplained"),
    ]


def test_with_a_recording_what_differs_is_told_in_the_place_of_a_cause() -> None:
    [found] = findings(OUTCOMES["a recording"])

    assert found.rule == "unconfirmed"
    assert found.message == "bn1 (candidate: stem.bn) is wrong: eps 0.001, baseline 1e-05"
    assert found.besides == (
        "settings that differ elsewhere: layer1.0.conv1 (p 2, baseline 1), layer1.0.bn1 (p 2, baseline 1)",
        "tensors that hold other values elsewhere: fc.bias",
        "baseline sites without a partner: relu (relu)",
    )
    assert found.place == Place("nets/new.py", 161, "Bottleneck.forward")
    assert found.baseline == ()  # its lines are those of another day


def test_every_format_tells_what_differs_besides() -> None:
    outcome = OUTCOMES["a recording"]
    for text in (
        commands([outcome]),
        sarif.document([outcome]),
        junit.document([outcome]),
        code_quality.document([outcome]),
        summary([outcome]).replace("\\", ""),
    ):
        assert "eps 0.001, baseline 1e-05" in text
        assert "settings that differ elsewhere: layer1.0.conv1 (p 2, baseline 1)" in text
        assert "baseline sites without a partner: relu (relu)" in text
        assert "resnet.py:151" not in text.replace(
            "when it was recorded, torchvision/models/resnet.py:151", ""
        )


def test_what_one_side_alone_has_is_named() -> None:
    result = OUTCOMES["not localised"].result
    assert result is not None
    assert result.cells[0].first_divergence is not None
    first = msgspec.structs.replace(
        result.cells[0].first_divergence,
        candidate=None,
        status=Status.UNMATCHED,
        reason="the candidate has no batch_norm here; behind it, at relu: relative error 1.0e-01",
    )
    cells = tuple(msgspec.structs.replace(cell, first_divergence=first) for cell in result.cells)

    [found] = findings(Outcome.of(msgspec.structs.replace(result, cells=cells)))

    assert (
        found.message == "the models first part at bn1 (baseline only): the candidate has no batch_norm here"
    )


def test_where_culprits_were_not_looked_for_it_is_the_first_divergence() -> None:
    [found] = findings(OUTCOMES["not localised"])

    assert (site_of(found), found.rule) == ("stem.bn", "diverged")
    assert found.message == "the models first part at bn1 (candidate: stem.bn)"


def test_a_verdict_that_no_cell_gave_is_a_finding_of_its_own() -> None:
    [found] = findings(OUTCOMES["criteria"])

    assert found.message == "the models diverge: published criteria failed: output MSE"
    assert (found.spots[0].sites, found.rule) == ((), "diverged")


def test_there_is_a_finding_exactly_where_two_models_diverge(outcome: Outcome) -> None:
    assert bool(findings(outcome)) == (outcome.verdict is Verdict.DIVERGED)
    assert bool(outcome.trouble) == (outcome.verdict not in (Verdict.DIVERGED, Verdict.MATCH))


def fingerprints(result: Result) -> list[str]:
    return [each.fingerprint for each in findings(Outcome.of(result))]


def test_fingerprints_depend_on_neither_lines_nor_errors() -> None:
    result = moved(samples.three_culprits(), 20)
    cells = tuple(
        msgspec.structs.replace(
            cell,
            culprits=tuple(
                msgspec.structs.replace(
                    row,
                    index=row.index + 3,
                    total=samples.comparison(0.5),
                    cause=row.cause and msgspec.structs.replace(row.cause, summary="eps is 0.25"),
                )
                for row in cell.culprits
            ),
        )
        for cell in moved(result, 900).cells
    )

    assert fingerprints(msgspec.structs.replace(result, cells=cells)) == fingerprints(result)


def test_fingerprints_tell_sites_rules_and_candidates_apart() -> None:
    result = samples.diverged()
    [known] = fingerprints(result)
    other = msgspec.structs.replace(result.candidate, spec="nets/new.py:load")
    renamed = msgspec.structs.replace(result.culprits[0], candidate="bn7")
    assert result.culprits[0].cause is not None
    cause = msgspec.structs.replace(result.culprits[0].cause, code="batchnorm-momentum")
    others = [
        msgspec.structs.replace(result, candidate=other),
        *(
            msgspec.structs.replace(
                result, cells=tuple(msgspec.structs.replace(cell, culprits=(row,)) for cell in result.cells)
            )
            for row in (renamed, msgspec.structs.replace(result.culprits[0], cause=cause))
        ),
    ]

    assert len({known, *(mark for each in others for mark in fingerprints(each))}) == 4
    assert len(set(fingerprints(samples.three_culprits()))) == 3


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("batchnorm-eps", "an operator's setting"),
        ("some-op-of-nobody-missing", "the baseline has an operator here"),
        ("unexplained", "nothing that differs as written"),
        ("diverged", "the two models diverge"),
    ],
)
def test_a_rule_says_what_the_table_of_causes_says(code: str, said: str) -> None:
    meaning, fix = rule(code)

    assert meaning.startswith(said)
    assert fix


def test_a_specification_leads_to_its_file() -> None:
    assert of_spec("nets/new.py:load") == Place("nets/new.py")
    assert of_spec("nets/new.py") == Place("nets/new.py")
    assert of_spec("torchvision:resnet50") is None
    assert of_spec("package.module:build") is None


def test_nobodys_home_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    assert without_home(f"{tmp_path}/sub/new.py:load") == "sub/new.py:load"
    assert without_home("/home/ada/new.py:load") == "new.py:load"
    assert without_home("C:\\Users\\ada\\new.py:load") == "new.py:load"
    assert without_home("reference:resnet50") == "reference:resnet50"


@pytest.mark.parametrize("variable", ["GITHUB_WORKSPACE", "CI_PROJECT_DIR"])
def test_files_are_named_from_the_top_of_the_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "new.py").touch()
    monkeypatch.chdir(tmp_path / "models")
    monkeypatch.setenv(variable, str(tmp_path))

    assert of_spec("new.py:load") == Place("models/new.py")
    assert of_spec("gone.py:load") == Place("gone.py")  # no file of the repository

    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert of_spec("new.py:load") == Place("new.py")


def test_a_criteria_verdict_has_no_line() -> None:
    result = without_blame(samples.diverged())
    [found] = findings(Outcome.of(result))

    assert found.place is None
