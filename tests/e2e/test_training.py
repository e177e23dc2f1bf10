"""Training on the command line: two trainings compared, and one that is killed and goes on."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from tests import pages
from tests.documents import blocks
from tests.e2e.conftest import TWINS, Ended
from tests.photographs import make
from verifier.training.saving import save_experiment

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Call = Callable[..., Ended]

TRAINING = Path(__file__).parents[2] / "docs" / "training.md"
TRAINERS = """
def careless(model, batches):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for images, labels in batches:
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()

def failing(model, batches):
    for images, labels in batches:
        raise ZeroDivisionError("no water")
"""


@pytest.fixture
def trainers(place: Path) -> Path:
    """The loop of `docs/training.md`, and others."""
    (example,) = blocks(TRAINING, "py")
    file = place / "loops.py"
    file.write_text(example + TRAINERS, encoding="utf-8")
    return file


def parity(call: Call, *arguments: str) -> Ended:
    named = {"--candidate", "--arch"} & set(arguments)
    models = () if named else TWINS
    return call("train-parity", *models, "--steps", "3", "--batch-size", "8", *arguments)


def record(ended: Ended) -> dict[str, Any]:
    file = ended.directory / "training-parity" / "training-parity.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def test_batches_of_one_s_own_are_trained_on(call: Call, trainers: Path) -> None:
    (trainers.parent / "batches.py").write_text(
        """
import torch

def few():
    draws = torch.Generator().manual_seed(0)
    for _ in range(3):
        yield torch.randn(4, 3, 32, 32, generator=draws), torch.randint(10, (4,), generator=draws)

def broken():
    yield torch.zeros(4, 3, 32, 32)
