"""A training that is interrupted and resumed ends with the very weights of one that was not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reports.training import page, plain
from tests.verifier.training.conftest import RECIPE
from verifier.environment import describe
from verifier.errors import UsageError
from verifier.saving import to_json
from verifier.training import checkpoint
from verifier.training.experiment import Subject, published_accuracies, train
from verifier.training.saving import checkpoint_file, unfinished
from verifier.training.surroundings import changes, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from verifier.training.data import Data
    from verifier.training.records import Experiment

# Nets and their twins as a user names them: files, so that they are built anew each time.
NETS = """
import torch
from torch import nn

from tests.networks import Block, Rewritten

def build(block):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), block(4), nn.Dropout(0.2),
        block(4, project=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    )

def ours():
    return build(Block)

def theirs():
    return build(Rewritten)
"""
COSINE = msgspec.structs.replace(RECIPE, schedule="cosine", unit="epoch")
MILESTONES = msgspec.structs.replace(RECIPE, schedule="multi-step", unit="epoch", milestones=(1, 2))
ADAM = msgspec.structs.replace(
    RECIPE, optimiser="adam", lr=1e-3, amp="bfloat16", loss_scale=8.0, accumulate=2
)
# 40 images in batches of 6 are 7 batches an epoch: a kill after the first leaves half of a step behind.
ODD = msgspec.structs.replace(ADAM, batch_size=6, schedule="cosine", clip_norm=0.5)
FROZEN = msgspec.structs.replace(
    RECIPE, batch_size=6, accumulate=3, frozen=("0.*", "8.*"), clip_norm=0.01, unit="epoch"
)


class Killed(Exception):
    """Stands for a kill in the middle of an epoch."""


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    file = tmp_path / "nets.py"
    file.write_text(NETS, encoding="utf-8")
    return Subject("net", f"{file}:ours", f"{file}:ours", 8)


def weights(found: Experiment, directory: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {each.role: load_file(directory / each.weights_file) for each in found.learners}


def test_twins_of_one_program_learn_alike_bit_for_bit(
    pictures: Data, subject: Subject, tmp_path: Path
) -> None:
    found = train([subject], pictures, tmp_path, recipe=COSINE, epochs=2)
    assert [(each.first_other_epoch, each.same_weights) for each in found.twins] == [(None, True)]
    candidate, baseline = found.learners
    assert (candidate.role, baseline.role) == ("candidate", "baseline")
    assert candidate.digest == baseline.digest
    assert candidate.epochs[0].train_loss != candidate.epochs[1].train_loss


def test_a_twin_that_is_another_function_learns_otherwise(
    pictures: Data, subject: Subject, tmp_path: Path
) -> None:
    file = tmp_path / "other.py"
    text = NETS.replace(
        "    return build(Block)", "    net = build(Block)\n    net[1].eps = 1e-2\n    return net"
    )
    file.write_text(text, encoding="utf-8")
    other = Subject("net", f"{file}:ours", subject.baseline, None)
    found = train([other], pictures, tmp_path, recipe=COSINE, epochs=2)
    assert [(each.first_other_epoch, each.same_weights) for each in found.twins] == [(1, False)]


@pytest.mark.parametrize(
    "recipe",
    [COSINE, MILESTONES, ADAM, ODD, FROZEN],
    ids=["cosine", "milestones", "adam with amp", "half a step over", "partly frozen"],
)
@pytest.mark.parametrize(
    "images", [50, 130], ids=["in the first epoch of the baseline", "in the second epoch"]
)
def test_killed_and_resumed_a_training_ends_with_the_same_bits(
    pictures: Data, subject: Subject, tmp_path: Path, recipe: Any, images: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for each in (whole, parts):
        each.mkdir()
    uninterrupted = train([subject], pictures, whole, recipe=recipe, epochs=3)

    def kill(_stage: str, done: int, _total: int) -> None:
        if done >= images:
            raise Killed

    with pytest.raises(Killed):
        train([subject], pictures, parts, recipe=recipe, epochs=3, progress=kill)
    assert unfinished(parts)
    torch.rand(5)  # whatever else has been drawn since
    resumed = train([subject], pictures, parts, recipe=recipe, epochs=3, resume=True)

    ours, theirs = weights(uninterrupted, whole), weights(resumed, parts)
    for role, tensors in ours.items():
        assert all(torch.equal(tensor, theirs[role][name]) for name, tensor in tensors.items())
    for one, other in zip(uninterrupted.learners, resumed.learners, strict=True):
        assert one.digest == other.digest
        curves = [[(e.train_loss, e.test_loss, e.lr) for e in each.epochs] for each in (one, other)]
        assert curves[0] == curves[1]


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (("last", "ours", "unlike"), "are no twins"),
        (("last", "unlike", ""), "freezes '0.weight', which the model has not"),
        (("last", "nothing", ""), "nothing"),
        (("old", "ours", ""), "is damaged"),
    ],
    ids=["no twins", "a recipe that does not fit", "no such model", "a damaged checkpoint"],
)
def test_what_is_wrong_with_the_last_network_is_said_before_the_first_is_trained(
    pictures: Data, subject: Subject, tmp_path: Path, last: tuple[str, str, str], said: str
) -> None:
    file = tmp_path / "nets.py"
    unlike = "\ndef unlike():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))\n"
    file.write_text(NETS + unlike, encoding="utf-8")
    name, candidate, baseline = last
    out = tmp_path / "out"
    out.mkdir()
    checkpoint_file(out, "old", "candidate").write_bytes(b"half of it")
    recipe = msgspec.structs.replace(COSINE, frozen=("0.weight",))
    learnt: list[str] = []
    with pytest.raises(UsageError, match=said):
        train(
            [subject, Subject(name, f"{file}:{candidate}", f"{file}:{baseline}" if baseline else None)],
            pictures,
            out,
            recipe=recipe,
            epochs=1,
            resume=True,
            log=learnt.append,
        )
    assert (learnt, [path.name for path in out.iterdir()]) == ([], ["old-candidate.checkpoint.pt"])


def test_a_training_too_short_for_a_step_is_refused(pictures: Data, subject: Subject, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(COSINE, accumulate=11)
    with pytest.raises(UsageError, match="10 batches in all are fewer than the 11 that make one step"):
        train([subject], pictures, tmp_path, recipe=recipe, epochs=1)


def interrupted(pictures: Data, subject: Subject, directory: Path, **options: Any) -> list[str]:
    """Train until the first epoch of the network is learnt; what was said."""
    said: list[str] = []

    def kill(line: str) -> None:
        said.append(line)
        if "epoch" in line and not line.startswith("warning"):
            raise Killed

    with pytest.raises(Killed):
        train([subject], pictures, directory, recipe=COSINE, epochs=3, log=kill, **options)
    return said


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_going_on_with_other_threads_is_said_and_noted_for_good(
    pictures: Data, subject: Subject, tmp_path: Path, threads: int
) -> None:
    alone = Subject("net", subject.candidate)
    note = (
        f"net candidate went on after epoch 1 with threads {threads + 1} (was {threads}): its numbers are not bit "
        "for bit those of a training without an interruption"
    )
    assert len(interrupted(pictures, alone, tmp_path)) == 1
    torch.set_num_threads(threads + 1)
    assert interrupted(pictures, alone, tmp_path, resume=True)[0] == f"warning: {note}."
    said: list[str] = []
    found = train([alone], pictures, tmp_path, recipe=COSINE, epochs=3, resume=True, log=said.append)
    assert said[0] == f"warning: {note}."  # though nothing has changed since the last time
    assert len(said) == 2
    assert found.environment.flags["resumed elsewhere"] == note
    assert f"Note: {note}." in plain(found, "out")
    assert f"Note: {note}." in page(found).told
    saved = json.loads(to_json(found))
    assert saved["environment"]["flags"]["resumed elsewhere"] == note


def test_going_on_in_the_same_surroundings_is_nothing_to_speak_of(
    pictures: Data, subject: Subject, tmp_path: Path
) -> None:
    interrupted(pictures, subject, tmp_path)
    said: list[str] = []
    found = train([subject], pictures, tmp_path, recipe=COSINE, epochs=3, resume=True, log=said.append)
    assert not [line for line in said if "warning" in line]
    assert "Note" not in plain(found, "out")
    assert "resumed elsewhere" not in found.environment.flags


def test_what_changes_the_bits_on_a_processor_is_told_and_what_does_not_is_not() -> None:
    here = describe()
    found = surroundings(here, "cpu")
    assert found["threads"] == str(torch.get_num_threads())
    assert (found["torch"], found["processor"]) == (str(torch.__version__), here.processor)
    without = msgspec.structs.replace(here, flags=here.flags | {"OMP_NUM_THREADS": "7", "cudnn": "gone"})
    assert changes(found, surroundings(without, "cpu")) == ""
    other = msgspec.structs.replace(here, processor="another", flags=here.flags | {"MKL_CBWR": "AVX2"})
    told = changes(found, surroundings(other, "cpu"))
    assert told == f"processor another (was {here.processor}), MKL_CBWR AVX2 (was not set)"


def test_a_checkpoint_of_another_training_is_refused_and_says_why(
    pictures: Data, subject: Subject, tmp_path: Path
) -> None:
    train([subject], pictures, tmp_path, recipe=COSINE, epochs=1)
    with pytest.raises(UsageError, match="epochs was 1, now 2"):
        train([subject], pictures, tmp_path, recipe=COSINE, epochs=2, resume=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unit": "step"}, "the recipe's unit was epoch, now step"),
        ({"lr": 0.05000004}, "the recipe's lr was 0.05, now 0.05000004"),
        ({"clip_norm": 0.5}, "the recipe's clip_norm was none, now 0.5"),
        ({"momentum": 0.5, "lr": 0.1, "eps": 1e-7, "gamma": 0.5}, "the recipe's gamma was|and 1 more"),
    ],
    ids=["unit", "the seventh digit", "what was not set", "more than can be listed"],
)
def test_a_checkpoint_of_another_recipe_is_refused_whatever_differs(
    pictures: Data, subject: Subject, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    alone = Subject("net", subject.candidate)
    train([alone], pictures, tmp_path, recipe=COSINE, epochs=1)
    other = msgspec.structs.replace(COSINE, **change)
    with pytest.raises(UsageError, match=said):
        train([alone], pictures, tmp_path, recipe=other, epochs=1, resume=True)


def test_a_checkpoint_of_a_network_without_its_twin_is_refused_for_twins(
    pictures: Data, subject: Subject, tmp_path: Path
) -> None:
    train([Subject("net", subject.candidate)], pictures, tmp_path, recipe=COSINE, epochs=1)
    with pytest.raises(UsageError, match=r"twin was none, now .*nets\.py:ours"):
        train([subject], pictures, tmp_path, recipe=COSINE, epochs=1, resume=True)


def test_a_network_that_was_rewritten_since_is_refused(
    pictures: Data, subject: Subject, tmp_path: Path
) -> None:
    train([subject], pictures, tmp_path, recipe=COSINE, epochs=1)
    file = tmp_path / "nets.py"
    file.write_text(NETS.replace("nn.BatchNorm2d(4)", "nn.InstanceNorm2d(4)"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"is of another network: 1\.bias is not as"):
        train([subject], pictures, tmp_path, recipe=COSINE, epochs=1, resume=True)


def test_a_checkpoint_of_an_older_version_is_refused(
    pictures: Data, subject: Subject, tmp_path: Path
) -> None:
    file = checkpoint_file(tmp_path, "net", "candidate")
    torch.save({"version": 1, "request": {}}, file)
    with pytest.raises(UsageError, match="written by an older version"):
        train([subject], pictures, tmp_path, recipe=COSINE, epochs=1, resume=True)


def test_a_damaged_checkpoint_is_refused(pictures: Data, subject: Subject, tmp_path: Path) -> None:
    checkpoint_file(tmp_path, "net", "candidate").write_bytes(b"half of it")
    with pytest.raises(UsageError, match="is damaged"):
        train([subject], pictures, tmp_path, recipe=COSINE, epochs=1, resume=True)


def test_a_checkpoint_that_cannot_be_finished_leaves_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "a.checkpoint.pt"
    checkpoint.write(file, {"request": {}, "epochs": 1})

    class Unwritable:
        def __reduce__(self) -> Any:
            raise Killed

    with pytest.raises(Killed):
        checkpoint.write(file, {"request": {}, "epochs": Unwritable()})
    assert checkpoint.read(file, {})["epochs"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_what_a_kill_left_of_a_checkpoint_is_swept_away_and_nothing_else(
    pictures: Data, subject: Subject, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    kept = {
        ".other-candidate.checkpoint.pt-abcd1234",
        ".net-candidate.checkpoint.pt-notes",
        ".net-candidate.checkpoint.pt-abcd1234.txt",
        "net-candidate.checkpoint.pt-abcd1234",
        "net-baseline.checkpoint.pt",
    }
    swept = {".net-candidate.checkpoint.pt-abcd1234", ".net-baseline.checkpoint.pt-__x_y_z_"}
    for name in kept | swept:
        (out / name).write_bytes(b"half of it")
    (out / ".net-candidate.checkpoint.pt-directry").mkdir()
    (out / ".net-candidate.checkpoint.pt-linked_1").symlink_to(out / "net-baseline.checkpoint.pt")
    train([subject], pictures, out, recipe=COSINE, epochs=1)
    left = {path.name for path in out.iterdir()}
    assert not left & swept
    assert left > {*kept, ".net-candidate.checkpoint.pt-directry", ".net-candidate.checkpoint.pt-linked_1"}


def test_what_another_process_is_writing_is_not_swept_away(tmp_path: Path) -> None:
    file = tmp_path / "a.checkpoint.pt"
    seen: list[list[str]] = []

    class Slow:
        def __reduce__(self) -> Any:
            checkpoint.sweep(file)
            seen.append([path.name for path in tmp_path.iterdir()])
            return dict, ()

    checkpoint.write(file, {"request": {}, "epochs": Slow()})
    ((name,),) = seen
    assert name.startswith(".a.checkpoint.pt-")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


ENDS = """
class Ends(nn.Module):
    def __init__(self, outputs, wrong=None, when=(True, False)):
        super().__init__()
        self.net, self.wrong, self.when = nn.Linear(192, outputs), wrong, when

    def forward(self, images):
        logits = self.net(images.flatten(1))
        return self.wrong(logits) if self.wrong and self.training in self.when else logits

