"""A training that is interrupted and resumed ends with the very weights of one that was not."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reports.training import page, plain
from tests.sweeps import swept
from tests.verifier.training.conftest import COSINE, NETS, RECIPE, Killed
from verifier.border import whole_files
from verifier.environment import describe
from verifier.errors import UsageError
from verifier.experiment import checkpoint
from verifier.experiment.twins import Trainee, train
from verifier.storage.saving import to_json
from verifier.training.saving import checkpoint_file, unfinished
from verifier.training.surroundings import changes, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from verifier.training.data import Data
    from verifier.training.records import Experiment

MILESTONES = msgspec.structs.replace(RECIPE, schedule="multi-step", unit="epoch", milestones=(1, 2))
ADAM = msgspec.structs.replace(
    RECIPE, optimiser="adam", lr=1e-3, amp="bfloat16", loss_scale=8.0, accumulate=2
)
# 40 images in batches of 6 are 7 batches an epoch: a kill after the first leaves half of a step behind.
ODD = msgspec.structs.replace(ADAM, batch_size=6, schedule="cosine", clip_norm=0.5)
FROZEN = msgspec.structs.replace(
    RECIPE, batch_size=6, accumulate=3, frozen=("0.*", "8.*"), clip_norm=0.01, unit="epoch"
)


def weights(found: Experiment, directory: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {each.role: load_file(directory / each.weights_file) for each in found.learners}


RECIPES = {
    "cosine": COSINE,
    "milestones": MILESTONES,
    "adam with amp": ADAM,
    "half a step over": ODD,
    "partly frozen": FROZEN,
}
KILLED = {"in the first epoch of the baseline": 50, "in the second epoch": 130}
EARLY, LATE = KILLED


@pytest.mark.parametrize(
    ("when", "name"),
    swept(
        itertools.product(KILLED, RECIPES),
        lambda case: case[0] == (EARLY if case[1] in {"milestones", "adam with amp"} else LATE),
    ),
)
def test_killed_and_resumed_a_training_ends_with_the_same_bits(
    pictures: Data, subject: Trainee, tmp_path: Path, name: str, when: str
) -> None:
    recipe, images = RECIPES[name], KILLED[when]
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


def interrupted(pictures: Data, subject: Trainee, directory: Path, **options: Any) -> list[str]:
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
    pictures: Data, subject: Trainee, tmp_path: Path, threads: int
) -> None:
    alone = Trainee("net", subject.candidate)
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
    assert found.notes == (note,)
    assert f"Note: {note}." in plain(found, "out")
    assert f"Note: {note}." in page(found).told
    saved = json.loads(to_json(found))
    assert saved["notes"] == [note]


def test_going_on_in_the_same_surroundings_is_nothing_to_speak_of(
    pictures: Data, subject: Trainee, tmp_path: Path
) -> None:
    interrupted(pictures, subject, tmp_path)
    said: list[str] = []
    found = train([subject], pictures, tmp_path, recipe=COSINE, epochs=3, resume=True, log=said.append)
    assert not [line for line in said if "warning" in line]
    assert "Note" not in plain(found, "out")
    assert found.notes == ()


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
    pictures: Data, subject: Trainee, tmp_path: Path
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
    pictures: Data, subject: Trainee, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    alone = Trainee("net", subject.candidate)
    train([alone], pictures, tmp_path, recipe=COSINE, epochs=1)
    other = msgspec.structs.replace(COSINE, **change)
    with pytest.raises(UsageError, match=said):
        train([alone], pictures, tmp_path, recipe=other, epochs=1, resume=True)


def test_a_checkpoint_of_other_photographs_or_scales_is_refused(
    pictures: Data, subject: Trainee, tmp_path: Path
) -> None:
    alone = Trainee("net", subject.candidate)
    train([alone], pictures, tmp_path, recipe=COSINE, epochs=1)
    scaled = dataclasses.replace(pictures, test_scales=(pictures.test_images,))
    for other, said in (
        (scaled, "test scales was none, now 8"),
        (dataclasses.replace(pictures, digest="0123456789abcdef"), "photographs was none, now 0123456789ab"),
    ):
        with pytest.raises(UsageError, match=said):
            train([alone], other, tmp_path, recipe=COSINE, epochs=1, resume=True)
    train([alone], scaled, tmp_path, recipe=COSINE, epochs=1)
    with pytest.raises(UsageError, match="test scales was 8, now none"):
        train([alone], pictures, tmp_path, recipe=COSINE, epochs=1, resume=True)


def test_a_checkpoint_of_a_network_without_its_twin_is_refused_for_twins(
    pictures: Data, subject: Trainee, tmp_path: Path
) -> None:
    train([Trainee("net", subject.candidate)], pictures, tmp_path, recipe=COSINE, epochs=1)
    with pytest.raises(UsageError, match=r"twin was none, now .*nets\.py:ours"):
        train([subject], pictures, tmp_path, recipe=COSINE, epochs=1, resume=True)


def test_a_network_that_was_rewritten_since_is_refused(
    pictures: Data, subject: Trainee, tmp_path: Path
) -> None:
    train([subject], pictures, tmp_path, recipe=COSINE, epochs=1)
    file = tmp_path / "nets.py"
    file.write_text(NETS.replace("nn.BatchNorm2d(4)", "nn.InstanceNorm2d(4)"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"is of another network: 1\.bias is not as"):
        train([subject], pictures, tmp_path, recipe=COSINE, epochs=1, resume=True)


def test_a_checkpoint_of_an_older_version_is_refused(
    pictures: Data, subject: Trainee, tmp_path: Path
) -> None:
    file = checkpoint_file(tmp_path, "net", "candidate")
    torch.save({"version": 1, "request": {}}, file)
    with pytest.raises(UsageError, match="written by an older version"):
        train([subject], pictures, tmp_path, recipe=COSINE, epochs=1, resume=True)


def test_a_damaged_checkpoint_is_refused(pictures: Data, subject: Trainee, tmp_path: Path) -> None:
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
    pictures: Data, subject: Trainee, tmp_path: Path
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
            whole_files.sweep(file)
            seen.append([path.name for path in tmp_path.iterdir()])
            return dict, ()

    checkpoint.write(file, {"request": {}, "epochs": Slow()})
    ((name,),) = seen
    assert name.startswith(".a.checkpoint.pt-")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
