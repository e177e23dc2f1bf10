"""What the command line says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import reference_models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended


def test_models_lists_everything_arch_knows_with_parameters_and_gflops(call: Callable[..., Ended]) -> None:
    ended = call("models")

    assert (ended.code, ended.err) == (0, "")
    header, *rows = [line.split() for line in ended.out.splitlines()]
    assert header == ["name", "family", "depth", "parameters", "GFLOPs", "sites", "baseline"]
    assert [row[0] for row in rows] == reference_models.list()
    assert ["resnet50", "resnet", "50", "25,557,032", "4.089", "175", "torchvision:resnet50"] in rows


def test_a_network_is_shown_beside_what_is_published_about_it(call: Callable[..., Ended]) -> None:
    ended = call("models", "small_resnet18", "resnet50_v1")

    assert (ended.code, ended.err) == (0, "")
    assert "small_resnet18: 1,234,885 parameters" in ended.out
    rows = [line.split()[:4] for line in ended.out.splitlines()]
    assert ["parameters", "1234885", "1,234,885", "agrees"] in rows
    assert ["depth", "18", "10", "differs"] in rows
    assert ["gflops", "3.8", "3.858", "agrees"] in rows


def test_a_network_that_is_not_known_is_not_shown(call: Callable[..., Ended]) -> None:
    assert "did you mean 'resnet50'" in call("models", "resnet18", "resnet51").refusal(2)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (
            ["--help"],
            ["run", "init", "preprocess", "report", "judge", "models", "Exit codes", "130 interrupted"],
        ),
        (
            ["run", "--help"],
            [
                "--arch",
                "--baseline",
                "--candidate",
                "--device",
                "--dtype",
                "--batch-size",
                "--images",
                "--input",
                "--image-size",
                "--weights",
                "--seed",
                "--out",
                "--policy",
                "--debug",
            ],
        ),
        (["report", "--help"], ["DIR"]),
        (["judge", "--help"], ["DIR", "--policy", "--out"]),
        (["models", "--help"], ["--debug"]),
    ],
    ids=lambda value: " ".join(value) if "--help" in value else "",
)
def test_help_answers_without_importing_anything_heavy(
    call: Callable[..., Ended], no_torch: dict[str, str], arguments: list[str], names: list[str]
) -> None:
    ended = call(*arguments, env=no_torch)

    assert (ended.code, ended.err) == (0, "")
    for name in names:
        assert name in ended.out


def test_without_arguments_the_help_is_shown_and_the_exit_code_says_usage(
    call: Callable[..., Ended], no_torch: dict[str, str]
) -> None:
    ended = call(env=no_torch)

    assert ended.code == 2
    assert "Usage:" in ended.out + ended.err


def test_a_run_without_torch_ends_with_3_and_no_traceback(
    compare: Callable[..., Ended], no_torch: dict[str, str]
) -> None:
    message = compare(env=no_torch).refusal(3)

    assert "torch" in message
    assert "no torch today" in message


def test_a_closed_pipe_is_no_reason_to_complain(place: Path, start: Callable[..., object]) -> None:
    process = start("models")
    process.stdout.close()  # type: ignore[attr-defined]
    assert process.stderr.read() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(("command", "takes"), [("run", True), ("train", False), ("train-parity", False)])
def test_what_may_stand_in_a_models_place_is_told_where_it_may(
    call: Callable[..., Ended], command: str, takes: bool
) -> None:
    said = " ".join(call(command, "--help").out.split())

    assert "The trusted model: torchvision:NAME" in said
    assert ("certificate" in said.partition("--baseline SPEC")[2].partition("--candidate SPEC")[0]) is takes
