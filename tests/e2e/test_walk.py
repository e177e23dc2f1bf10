"""Several networks with one command: a line each, a table, a folder each, and the worst exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended

SMALL = ("--image-size", "small", "--no-semantics", "--localise", "never", "--out", "OUT")


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Ended]) -> Ended:
    directory: Path = tmp_path_factory.mktemp("walked")
    return command(directory, "run", "--arch", "small_resnet18,cifar_resnet20,resnet18_int8", *SMALL)


def test_where_all_match_it_ends_with_0_and_a_line_and_a_row_for_each(walked: Ended) -> None:
    assert (walked.code, walked.err) == (0, "")
    lines = walked.out.splitlines()
    assert lines[0].split()[:2] == ["small_resnet18", "match:"]
    assert lines[1].split()[:2] == ["cifar_resnet20", "match:"]
    assert lines[2].split()[:2] == ["resnet18_int8", "match:"]
    assert "it is not the same function" in lines[2]
    assert [line.split()[:4] for line in lines[4:8]] == [
        ["network", "verdict", "policy", "inputs"],
        ["small_resnet18", "match", "strict", "2x3x224x224"],
        ["cifar_resnet20", "match", "strict", "2x3x32x32"],
        ["resnet18_int8", "match", "int8", "2x3x64x64"],
    ]
    assert "3 of 3 networks match" in walked.out


def test_each_network_has_a_folder_with_its_result(walked: Ended, written: Callable[[str], set[str]]) -> None:
    names = ("small_resnet18", "cifar_resnet20", "resnet18_int8")

    index = {"OUT/index.json", "OUT/index.html"}
    assert walked.new == index | {file for name in names for file in written(f"OUT/{name}")}
    for name in names:
        assert walked.result(f"OUT/{name}")["candidate"]["spec"] == f"reference:{name}"


def test_each_network_says_how_to_verify_it_alone(walked: Ended) -> None:
    options = "--image-size small --no-semantics --localise never"
    assert walked.result("OUT/cifar_resnet20")["command"] == (
        f"python -m verifier run {options} --arch cifar_resnet20 --batch-size 2 --out OUT/cifar_resnet20"
    )


def test_the_index_leads_to_every_network_and_is_rendered_again(
    walked: Ended, command: Callable[..., Ended]
) -> None:
    page = walked.directory / "OUT" / "index.html"
    text = page.read_text(encoding="utf-8")
    assert "3 of 3 networks match" in text
    for name in ("small_resnet18", "cifar_resnet20", "resnet18_int8"):
        assert f'<a href="{name}/report.html">{name}</a>' in text
    page.unlink()
    again = command(walked.directory, "report", "OUT")
    assert (again.code, again.err) == (0, "")
    assert page.read_text(encoding="utf-8") == text
    assert again.out in walked.out


def test_the_worst_exit_code_is_the_commands_and_the_others_are_verified_all_the_same(
    call: Callable[..., Ended],
) -> None:
    ended = call("run", "--arch", "resnet18_int8,cifar_resnet20", "--policy", "strict", *SMALL)

    assert ended.code == 1
    assert "1 of 2 networks match" in ended.out
    assert json.loads((ended.directory / "OUT/cifar_resnet20/result.json").read_text())["verdict"] == "match"


def test_a_network_that_cannot_run_does_not_keep_the_others_from_it(call: Callable[..., Ended]) -> None:
    ended = call("run", "--arch", "small_resnet18,cifar_resnet20", *SMALL, "--image-size", "32")

    assert ended.code == 2
    assert (
        "small_resnet18  could not run: the baseline baseline:small_resnet18 does not take the random pictures"
        in ended.out
    )
    assert "cifar_resnet20  match:" in ended.out.replace("cifar_resnet20   ", "cifar_resnet20  ")
    assert "Traceback" not in ended.err


def test_what_cannot_run_any_more_does_not_keep_the_result_of_before_in_its_place(
    call: Callable[..., Ended], place: Path, written: Callable[[str], set[str]]
) -> None:
    small = ("--arch", "small_resnet18,cifar_resnet20", *SMALL, "--batch-size", "1")
    before = call("run", *small)
    assert before.code == 0, before.out + before.err
    kept = {name: (place / name).read_bytes() for name in written("OUT/small_resnet18")}

    ended = call("run", *small, "--image-size", "32")

    assert ended.code == 2
    assert "An earlier result was set aside in OUT/small_resnet18/earlier." in ended.out
    assert [path.name for path in (place / "OUT/small_resnet18").iterdir()] == ["earlier"]
    for name, content in kept.items():
        assert (place / name.replace("small_resnet18/", "small_resnet18/earlier/")).read_bytes() == content
    assert ended.result("OUT/cifar_resnet20")["verdict"] == "match"
    page = (place / "OUT/index.html").read_text(encoding="utf-8")
    assert "1 of 2 networks match, 1 could not run" in page
    assert 'report.html">small_resnet18' not in page
    assert ended.out.endswith(
        "Reports: OUT/NAME/report.html\nNo report, as it could not run: small_resnet18 "
        "(an earlier result was set aside in OUT/small_resnet18/earlier)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--arch", "cifar_resnet20,resnet51"), "unknown architecture 'resnet51'; did you mean 'resnet50'"),
        (("--arch", "all", "--candidate", "nets.py:net"), "--candidate names one model"),
        (("--arch", "resnet18,resnet34", "--map", "map.toml"), "--map"),
    ],
)
def test_what_makes_no_sense_for_several_is_refused_before_anything_runs(
    call: Callable[..., Ended], place: Path, arguments: tuple[str, ...], said: str
) -> None:
    (place / "map.toml").write_text("", encoding="utf-8")

    assert said in call("run", *arguments).refusal(2)


def test_a_single_network_is_given_images_of_its_own_size(call: Callable[..., Ended]) -> None:
    ended = call(
        "run", "--arch", "cifar_resnet20", "--no-semantics", "--localise", "never", "--batch-size", "2"
    )

    assert ended.code == 0
    assert ended.result()["inputs"]["shapes"] == [[2, 3, 32, 32]]
    assert ended.result()["baseline"]["spec"] == "baseline:cifar_resnet20"


def test_blocks_and_stages_are_told_before_the_network(call: Callable[..., Ended]) -> None:
    ended = call("run", "--arch", "cifar_resnet20", "--granularity", "block", "--batch-size", "2")

    assert ended.code == 0
    said = [line.strip() for line in ended.out.splitlines()]
    told = [
        said.index(line) for line in ("11 of 11 blocks match", "5 of 5 stages match", "the network: match")
    ]
    assert told == sorted(told)
    assert [step["level"] for step in ended.result()["steps"]] == ["block"] * 11 + ["stage"] * 5
