"""A model that processes of torchrun train between them, against the whole, which is trained alone."""

from __future__ import annotations

import json
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
from torch.nn.functional import cross_entropy


DROPPED = 0.0


def whole():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(DROPPED), nn.ReLU(), nn.Linear(8, 3))


def sharded():
    from torch.distributed.fsdp import fully_shard
    return fully_shard(whole())


def more():
    model = whole()
    model.extra = nn.Identity()
    model.extra.gain = nn.Parameter(torch.ones(1))
    return model


class Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class OnFirst(nn.Module):
    def __init__(self, whole, read):
        super().__init__()
        self.weight, self.bias, self.read = whole.weight, whole.bias, read

    def forward(self, x):
        own = self.bias if dist.get_rank() == 0 else torch.zeros_like(self.bias)
        if dist.get_rank() and self.read:
            own = own + self.bias.detach() - self.bias.detach()
        return nn.functional.linear(x, self.weight) + Sum.apply(own)


def first(read=False):
    model = whole()
    model[3] = OnFirst(model[3], read)
    return model


def detached():
    return first(read=True)


class Column(nn.Module):
    def __init__(self, whole):
        super().__init__()
        own = torch.arange(dist.get_rank(), 8, 2)
        self.weight, self.bias = (nn.Parameter(t.detach()[own]) for t in (whole.weight, whole.bias))

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


class Row(nn.Module):
    def __init__(self, whole):
        super().__init__()
        self.weight, self.bias = nn.Parameter(whole.weight.detach()[:, dist.get_rank() :: 2]), whole.bias

    def forward(self, x):
        return Sum.apply(nn.functional.linear(x, self.weight)) + self.bias


def unbiased():
    model = whole()
    nn.init.zeros_(model[0].bias)
    return model


def interleaved():
    model = unbiased()
    model[0], model[3] = Column(model[0]), Row(model[3])
    return model


def batches():
    draws = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 6, generator=draws), torch.randint(3, (8,), generator=draws)) for _ in range(3)]


def train(model, batches, meanwhile=lambda model: None, limit=0.5):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for inputs, labels in batches:
        optimiser.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        meanwhile(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        optimiser.step()


def unclipped(model, batches):
    train(model, batches, limit=float("inf"))


def averaged(model, but=""):
    for name, parameter in model.named_parameters():
        if name != but:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def together(model, batches):
    train(model, batches, averaged)


def forgetful(model, batches):
    train(model, batches, lambda model: averaged(model, "0.weight"))


def failing(model, batches):
    raise ValueError("no rest")


def halved(model, batches):
    together(model, batches)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 0.5


def scheduled(model, batches, last=lambda: True):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 2, 0.5)
    for number, (inputs, labels) in enumerate(batches):
        optimiser.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimiser.step()
        if number < 1 or last():
            schedule.step()


def unscheduled(model, batches):
    scheduled(model, batches, last=lambda: False)


