"""A model that processes of torchrun hold between them, against the whole, as users give it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch.distributed

from tests.e2e.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="needs gloo"
)

NET = """
import torch, torch.distributed as dist
from torch import nn
from torch.nn.functional import linear


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


class Column(nn.Module):
    def __init__(self, whole):
        super().__init__()
        own = [nn.Parameter(t.detach().chunk(2)[dist.get_rank()]) for t in (whole.weight, whole.bias)]
        self.weight, self.bias = own

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class Row(nn.Module):
    def __init__(self, whole, reduced):
        super().__init__()
        self.weight, self.bias = nn.Parameter(whole.weight.detach().chunk(2, 1)[dist.get_rank()]), whole.bias
        self.reduced = reduced

    def forward(self, x):
        y = linear(x, self.weight)
        if self.reduced(x):
            dist.all_reduce(y)
        return y + self.bias


def whole():
    torch.manual_seed(0)
    return Net()


def part(reduced=lambda x: True):
    model = whole()
    model.up, model.down = Column(model.up), Row(model.down, reduced)
    return model


def unreduced():
    return part(lambda x: False)


def stuck():
    return part(lambda x: dist.get_rank() == 0)


class Halves(nn.Module):
    def __init__(self, whole):
        super().__init__()
        self.weight, self.bias = whole.weight, whole.bias

    def forward(self, x):
        own = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
        y = linear(x[:, own], self.weight[:, own])
        dist.all_reduce(y)
        return y + self.bias


def halves():  # each rank has all weights, and computes with half of them
    model = whole()
    model.down = Halves(model.down)
    return model


def slices():  # each gives its own part of what comes out, and calls nobody
    model = whole()
    return nn.Sequential(model.up, nn.ReLU(), Column(model.down))


def batches():
    return [torch.randn(3, 6) for _ in range(4)] + [torch.randn(1, 6)]


def tensors():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    return parallelize_module(whole(), init_device_mesh("cpu", (2,)), plan)


def inputs():
    return torch.randn(3, 6)
"""
HASTY = """
import sys
from datetime import timedelta
from verifier.sharded import asking
asking.PATIENCE = timedelta(seconds=3)
from verifier.__main__ import main
main()
"""


@pytest.fixture
def launch(
    place: Path, clean_environment: Mapping[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `run` on two ranks with a candidate, by a module or a script."""
    (place / "net.py").write_text(NET, encoding="utf-8")
    (place / "hasty.py").write_text(HASTY, encoding="utf-8")

    def run(
        candidate: str, *arguments: str, through: tuple[str, ...] = ("-m", "verifier"), command: str = "run"
    ) -> Any:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *through]
        models = ["--baseline", "net.py:whole", "--candidate", f"net.py:{candidate}"]
        if "--data" not in arguments:
            models += ["--input", "net.py:inputs"]
        return subprocess.run(
            [*torchrun, command, *models, *(["--out", "out"] if command == "run" else []), *arguments],
            cwd=place,
            env={**clean_environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


def result(place: Path) -> Any:
    return json.loads((place / "out" / "result.json").read_text(encoding="utf-8"))


def test_parts_by_hand_make_up_the_whole(place: Path, launch: Any) -> None:
    done = launch("part", "--sharded")
    assert done.returncode == 0, done.stderr
    found = result(place)
    assert found["verdict"] == "match"
    assert [cell["name"] for cell in found["cells"]] == ["cpu/float64", "cpu/float32"]
    placements = {row["baseline"]: row["placement"] for row in found["cells"][1]["layers"]}
    assert placements["up"] == placements["relu"] == "shard(1)"
    assert placements["down"] == placements["output"] == "replica"


def test_tensors_that_say_how_they_lie_need_no_option(place: Path, launch: Any) -> None:
    done = launch("tensors")
    assert done.returncode == 0, done.stderr
    assert {row["placement"] for row in result(place)["cells"][0]["layers"]} == {"shard(1)", "replica"}


def test_a_sum_that_is_left_out_is_named_where_it_is_missing(place: Path, launch: Any) -> None:
    launch("unreduced", "--sharded")
    found = result(place)
    assert found["verdict"] == "diverged"
    assert [row["baseline"] for row in found["culprits"]] == ["down"]
    assert found["first_divergence"]["cause"]["code"] == "shard-unreduced"
    assert "shard-unreduced" in (place / "out" / "summary.md").read_text(encoding="utf-8")


def test_processes_that_wait_for_each_other_end_with_the_reason(place: Path, launch: Any) -> None:
    done = launch("stuck", "--sharded", through=("hasty.py",))
    assert done.returncode != 0
    assert "has waited 3 seconds" in done.stderr
    assert not (place / "out" / "result.json").exists()


def test_what_it_will_take_is_told_by_the_first_process(launch: Any) -> None:
    done = launch("part", "--sharded", command="plan")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on the first of 2 ranks") == 1


@pytest.mark.parametrize("data", [(), ("--data", "net.py:batches")])
@pytest.mark.parametrize("candidate", ["part", "halves"])
def test_parts_that_were_taken_for_sharing_samples_are_told_what_to_ask_for(
    launch: Any, candidate: str, data: tuple[str, ...]
) -> None:
    """The last batch is smaller and so are its tensors; no rank is left waiting for another's."""
    done = launch(candidate, *data)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("verifier:")]
    assert len(said) == 1, done.stderr
    assert f"net.py:{candidate} calls the other processes (allreduce)" in said[0]
    assert "--sharded" in said[0]
    assert re.findall(r"exitcode  : (\d+)", done.stderr) == ["2", "2"]


def test_tensors_that_say_how_they_lie_share_no_samples(launch: Any) -> None:
    done = launch("tensors", "--data", "net.py:batches")
    assert "net.py:tensors calls the other processes (DTensor)" in done.stderr
    assert "--sharded" in done.stderr


def test_ranks_that_give_other_shapes_and_call_nobody_are_told_of_the_option(launch: Any) -> None:
    done = launch("slices", "--data", "net.py:batches")
    assert "the ranks have built other models" in done.stderr
    assert "--sharded" in done.stderr


def test_one_process_holds_nothing_between_several(place: Path, clean_environment: Mapping[str, str]) -> None:
    (place / "net.py").write_text(NET, encoding="utf-8")
    command = ["run", "--baseline", "net.py:whole", "--candidate", "net.py:whole", "--input", "net.py:inputs"]
    done = subprocess.run(
        [sys.executable, "-m", "verifier", *command, "--sharded"],
        cwd=place,
        env=dict(clean_environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "start it with torchrun" in done.stderr
