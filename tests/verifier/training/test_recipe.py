"""Recipes as people write them."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import msgspec
import pytest
import torch
from torch import nn

from verifier.errors import UsageError
from verifier.training.procedure import Procedure
from verifier.training.recipe import ARTICLE, TrainingRecipe, article, read_recipe

if TYPE_CHECKING:
    from pathlib import Path


def written(path: Path, text: str) -> TrainingRecipe:
    file = path / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return read_recipe(file, TrainingRecipe())


def test_a_file_says_only_what_is_otherwise(tmp_path: Path) -> None:
    found = written(tmp_path, 'lr = 1\nschedule = "multi-step"\nmilestones = [3, 4]\nbetas = [0.5, 0.9]\n')
    assert found == TrainingRecipe(lr=1.0, schedule="multi-step", milestones=(3, 4), betas=(0.5, 0.9))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rate = 0.1", "a recipe has no 'learning_rate'"),
        ("momentun = 0.1", "did you mean 'momentum'"),
        ("lr = -0.1", "`lr`"),
        ('optimiser = "lion"', "`optimiser`"),
        ("lr = ", "is no TOML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        written(tmp_path, text)
    assert said in str(refusal.value)
    assert "recipe.toml" in str(refusal.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "none.toml", TrainingRecipe())


def test_the_articles_rate_falls_after_82_and_123_of_164_epochs() -> None:
    assert (article(164), ARTICLE.milestones) == (ARTICLE, (82, 123))
    assert article(16).milestones == (8, 12)
    model = nn.Linear(2, 2)
    procedure = Procedure(model, ARTICLE, batches=164, epoch_batches=1)
    rates = []
    for _ in range(164):
        rates.append(procedure.lr)
        procedure.learn(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
    assert rates == pytest.approx([0.1] * 82 + [0.01] * 41 + [0.001] * 41)


def rates(recipe: TrainingRecipe, *, batches: int, epoch_batches: int) -> list[float]:
    """The rate before each batch, and after the last."""
    procedure = Procedure(nn.Linear(2, 2), recipe, batches=batches, epoch_batches=epoch_batches)
    found = [procedure.lr]
    for _ in range(batches):
        procedure.learn(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
        found.append(procedure.lr)
    return found


@pytest.mark.parametrize(("accumulate", "epoch_batches"), [(1, 5), (2, 5), (3, 5), (4, 5), (7, 5)])
def test_a_cosine_over_steps_falls_to_0_with_the_last_step_and_never_rises(
    accumulate: int, epoch_batches: int
) -> None:
    batches = 4 * epoch_batches
    found = rates(TrainingRecipe(lr=0.1, accumulate=accumulate), batches=batches, epoch_batches=epoch_batches)
    made = batches // accumulate
    expected = [0.05 * (1 + math.cos(math.pi * (done // accumulate) / made)) for done in range(batches + 1)]
    assert found == pytest.approx(expected)
    assert found[-1] == pytest.approx(0, abs=1e-12)
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("accumulate", [1, 2, 3, 7])
def test_what_counts_epochs_moves_where_they_end_whatever_is_accumulated(accumulate: int) -> None:
    recipe = TrainingRecipe(
        lr=0.1, accumulate=accumulate, schedule="multi-step", unit="epoch", milestones=(1, 3)
    )
    found = rates(recipe, batches=20, epoch_batches=5)
    assert found == pytest.approx([0.1] * 5 + [0.01] * 10 + [0.001] * 6)


def test_a_step_that_overflows_does_not_delay_a_schedule_of_epochs() -> None:
    torch.manual_seed(0)  # with other draws every answer may be right, and all gradients 0
    recipe = TrainingRecipe(lr=0.1, loss_scale=2.0**127, schedule="multi-step", unit="epoch", milestones=(1,))
    procedure = Procedure(nn.Linear(2, 2), recipe, batches=4, epoch_batches=2)
    for _ in range(2):
        procedure.learn(1e3 * torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
    assert not procedure.optimiser.state  # both gradients overflowed
    assert procedure.lr == pytest.approx(0.01)


def test_gradients_of_frozen_parameters_have_no_part_in_the_clipping() -> None:
    images, labels = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    recipe = TrainingRecipe(frozen=("0.*",), clip_norm=0.01, schedule="constant", momentum=0.0)
    torch.manual_seed(0)
    frozen = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    head = copy.deepcopy(frozen[1])
    procedure = Procedure(frozen, recipe, batches=3, epoch_batches=3)
    alone = Procedure(head, msgspec.structs.replace(recipe, frozen=()), batches=3, epoch_batches=3)
    with torch.no_grad():
        features = frozen[0](images)
    for _ in range(3):
        procedure.learn(images, labels)
        alone.learn(features, labels)
    assert all(torch.equal(*both) for both in zip(frozen[1].parameters(), head.parameters(), strict=True))


def test_a_recipe_that_freezes_what_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"freezes 'wieght', which the model has not; did you mean 'weight'"):
        Procedure(nn.Linear(2, 2), TrainingRecipe(frozen=("wieght",)), batches=1, epoch_batches=1)


def test_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(UsageError, match="every parameter is frozen"):
        Procedure(nn.Linear(2, 2), TrainingRecipe(frozen=("*",)), batches=1, epoch_batches=1)