def more():
    return Ends(6)

def fewer():
    return Ends(4)

def several():
    return Ends(5, lambda logits: (logits, logits))

def later():
    return Ends(5, lambda logits: logits[:, :4], when=(False,))

def none():
    return Ends(5, lambda logits: logits.view(7, 7, 7))
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("more", r"gives a tensor of shape \(4, 6\) for 4 images; pictures needs \(4, 5\)"),
        ("fewer", r"of shape \(4, 4\)"),
        ("several", "gives tuple for"),
        ("later", r"of shape \(4, 4\)"),
        ("none", "does not take images of shape .*: RuntimeError: shape"),
    ],
)
@pytest.mark.parametrize("twin", [False, True], ids=["alone", "with its twin"])
def test_a_network_that_does_not_end_in_the_classes_is_refused(
    pictures: Data, tmp_path: Path, name: str, said: str, twin: bool
) -> None:
    file = tmp_path / "ends.py"
    file.write_text(NETS + ENDS, encoding="utf-8")
    spec = f"{file}:{name}"
    with pytest.raises(UsageError, match=said):
        train([Subject("net", spec, spec if twin else None)], pictures, tmp_path, recipe=COSINE, epochs=1)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]


def test_the_confusion_matrix_counts_every_test_image_in_its_class(
    pictures: Data, subject: Subject, tmp_path: Path
) -> None:
    found = train([subject], pictures, tmp_path, recipe=COSINE, epochs=1)
    learner = found.learners[0]
    rows = [sum(row) for row in learner.confusion]
    assert rows == torch.bincount(pictures.test_labels, minlength=5).tolist()
    right = sum(learner.confusion[k][k] for k in range(5))
    assert right / sum(rows) == pytest.approx(learner.accuracy)


def test_published_accuracies_are_those_of_the_shortcut_each_source_uses() -> None:
    ((paper, where),) = published_accuracies("cifar_resnet110", "cifar10")
    assert (paper, "1512.03385" in where, "best of five" in where) == (
        0.9357,
        True,
        True,
    )  # an error of 6.43 %
    ((article, _),) = published_accuracies("cifar_resnet56_b", "cifar10")
    assert article == 0.9305
    assert published_accuracies("cifar_resnet32_b", "cifar10") == ()
    assert (
        published_accuracies("cifar_resnet20", "digits") == published_accuracies("resnet18", "cifar10") == ()
    )