class Kept(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.norm = nn.Linear(6, 3), nn.BatchNorm1d(6, track_running_stats=True)

    def forward(self, x):
        return self.inner(self.norm(x))


def kept():
    return Kept()


def polluted(model, batches):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, labels in batches:
        optimiser.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimiser.step()
        with torch.no_grad():
            model(inputs + 9)


def simple(model, batches):
    train(model, batches, limit=float("inf"))


def extra(model, batches):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for inputs, labels in batches:
        optimiser.zero_grad()
        (cross_entropy(model(inputs), labels) + 0 * model.extra.gain.sum()).backward()
        averaged(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimiser.step()
"""


@pytest.fixture
def launch(
    place: Path, clean_environment: Mapping[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Trains a candidate on two processes by a loop, and the whole by another."""
    (place / "net.py").write_text(NET, encoding="utf-8")

    def run(
        candidate: str, loop: str, *more: str, baseline: str = "whole", alone: str = "train", ranks: int = 2
    ) -> Any:
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        specs = {"baseline": baseline, "candidate": candidate, "trainer": alone, "candidate-trainer": loop}
        asked = [each for option, name in specs.items() for each in (f"--{option}", f"net.py:{name}")]
        asked += ["--data", "net.py:batches", "--steps", "3", "--sharded", "--out", "out"]
        return subprocess.run(
            [sys.executable, *torchrun, "-m", "verifier", "train-parity", *asked, *more],
            cwd=place,
            env={**clean_environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


def record(place: Path) -> Any:
    return json.loads((place / "out" / "training-parity.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("candidate", "loop"), [("whole", "together"), ("sharded", "train")])
def test_shared_samples_lead_to_the_whole_s_weights(
    place: Path, launch: Any, candidate: str, loop: str
) -> None:
    done = launch(candidate, loop, "--data-parallel", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("match: 3 steps agree in every phase")
    found = record(place)
    assert {row["phase"] for row in found["rows"]} >= {"forward", "gradients as applied", "optimiser"}
    assert all(error <= 1e-12 for row in found["rows"] for error in row["intrinsic"] if error is not None)


def test_one_gradient_that_is_never_added_up_is_blamed_alone(place: Path, launch: Any) -> None:
    done = launch("whole", "forgetful", "--data-parallel", "2")
    found = record(place)
    assert found["verdict"] == "diverged", done.stderr
    (culprit,) = found["culprits"]
    assert (culprit["step"], culprit["phase"], culprit["tensor"]) == (0, "backward", "0.weight")
    assert (culprit["cause"]["code"], culprit["cause"]["confirmed"]) == ("shard-gradient-unreduced", True)
    assert any(note.endswith("differ only because of those that are blamed") for note in found["notes"])


def test_a_copy_that_nothing_reads_need_not_be_trained(place: Path, launch: Any) -> None:
    done = launch("first", "unclipped", alone="unclipped")
    assert done.returncode == 0, done.stderr
    assert "3.bias is read by nothing on rank 1, and not trained there" in record(place)["notes"]


def test_parts_of_what_starts_at_0_lie_as_the_rest_of_their_module(place: Path, launch: Any) -> None:
    done = launch("interleaved", "unclipped", baseline="unbiased", alone="unclipped")
    assert done.returncode == 0, done.stdout + done.stderr
    assert record(place)["verdict"] == "match"


def test_a_copy_that_is_read_has_to_be_trained(place: Path, launch: Any) -> None:
    launch("detached", "unclipped", alone="unclipped")
    found = record(place)
    assert found["verdict"] == "diverged"
    assert found["culprits"][0]["tensor"] == "3.bias"
    assert found["culprits"][0]["cause"]["code"] == "shard-gradient-missing"


@pytest.mark.parametrize(
    ("candidate", "loop", "alone", "phase", "what"),
    [
        ("whole", "halved", "train", "after the step", "weight at the end"),
        ("whole", "unscheduled", "scheduled", "schedule", "learning rate"),
        ("kept", "polluted", "simple", "running statistics", "buffer"),
    ],
    ids=["after the last batch", "rate of the last step", "statistics"],
)
def test_what_a_loop_leaves_is_compared(
    place: Path, launch: Any, candidate: str, loop: str, alone: str, phase: str, what: str
) -> None:
    more = ("--data-parallel", "2") if loop == "halved" else ()
    baseline = "kept" if candidate == "kept" else "whole"
    done = launch(candidate, loop, *more, baseline=baseline, alone=alone)
    found = record(place)
    assert found["verdict"] == "diverged", done.stdout
    assert (phase, what) in {(each["phase"], each["what"]) for each in found["culprits"]}


def test_the_same_schedule_is_the_same(place: Path, launch: Any) -> None:
    done = launch("whole", "scheduled", "--dtype", "float32", alone="scheduled")
    assert record(place)["verdict"] == "match", done.stdout
    assert not any("never changed" in note for note in record(place)["notes"])


def test_dropouts_that_are_on_leave_it_open(place: Path, launch: Any) -> None:
    net = place / "net.py"
    net.write_text(
        net.read_text(encoding="utf-8").replace("DROPPED = 0.0", "DROPPED = 0.2"), encoding="utf-8"
    )
    launch("whole", "together", "--data-parallel", "2")
    found = record(place)
    assert found["verdict"] == "inconclusive"
    assert found["reason"].startswith("dropouts are on, and what the loops draw for them was not compared")


def test_a_parameter_that_the_whole_does_not_have_leaves_it_open(place: Path, launch: Any) -> None:
    done = launch("more", "extra", "--data-parallel", "2")
    found = record(place)
    assert found["verdict"] == "inconclusive", done.stderr
    assert found["reason"] == "extra.gain is trained and has no partner in the whole model"


def test_a_loop_that_fails_on_the_whole_is_told_that_it_is_alone(place: Path, launch: Any) -> None:
    done = launch("whole", "together", alone="failing")
    assert done.returncode != 0
    assert "the baseline's trainer failed: ValueError: no rest (net.py, line" in done.stderr
    assert "trains the whole on the first process alone" in done.stderr
    assert not (place / "out" / "training-parity.json").exists()


@pytest.mark.parametrize(
    ("arguments", "ranks", "said"),
    [
        (("--data-parallel", "3"), 2, "--data-parallel 3 does not divide 2 processes evenly"),
        (("--weights", "imagenet"), 2, "--weights cannot be had with a sharded candidate"),
        ((), 1, "start it with torchrun"),
        (("--steps", "9"), 2, "the data give 3 batches, 9 are needed: give --steps 3, or less."),
    ],
)
def test_what_cannot_be_had_is_told(launch: Any, arguments: tuple[str, ...], ranks: int, said: str) -> None:
    done = launch("whole", "together", *arguments, ranks=ranks)
    assert done.returncode != 0
    assert said in done.stderr
