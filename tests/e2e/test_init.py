"""Comparing what two models start from, as a user asks for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended

NETS = """
import torch
from torch import nn
from nets import Net


def burnt():
    torch.rand(1)
    return Net()


def wrong_gain():
    model = Net()
    nn.init.kaiming_normal_(model.conv2.weight)
    return model


def something_else():
    return nn.Sequential(nn.Conv1d(1, 1, 1), nn.Linear(3, 3))
"""
PAIR = ("init", "--baseline", "nets.py:net", "--candidate")


def saved(ended: Ended, out: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (ended.directory / out / "initialisation.json").read_text(encoding="utf-8")
    )
    return content


def test_the_network_written_from_the_paper_starts_from_torchvisions_bits(call: Callable[..., Ended]) -> None:
    ended = call("init", "--arch", "resnet18", "--seed", "0")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("match: all 122 tensors hold the same bits from seed 0\n")
    assert ended.new == frozenset()


def test_a_tensor_drawn_otherwise_is_named_with_what_it_looks_like(
    call: Callable[..., Ended], place: Path
) -> None:
    (place / "starts.py").write_text(NETS, encoding="utf-8")

    same = call(*PAIR, "starts.py:burnt", "--out", "same")
    wrong = call(*PAIR, "starts.py:wrong_gain", "--out", "wrong")

    assert same.code == 0, same.out + same.err
    assert {row["standing"] for row in saved(same, "same")["tensors"]} == {"identical", "same-distribution"}
    assert wrong.code == 1, wrong.out + wrong.err
    assert wrong.out.startswith("diverged: 1 tensor of 14 is initialised otherwise, first conv2.weight: ")
    assert "it looks like kaiming_normal_(mode='fan_" in wrong.out
    rows = saved(wrong, "wrong")["tensors"]
    assert [row["candidate"] for row in rows if row["standing"] == "diverged"] == ["conv2.weight"]


def test_what_cannot_be_compared_is_refused(call: Callable[..., Ended], place: Path) -> None:
    (place / "starts.py").write_text(NETS, encoding="utf-8")

    assert "two models are needed" in call("init").refusal(2)
    assert "between 0 and 1" in call(*PAIR, "nets.py:net", "--error-rate", "2").refusal(2)
    message = call(*PAIR, "starts.py:something_else").refusal(3)
    assert "name their tensors differently" in message
