"""A recipe may name a teacher: both models learn from it, and another temperature, share or teacher is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from torch.nn import functional as F

from tests.verifier.training.conftest import RECIPE, network
from verifier.errors import UsageError
from verifier.training.procedure import Procedure
from verifier.training.records import Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verifier.training.recipe import TrainingRecipe
    from verifier.training.records import TrainingParity

    Parity = Callable[..., TrainingParity]
    Pair = tuple[Any, Any]

TEACHERS = """
import torch
from torch import nn

def build(classes=5):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 8 * 8, classes))
    nn.init.normal_(model[2].weight)
    return model

def another():
    torch.manual_seed(3)
    return build()

def of_seven():
    return build(7)
"""


@pytest.fixture
def teachers(tmp_path: Path) -> str:
    path = tmp_path / "teachers.py"
    path.write_text(TEACHERS)
    return str(path)


def distilled(teacher: str, **changes: Any) -> TrainingRecipe:
    return msgspec.structs.replace(RECIPE, teacher=teacher, **changes)


@pytest.mark.parametrize(
    "changes", [{}, {"distillation": 1.0}, {"temperature": 1.0, "accumulate": 2}], ids=str
)
def test_a_model_and_its_copy_learn_alike_from_a_teacher(
    twins: Pair, parity: Parity, teachers: str, changes: dict[str, Any]
) -> None:
    found = parity(*twins, recipe=distilled(f"{teachers}:build", **changes))
    assert (found.verdict, found.bit_exact, found.steps) == ("match", True, 4)
    assert found.losses != parity(*twins).losses


def test_a_rewritten_model_learns_alike_from_a_teacher(
    rewritten: Pair, parity: Parity, teachers: str
) -> None:
    assert parity(*rewritten, recipe=distilled(f"{teachers}:build")).verdict == "match"


@pytest.mark.parametrize(
    "changes",
    [{"temperature": 4.4}, {"distillation": 0.85}, {"teacher": "another"}, {"teacher": ""}],
    ids=str,
)
def test_another_distillation_is_found_in_the_loss(
    twins: Pair, parity: Parity, teachers: str, changes: dict[str, Any]
) -> None:
    recipe = distilled(f"{teachers}:build")
    changes = {key: f"{teachers}:{value}" if value == "another" else value for key, value in changes.items()}
    found = parity(*twins, recipe=recipe, candidate_recipe=msgspec.structs.replace(recipe, **changes))
    assert found.verdict == "diverged"
    assert found.first_divergence is not None
    assert (found.first_divergence.step, found.first_divergence.phase) == (0, Phase.LOSS)


def test_the_loss_is_hintons(teachers: str) -> None:
    recipe = distilled(f"{teachers}:build", temperature=3.0, distillation=0.7)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 4, 2, 2])
    model = network().train()
    procedure = Procedure(model, recipe, batches=1, epoch_batches=1)
    learnt = procedure.learn(images, labels)
    assert procedure._teacher is not None
    assert not procedure._teacher.training
    wanted = (procedure._teacher(images) / 3).softmax(1)
    soft = (learnt.logits / 3).log_softmax(1)
    divergence = (wanted * (wanted.log() - soft)).sum(1).mean()
    expected = 0.3 * F.cross_entropy(learnt.logits, labels) + 0.7 * 9 * divergence
    torch.testing.assert_close(learnt.loss, expected)
    assert all(each.grad is None for each in procedure._teacher.parameters())


def test_a_teacher_of_other_classes_or_of_nothing_is_told(twins: Pair, parity: Parity, teachers: str) -> None:
    with pytest.raises(UsageError, match=r"returns \(4, 7\), the model \(4, 5\)"):
        parity(*twins, recipe=distilled(f"{teachers}:of_seven"))
    with pytest.raises(UsageError, match="there is no 'absent'"):
        parity(*twins, recipe=distilled(f"{teachers}:absent"))


def test_the_recipe_tells_of_its_teacher() -> None:
    assert (
        "0.9 distilled from torchvision:resnet34 at temperature 4" in distilled("torchvision:resnet34").told()
    )
