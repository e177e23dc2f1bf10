"""One verification by several processes, launched as users launch them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch.distributed

from tests.e2e.conftest import PATIENCE, TWINS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="needs gloo"
)

BATCHES = """
import os, signal, time, torch

def batches(count=7):
    for number in range(count):
        yield torch.randn(3, 3, 32, 32)

def once():
    for number, batch in enumerate(batches()):
        if number == 5 and not os.path.exists("gone"):
            open("gone", "w").close()
            raise ValueError("the disk is gone")
        yield batch

def few():
    return batches(2)

def dying():
    for number, batch in enumerate(batches()):
        if number == 5 and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch

def stuck():
    for number, batch in enumerate(batches()):
        if number == 5 and os.environ.get("RANK") == "1":
            time.sleep(10_000)
        yield batch

def sharded():
    return list(batches())[int(os.environ.get("RANK", "0")) :: 2]

def short():
    return batches(7 - int(os.environ.get("RANK", "0")))

def failing():
    for number, batch in enumerate(batches()):
        if number == 5 and os.environ.get("RANK") == "1":
            raise ValueError("batch five is gone")
        yield batch
"""

DIVERGING = ("--baseline", "nets.py:net", "--candidate", "nets.py:other_eps")


@pytest.fixture
def launch(
    place: Path, clean_environment: Mapping[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `run` on so many ranks."""
    (place / "batches.py").write_text(BATCHES, encoding="utf-8")

    def run(count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
        return subprocess.run(
            [*torchrun, "-m", "verifier", "run", *arguments],
            cwd=place,
            env={**clean_environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


def measured(place: Path, out: str) -> Any:
    result = json.loads((place / out / "result.json").read_text(encoding="utf-8"))
    cells = [
        (cell["verdict"], cell["layers"], cell["output"], cell["batch_size"]) for cell in result["cells"]
    ]
    return cells, result["inputs"], result["exercise"], result["verdict"]


@pytest.mark.parametrize("function", ["batches", "few"])
def test_several_ranks_give_the_result_of_one_bit_for_bit_also_where_one_has_no_samples(
    launch: Callable[..., subprocess.CompletedProcess[str]], place: Path, function: str
) -> None:
    one, three = (
        launch(count, *DIVERGING, "--data", f"batches.py:{function}", "--out", f"ranks{count}")
        for count in (1, 3)
    )

    assert one.stdout == three.stdout.replace("ranks3", "ranks1"), three.stderr
    assert measured(place, "ranks3") == measured(place, "ranks1")
    assert not (place / "verifier-report").exists()


def test_a_match_of_several_ranks_ends_with_0(
    launch: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = launch(2, *TWINS, "--data", "batches.py:batches")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("match: ") == 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("dying", ["SIGKILL"]),
        ("failing", ["verifier: on rank 1, batches.py:failing raised", "batch five is gone"]),
        (
            "stuck",
            ["rank 1 ends: it has come no further for 4 s (--patience), at: reading batches from batches.py"],
        ),
        ("sharded", ["verifier: the ranks are given other samples each", "DistributedSampler"]),
        ("short", ["batches.py:short gives other samples"]),
    ],
)
def test_what_ends_one_rank_ends_all_with_its_reason(
    launch: Callable[..., subprocess.CompletedProcess[str]], place: Path, function: str, said: list[str]
) -> None:
    started = time.monotonic()
    done = launch(2, *TWINS, "--data", f"batches.py:{function}", "--patience", "4")

    assert done.returncode != 0
    for each in said:
        assert each in done.stderr
    assert not (place / "verifier-report" / "result.json").exists()
    assert time.monotonic() - started < PATIENCE / 2


def test_what_one_process_has_begun_two_bring_to_its_end(
    launch: Callable[..., subprocess.CompletedProcess[str]], place: Path
) -> None:
    again = (*DIVERGING, "--data", "batches.py:once", "--checkpoint", "kept")
    begun = launch(1, *again, "--out", "none")
    assert "the disk is gone" in begun.stderr
    assert (place / "kept").is_file()

    ended = launch(2, *again, "--out", "ranks2")

    assert not (place / "kept").exists(), ended.stderr
    launch(1, *DIVERGING, "--data", "batches.py:once", "--out", "ranks1")
    assert measured(place, "ranks2") == measured(place, "ranks1")
