"""Whole data sets, streamed by the real command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Ended


@pytest.fixture
def photos(place: Path) -> Path:
    (place / "photos").mkdir()
    generator = np.random.default_rng(0)
    for number in range(66):
        pixels = generator.integers(0, 256, (72, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "photos" / f"{number:02}.png")
    return place / "photos"


def test_a_directory_of_many_photographs_is_streamed(
    compare: Callable[..., Ended], photos: Path, place: Path
) -> None:
    temporary = place / ("t" * 120)  # no socket can have a name there
    temporary.mkdir()

    ended = compare("--images", photos.name, "--batch-size", "12", env={"TMPDIR": str(temporary)})

    assert ended.code == 0, ended.err
    inputs = ended.result()["inputs"]
    assert (inputs["samples"], inputs["files"], inputs["shapes"]) == (66, [], [[12, 3, 64, 64]])
    assert [cell["batch_size"] for cell in ended.result()["cells"]] == [2, 66]
    assert "the output of all 66 samples is equal" in ended.out


def test_a_photograph_that_cannot_be_read_ends_the_run(compare: Callable[..., Ended], photos: Path) -> None:
    (photos / "61.png").write_bytes(b"no picture")

    said = compare("--images", photos.name, "--batch-size", "12").refusal(2)

    assert "61.png" in said


def test_what_a_generator_gives_is_compared(compare: Callable[..., Ended], place: Path) -> None:
    (place / "batches.py").write_text(
        "import torch\n\ndef batches():\n    for _ in range(7):\n        yield torch.randn(3, 3, 64, 64)\n"
    )

    ended = compare("--data", "batches.py:batches")

    assert ended.code == 0, ended.err
    assert ended.result()["inputs"]["samples"] == 21


def test_one_kind_of_inputs_is_enough(compare: Callable[..., Ended], place: Path) -> None:
    (place / "tokens.jsonl").write_text(json.dumps([1, 2]))

    said = compare("--data", "tokens.jsonl", "--images", "samples").refusal(2)

    assert "--images and --data exclude each other" in said


def test_what_is_told_to_end_keeps_what_it_has(compare: Callable[..., Ended], place: Path) -> None:
    (place / "batches.py").write_text(
        "import os, signal, torch\n\ndef told():\n    for number in range(9):\n"
        "        if number == 5 and not os.path.exists('once'):\n            open('once', 'w').close()\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        yield torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(number))\n"
    )
    command = "--data", "batches.py:told", "--checkpoint", "new/kept"

    ended = compare(*command)

    assert (ended.code, "the same command goes on from there" in ended.err) == (130, True), ended.err
    assert (place / "new" / "kept").is_file()
    assert compare(*command).code == 0
    assert not (place / "new" / "kept").exists()
