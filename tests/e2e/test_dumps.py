"""Tensors of another framework as a user meets them: a folder for the baseline, an exit code for the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.verifier.dumps.nets import HERE, arrays, inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended

PORT = f"""import sys
sys.path.insert(0, {str(HERE)!r})
from nets import ConvNet
def right(): return ConvNet()
def wrong(): return ConvNet("eps")
def returns_more(): return ConvNet("softmax")
"""


@pytest.fixture
def dumped(place: Path) -> Path:
    """A folder of what Flax has dumped, beside the port and its input."""
    (place / "port.py").write_text(PORT, encoding="utf-8")
    np.save(place / "x.npy", inputs("convnet").numpy())
    for name, array in arrays("convnet").items():
        (place / "dump" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(place / "dump" / f"{name}.npy", array)
    return place


def run(call: Callable[..., Ended], port: str, *more: str) -> Ended:
    return call(
        "run", "--baseline", "dump/", "--candidate", f"port.py:{port}", "--input", "x.npy", "-v", *more
    )


def test_a_port_is_held_against_a_folder_of_tensors(dumped: Path, call: Callable[..., Ended]) -> None:
    same = run(call, "right")
    assert same.code == 0, (same.out, same.err)
    assert same.out.startswith("match: all 8 pairs agree")
    assert "the baseline is 23 dumped tensors" in same.out
    assert "laid out otherwise than the dumped ones: permute(0, 3, 1, 2)" in same.out
    other = run(call, "wrong", "--out", "other")
    assert other.code == 1
    (culprit,) = other.result("other")["culprits"]
    assert (culprit["baseline"], culprit["candidate"]) == ("intermediates/BatchNorm_1/__call__", "bn2")
    open_ended = run(call, "returns_more", "--out", "more")
    assert open_ended.code == 4
    assert "was not compared" in open_ended.out
    assert dumped.is_dir()


def test_a_dump_that_is_none_is_refused(dumped: Path, call: Callable[..., Ended]) -> None:
    (dumped / "dump" / "inputs.npy").write_bytes(b"no array")
    assert "inputs.npy) cannot be used as dumped tensors" in run(call, "right").refusal(2)
    without = call("run", "--baseline", "dump", "--candidate", "port.py:right").refusal(2)
    assert "give the inputs" in without
