"""The whole matrix in one command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Ended

SMALL = ("--arch", "cifar_resnet20", "--image-size", "32", "--batch-size", "2")
MATRIX = ("--dtype", "float64,float32,tf32,bfloat16,float16", "--memory-format", "contiguous,channels_last")


def cells(ended: Ended) -> dict[str, str]:
    return {cell["name"]: cell["verdict"] for cell in ended.result()["cells"]}


def test_every_cell_of_this_machine_matches(call: Callable[..., Ended]) -> None:
    ended = call("run", *SMALL, "--device", "all", "--dtype", "all", "--autocast", "off,on")
    assert ended.code == 0, ended.err
    found = cells(ended)
    halves = {
        f"cpu/{dtype}{cast}": "match" for dtype in ("bfloat16", "float16") for cast in ("", "/autocast")
    }
    expected = {"cpu/float64": "match", "cpu/float32": "match", "cpu/tf32": "skipped", **halves}
    assert {name: verdict for name, verdict in found.items() if name.startswith("cpu")} == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cells_named_but_not_there_leave_the_verdict_open(call: Callable[..., Ended]) -> None:
    ended = call("run", *SMALL, "--device", "cpu,cuda", *MATRIX, "--repeat", "2")
    assert ended.code == 4, ended.err
    assert "cuda/float64 was skipped" in ended.out
    assert "repeatable in 2 runs" in ended.out
    found = cells(ended)
    assert len(found) == 20
    assert all(
        (verdict == "skipped") == ("cuda" in name or "tf32" in name) for name, verdict in found.items()
    )
    assert set(found.values()) == {"match", "skipped"}


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("--cells", "cpu/tf32"), 3, "TF32 is arithmetic of CUDA devices"),
        (("--cells", "cpu/float32/nhwc"), 2, "known are contiguous, channels_last and autocast"),
        (("--dtype", "float32", "--autocast", "on"), 2, "no cell is left"),
        (("--autocast", "maybe"), 2, "write on, off or off,on"),
        (("--memory-format", "nhwc"), 2, "unknown setting 'nhwc'"),
    ],
)
def test_cells_that_are_none_are_refused(
    call: Callable[..., Ended], given: tuple[str, ...], code: int, said: str
) -> None:
    ended = call("run", *SMALL, *given)
    assert (ended.code, said in ended.err) == (code, True), ended.err
