"""Recipes as people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    procedure = Procedure(model, ARTICLE, steps=164, epoch_steps=1)
    rates = []
    for _ in range(164):
        rates.append(procedure.lr)
        procedure.learn(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
    assert rates == pytest.approx([0.1] * 82 + [0.01] * 41 + [0.001] * 41)


def test_a_recipe_that_freezes_what_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"freezes 'wieght', which the model has not; did you mean 'weight'"):
        Procedure(nn.Linear(2, 2), TrainingRecipe(frozen=("wieght",)), steps=1, epoch_steps=1)


def test_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(UsageError, match="every parameter is frozen"):
        Procedure(nn.Linear(2, 2), TrainingRecipe(frozen=("*",)), steps=1, epoch_steps=1)
