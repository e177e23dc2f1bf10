"""Inputs drawn on purpose, from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Ended


def test_every_run_says_what_it_exercised_and_what_not(compare: Callable[..., Ended]) -> None:
    ended = compare("--batch-size", "4", "-v")
    assert ended.code == 0, ended.err
    assert "\nExercised\n  exercised: evaluation mode, 2 and 4 samples a call, input" in ended.out
    assert (
        "\n  not exercised: training mode, gradients, calls after the third, other numbers of samples"
        in ended.out
    )
    summary = (ended.directory / "verifier-report" / "summary.md").read_text(encoding="utf-8")
    assert "Not exercised: training mode" in summary


def test_a_difference_on_a_probe_ends_with_1_and_says_which(compare: Callable[..., Ended]) -> None:
    ended = compare("--baseline", "nets.py:net", "--candidate", "nets.py:of_one_sample", "--probe")
    assert ended.code == 1, ended.err
    assert ended.out.startswith("diverged: the given inputs do not show it, a probe does (1 sample a call)")
    assert "\n  diverged: 1 sample a call: first at" in ended.out
    told = {each["name"] for each in ended.result()["probes"] if each["verdict"] == "diverged"}
    assert told == {"1 sample a call"}
