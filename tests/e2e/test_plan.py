"""`plan` in a process of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended

FILE = """
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


def inputs():
    return torch.randn(5, 3, 8, 8)


def batches():
    return [torch.randn(5, 3, 8, 8)] * 8
"""


@pytest.fixture
def pair(place: Path) -> tuple[str, ...]:
    (place / "net.py").write_text(FILE, encoding="utf-8")
    return ("--baseline", "net.py:build", "--candidate", "net.py:build", "--input", "net.py:inputs")


def test_it_tells_the_phases_of_every_cell_and_writes_nothing(
    call: Callable[..., Ended], pair: tuple[str, ...], place: Path
) -> None:
    ended = call("plan", *pair, "--cells", "cpu/float32,cpu/bfloat16")
    assert ended.code == 0
    assert ended.out.startswith("net.py:build and net.py:build: about ")
    assert "against float64" in ended.out
    assert ended.out.count("cpu/bfloat16") == 3
    assert "2 on 5 samples in bfloat16" in ended.out
    assert not any(place.rglob("result.json"))


def test_what_is_wrong_is_said_as_by_run(call: Callable[..., Ended], pair: tuple[str, ...]) -> None:
    assert call("plan", *pair[:2]).code == 2
    ended = call("plan", *pair, "--cells", "cpu/float31")
    assert (ended.code, "float31" in ended.err) == (2, True)
    ended = call("plan", "--baseline", "of-it.safetensors", *pair[2:4])
    assert (ended.code, "plan is for two models" in ended.err) == (2, True)


def test_a_long_run_says_how_long_it_will_take(
    call: Callable[..., Ended], pair: tuple[str, ...], place: Path
) -> None:
    assert "to go" not in call("run", *pair).err
    anything_is_long = "\nimport verifier.estimate.ahead\n\nverifier.estimate.ahead.LONG = 0.0\n"
    (place / "net.py").write_text(FILE + anything_is_long, encoding="utf-8")
    ended = call("run", *pair)
    assert ended.code == 0
    assert re.search(r"^verifier: about \d+ s to go;", ended.err, re.MULTILINE)


def test_a_data_set_is_shared_among_ranks(call: Callable[..., Ended], pair: tuple[str, ...]) -> None:
    ended = call("plan", *pair[:4], "--data", "net.py:batches", "--ranks", "2")
    assert ended.code == 0, ended.err
    assert "40 samples, about " in ended.out
    assert "for each of 2 ranks" in ended.out
    assert "4 times 2 on 5 samples in float32" in ended.out


def test_parts_that_only_torchrun_builds_are_planned_without_it(
    call: Callable[..., Ended], pair: tuple[str, ...]
) -> None:
    ended = call("plan", *pair[:3], "net.py:part", *pair[4:], "--ranks", "2", "--sharded")
    assert ended.code == 0, ended.err
    assert "on the first of 2 ranks" in ended.out
    assert "the parts were not built" in ended.out
    ended = call("plan", *pair, "--sharded")
    assert (ended.code, "--ranks N" in ended.err) == (2, True)
