"""Networks trained to the end beside their twins; what is wrong with one is said before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import torch

from tests.verifier.training.conftest import COSINE, NETS
from verifier.errors import OutOfMemoryError, UsageError
from verifier.experiment.twins import Trainee, published_accuracies, train
from verifier.training.saving import checkpoint_file

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.training.data import Data


def test_twins_of_one_program_learn_alike_bit_for_bit(
    pictures: Data, subject: Trainee, tmp_path: Path
) -> None:
    found = train([subject], pictures, tmp_path, recipe=COSINE, epochs=2)
    assert [(each.first_other_epoch, each.same_weights) for each in found.twins] == [(None, True)]
    candidate, baseline = found.learners
    assert (candidate.role, baseline.role) == ("candidate", "baseline")
    assert candidate.digest == baseline.digest
    assert candidate.epochs[0].train_loss != candidate.epochs[1].train_loss


def test_a_twin_that_is_another_function_learns_otherwise(
    pictures: Data, subject: Trainee, tmp_path: Path
) -> None:
    file = tmp_path / "other.py"
    text = NETS.replace(
        "    return build(Block)", "    net = build(Block)\n    net[1].eps = 1e-2\n    return net"
    )
    file.write_text(text, encoding="utf-8")
    other = Trainee("net", f"{file}:ours", subject.baseline, None)
    found = train([other], pictures, tmp_path, recipe=COSINE, epochs=2)
    assert [(each.first_other_epoch, each.same_weights) for each in found.twins] == [(1, False)]


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
    pictures: Data, subject: Trainee, tmp_path: Path, last: tuple[str, str, str], said: str
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
            [subject, Trainee(name, f"{file}:{candidate}", f"{file}:{baseline}" if baseline else None)],
            pictures,
            out,
            recipe=recipe,
            epochs=1,
            resume=True,
            log=learnt.append,
        )
    assert (learnt, [path.name for path in out.iterdir()]) == ([], ["old-candidate.checkpoint.pt"])


def test_a_training_too_short_for_a_step_is_refused(pictures: Data, subject: Trainee, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(COSINE, accumulate=11)
    with pytest.raises(UsageError, match="10 batches in all are fewer than the 11 that make one step"):
        train([subject], pictures, tmp_path, recipe=recipe, epochs=1)


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
        ("none", "does not take inputs of shape .*: RuntimeError: shape"),
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
        train([Trainee("net", spec, spec if twin else None)], pictures, tmp_path, recipe=COSINE, epochs=1)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]


def test_the_confusion_matrix_counts_every_test_image_in_its_class(
    pictures: Data, subject: Trainee, tmp_path: Path
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


def test_a_network_that_runs_out_of_memory_is_told_as_that(pictures: Data, tmp_path: Path) -> None:
    greedy = "\nclass Greedy(nn.Linear):\n    def forward(self, x):\n        torch.empty(10**15)\n"
    file = tmp_path / "greedy.py"
    file.write_text(f"{NETS}{greedy}\ndef net():\n    return Greedy(3, 5)\n", encoding="utf-8")
    with pytest.raises(OutOfMemoryError, match="out of memory in the candidate"):
        train([Trainee("net", f"{file}:net")], pictures, tmp_path, recipe=COSINE, epochs=1)
