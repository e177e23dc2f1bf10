"""Networks trained to the end beside their twins; what is wrong with one is said before anything is trained."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from tests.verifier.training.conftest import COSINE, NETS
from verifier.errors import OutOfMemoryError, UsageError
from verifier.experiment.references import published_accuracies, references
from verifier.experiment.twins import Trainee, train
from verifier.models import specs
from verifier.training.data import resized
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


def test_all_that_is_published_on_the_data_is_there_to_be_drawn_beside_what_is_measured() -> None:
    found = {(each.name, each.accuracy): each for each in references("cifar10")}
    accuracies = {name: accuracy for name, accuracy in found if name.endswith(("_b", "_cifar"))}
    assert accuracies == {
        "cifar_resnet20_b": 0.9161,
        "cifar_resnet56_b": 0.9305,
        "cifar_resnet110_b": 0.9271,
        "cifar_resnet1202_b": 0.9361,
        "resnet34_cifar": 0.9484,
    }
    minutes = {name: each.minutes for (name, _), each in found.items() if each.minutes is not None}
    assert minutes == {"cifar_resnet20_b": 26, "resnet34_cifar": 40, "cifar_resnet1202_b": 15 * 60}
    assert {each.family for each in found.values()} == {"CIFAR ResNets", "standard ResNets"}
    assert references("digits") == references("folder cifar10") == ()


def test_tested_at_several_scales_the_mean_of_the_scores_tells_the_class(
    pictures: Data, subject: Trainee, tmp_path: Path
) -> None:
    sizes = (8, 12)
    data = dataclasses.replace(
        pictures, test_scales=tuple(resized(pictures.test_images, size) for size in sizes)
    )
    assert torch.equal(data.test_scales[0], pictures.test_images)
    found = train([subject], data, tmp_path, recipe=COSINE, epochs=1)
    assert found.test_scales == sizes
    model = specs.load(subject.candidate, seed=0).model.eval()
    model.load_state_dict(load_file(tmp_path / found.learners[0].weights_file))
    with torch.no_grad():
        one, other = (model(data.prepared(images)) for images in data.test_scales)
    expected = torch.nn.functional.cross_entropy((one + other) / 2, data.test_labels)
    assert found.learners[0].epochs[0].test_loss == pytest.approx(float(expected), rel=1e-6)
    alone = torch.nn.functional.cross_entropy(one, data.test_labels)
    assert found.learners[0].epochs[0].test_loss != pytest.approx(float(alone), rel=1e-4)


SIZED = """
def sized():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
"""


@pytest.mark.parametrize("twin", [False, True], ids=["alone", "with its twin"])
def test_a_size_that_the_network_does_not_take_is_told_with_the_one_it_is_made_for(
    pictures: Data, tmp_path: Path, twin: bool
) -> None:
    file = tmp_path / "sized.py"
    file.write_text(NETS + SIZED, encoding="utf-8")
    spec = f"{file}:sized"
    trainee = Trainee("net", spec, spec if twin else None, size=8)
    data = dataclasses.replace(pictures, test_scales=(resized(pictures.test_images, 12),))
    said = r"\(4, 3, 12, 12\): RuntimeError: .* It is made for images of 8 x 8 pixels, and is given 8, 12\."
    with pytest.raises(UsageError, match=said):
        train([trainee], data, tmp_path, recipe=COSINE, epochs=1)


COUNTING = """
class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.gamma, self.beta = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("variance", torch.ones(4))

    def forward(self, x):
        x = nn.functional.batch_norm(
            self.conv(x), self.mean, self.variance, self.gamma, self.beta, training=self.training
        )
        return self.fc(x.relu().mean((2, 3)))

class Counted(nn.Module):
    def __init__(self, momentum):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.norm = nn.BatchNorm2d(4, momentum=momentum)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))

def bare():
    return Bare()

def counted():
    return Counted(0.1)

def averaged():
    return Counted(None)
"""


def test_a_twin_that_does_not_count_batches_is_one_and_differs_where_the_count_is_used(
    pictures: Data, tmp_path: Path
) -> None:
    file = tmp_path / "counting.py"
    file.write_text(NETS + COUNTING, encoding="utf-8")
    trainee = Trainee("net", f"{file}:counted", f"{file}:bare")
    found = train([trainee], pictures, tmp_path, recipe=COSINE, epochs=2)
    assert [(each.first_other_epoch, each.same_weights) for each in found.twins] == [(None, True)]
    assert found.learners[0].digest == found.learners[1].digest
    trainee = Trainee("net", f"{file}:averaged", f"{file}:bare")
    found = train([trainee], pictures, tmp_path, recipe=COSINE, epochs=2)
    assert [(each.first_other_epoch, each.same_weights) for each in found.twins] == [(1, False)]


def test_a_network_that_runs_out_of_memory_is_told_as_that(pictures: Data, tmp_path: Path) -> None:
    greedy = "\nclass Greedy(nn.Linear):\n    def forward(self, x):\n        torch.empty(10**15)\n"
    file = tmp_path / "greedy.py"
    file.write_text(f"{NETS}{greedy}\ndef net():\n    return Greedy(3, 5)\n", encoding="utf-8")
    with pytest.raises(OutOfMemoryError, match="out of memory in the candidate"):
        train([Trainee("net", f"{file}:net")], pictures, tmp_path, recipe=COSINE, epochs=1)