""",
        encoding="utf-8",
    )
    ended = parity(call, "--data", "batches.py:few")
    assert (ended.code, ended.err) == (0, "")
    assert record(ended)["data"] == "batches given by the caller"
    ended = parity(call, "--data", "batches.py:broken")
    assert ended.code == 2
    assert "the data are to give batches of two tensors each" in ended.err


def test_twins_are_trained_alike_and_the_record_has_every_tensor(call: Call) -> None:
    ended = parity(call)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("match: 3 steps of both trainings agree in every number, bit for bit")
    names = ("training-parity.json", "training-parity.html", "tensors.csv")
    assert ended.new == {f"training-parity/{name}" for name in names}
    found = record(ended)
    assert (found["verdict"], found["bit_exact"], found["steps"]) == ("match", True, 3)
    phases = {row["phase"] for row in found["rows"]}
    assert phases == {
        "forward",
        "running statistics",
        "loss",
        "backward",
        "gradients as applied",
        "optimiser",
        "after the step",
        "schedule",
    }
    text = (ended.directory / "training-parity" / "tensors.csv").read_text(encoding="utf-8")
    assert len(list(csv.DictReader(text.splitlines()))) == len(found["rows"])


def test_a_recipe_that_says_otherwise_is_named_and_ends_with_1(call: Call, place: Path) -> None:
    (place / "ours.toml").write_text("decay_norms = false\n", encoding="utf-8")
    (place / "theirs.toml").write_text("decay_norms = true\n", encoding="utf-8")
    ended = parity(call, "--recipe", "ours.toml", "--candidate-recipe", "theirs.toml")
    assert ended.code == 1
    assert ended.out.startswith(
        "diverged: step 0, optimiser, momentum_buffer of bn1.weight: weight_decay is 0.0001, the baseline's 0 "
        "(confirmed, weight-decay)"
    )


def test_a_loop_of_ones_own_is_compared_with_another(call: Call, trainers: Path) -> None:
    ended = parity(call, "--trainer", "loops.py:train", "--candidate-trainer", "loops.py:careless")
    assert ended.code == 1
    assert ended.out.startswith("diverged: step 1, backward, gradient of fc.weight: ")
    assert "zero_grad is missing (confirmed, gradients-not-cleared)" in ended.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--recipe", "bad.toml"), 2, "a recipe has no 'learning_rate'"),
        (
            ("--batch-size", "1500"),
            2,
            "1500 is more than the 1437 images there are: give --batch-size 1437, or",
        ),
        (("--candidate-trainer", "loops.py:failing"), 3, "failed at batch 0: ZeroDivisionError: no water"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else None,
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    call: Call, trainers: Path, place: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (place / "bad.toml").write_text("learning_rate = 0.1\n", encoding="utf-8")
    assert said in parity(call, *arguments).refusal(code)


TRAIN = ("train", *TWINS, "--epochs", "2")


@pytest.fixture
def learnt(call: Call) -> Ended:
    """A training that was left alone."""
    return call(*TRAIN, "--out", "whole")


def test_a_killed_training_goes_on_and_ends_with_the_same_bits(
    learnt: Ended, call: Call, start: Callable[..., subprocess.Popen[str]], place: Path
) -> None:
    assert (learnt.code, learnt.err) == (0, "")
    weights = {"whole/nets-py-net-candidate.safetensors", "whole/nets-py-net-baseline.safetensors"}
    assert learnt.new == {"whole/training.json", "whole/training.html", *weights}
    assert "the baseline twin's curves are the same bit for bit, and so are the final weights" in learnt.out

    process = start(*TRAIN, "--out", "parts")
    assert process.stdout is not None
    for _ in range(3):  # both twins' first epoch and the candidate's second
        assert "epoch" in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (place / "parts" / "training.json").exists()

    resumed = call(*TRAIN, "--out", "parts", "--resume")
    assert resumed.code == 0, resumed.err
    assert "epoch 1 of 2" not in resumed.out
    assert "warning" not in resumed.out
    for role in ("candidate", "baseline"):
        one, other = (
            load_file(place / out / f"nets-py-net-{role}.safetensors") for out in ("whole", "parts")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list((place / "parts").glob("*.checkpoint.pt"))


def test_a_folder_of_photographs_is_learnt_beside_the_twin_with_the_same_bits_after_a_kill(
    call: Call, start: Callable[..., subprocess.Popen[str]], place: Path
) -> None:
    """As docs/training.md has it: train --arch small_resnet18 --data figures."""
    make(place / "figures", 4)
    figures = ("train", "--arch", "small_resnet18", "--data", "figures", "--epochs", "2")
    whole = call(*figures, "--out", "whole")
    assert (whole.code, whole.err) == (0, "")
    assert "the baseline twin's curves are the same bit for bit, and so are the final weights" in whole.out

    process = start(*figures, "--out", "parts")
    assert process.stdout is not None
    for _ in range(2):  # both twins' first epoch
        assert "epoch 1 of 2" in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()

    resumed = call(*figures, "--out", "parts", "--resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert "epoch 1 of 2" not in resumed.out
    for role in ("candidate", "baseline"):
        one, other = (
            load_file(place / out / f"small_resnet18-{role}.safetensors") for out in ("whole", "parts")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "nowhere"), "unknown data 'nowhere'; known are digits, cifar10, and folders that hold"),
        (
            ("--data", "figures", "--image-size", "200"),
            "It is made for images of 224 x 224 pixels, and is given 200.",
        ),
        (
            ("--data", "figures", "--test-scales", "224,wide"),
            "the image size must be 'small' or a number of pixels",
        ),
        (("--data", "digits", "--image-size", "64"), "digits has images of 32 x 32 pixels"),
    ],
    ids=["no such folder", "a size the network does not take", "no size", "digits of another size"],
)
def test_photographs_that_cannot_be_learnt_from_are_refused(
    call: Call, place: Path, arguments: tuple[str, ...], said: str
) -> None:
    make(place / "figures", 2, size=64)
    assert said in call("train", "--arch", "small_resnet18", *arguments).refusal(2)


def test_an_unfinished_training_is_not_overwritten(call: Call, place: Path) -> None:
    (place / "parts").mkdir()
    (place / "parts" / "nets-py-net-candidate.checkpoint.pt").touch()
    refused = call(*TRAIN, "--out", "parts").refusal(2)
    assert (
        "parts holds an unfinished training (nets-py-net-candidate.checkpoint.pt). Add --resume to go on"
        in refused
    )


def test_an_unfinished_training_of_another_network_is_not_trained_beside_unasked(
    call: Call, place: Path
) -> None:
    (place / "parts").mkdir()
    (place / "parts" / "other-candidate.checkpoint.pt").touch()
    refused = call(*TRAIN, "--out", "parts").refusal(2)
    assert (
        "parts holds an unfinished training of another network (other-candidate.checkpoint.pt). Ask for that one"
        in refused
    )


def test_what_others_left_unfinished_is_left_alone_and_told(call: Call, place: Path) -> None:
    other = place / "parts" / "other-candidate.checkpoint.pt"
    other.parent.mkdir()
    other.write_bytes(b"precious")
    ended = call(
        *("train", "--candidate", "nets.py:net", "--no-twin", "--epochs", "1", "--batch-size", "512"),
        *("--out", "parts", "--resume"),
    )
    assert ended.code == 0, ended.err
    assert [path.name for path in other.parent.glob("*.checkpoint.pt")] == [other.name]
    assert other.read_bytes() == b"precious"
    assert ended.out.endswith(
        "Left alone: other-candidate.checkpoint.pt in parts is an unfinished training that was not asked for.\n"
    )


def test_a_network_is_named_after_its_file_wherever_that_lies(call: Call, place: Path) -> None:
    spec = f"../{place.name}/nets.py:net"
    ended = call("train", "--candidate", spec, "--no-twin", "--epochs", "1", "--batch-size", "512")

    assert ended.code == 0, ended.err
    assert "training/nets-py-net-candidate.safetensors" in ended.new
    assert ended.out.startswith("nets-py-net candidate, epoch 1 of 1")


@pytest.mark.parametrize(
    ("names", "epochs", "said"),
    [
        (
            ("nets-py-net",),
            5,
            "is finished, and cannot be made longer or shorter: it was asked for --epochs 3, now",
        ),
        (
            ("nets-py-net",),
            3,
            "is finished. Leave out --resume to train anew, or give another --out to keep it.",
        ),
        (("other",), 3, "learnt holds a finished training of other, and nothing to go on with."),
    ],
    ids=["longer", "the same", "another network"],
)
def test_a_finished_training_is_not_gone_on_with(
    call: Call, place: Path, names: tuple[str, ...], epochs: int, said: str
) -> None:
    save_experiment(pages.experiment(names), place / "learnt")

    refused = call("train", *TWINS, "--epochs", str(epochs), "--out", "learnt", "--resume").refusal(2)

    assert said in refused
    assert "Leave out --resume to train anew" in refused


def test_a_network_without_the_classes_of_the_data_is_refused(call: Call, place: Path) -> None:
    with (place / "nets.py").open("a", encoding="utf-8") as file:
        file.write(
            "\n\ndef large():\n    model = Net()\n    model.fc = nn.Linear(8, 1000)\n    return model\n"
        )
    refused = call("train", "--candidate", "nets.py:large", "--no-twin").refusal(2)
    assert "gives a tensor of shape (4, 1000) for 4 images; digits needs (4, 10)" in refused


def test_an_interruption_says_what_is_kept(start: Callable[..., subprocess.Popen[str]], place: Path) -> None:
    process = start("train", *TWINS, "--epochs", "500", "--out", "parts")
    assert process.stdout is not None
    assert "epoch 1 of 500" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == (
        "verifier: interrupted; finished epochs are kept in parts, and --resume goes on from there.\n"
    )
