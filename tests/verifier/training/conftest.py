"""Little networks and images to train on in no time."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from torch import nn

from tests.networks import Block, Rewritten
from verifier.experiment.twins import Trainee
from verifier.training.data import Data
from verifier.training.parity import train_parity
from verifier.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verifier.training.records import TrainingParity

RECIPE = TrainingRecipe(batch_size=4, lr=0.05, schedule="constant")
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


class Killed(Exception):
    """Stands for a kill in the middle of an epoch."""


def network(block: type[nn.Module] = Block) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        block(4),
        block(4, project=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


@pytest.fixture(scope="session")
def pictures() -> Data:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 3, 8, 8), generator=draws, dtype=torch.uint8)
    labels = torch.randint(5, (40,), generator=draws)
    return Data(
        name="pictures",
        source="noise",
        images=images,
        labels=labels,
        test_images=images[:10],
        test_labels=labels[:10],
        classes=tuple("abcde"),
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        padding=1,
        flips=True,
    )


@pytest.fixture
def subject(tmp_path: Path) -> Trainee:
    file = tmp_path / "nets.py"
    file.write_text(NETS, encoding="utf-8")
    return Trainee("net", f"{file}:ours", f"{file}:ours", 8)


@pytest.fixture
def twins() -> tuple[Any, Any]:
    """A network and an equal copy of it."""
    one = network()
    return one, copy.deepcopy(one)


@pytest.fixture
def parity(pictures: Data) -> Callable[..., TrainingParity]:
    """Trains two models for a few steps."""

    def run(baseline: nn.Module, candidate: nn.Module, **options: Any) -> TrainingParity:
        return train_parity(baseline, candidate, pictures, **{"recipe": RECIPE, "steps": 4, **options})

    return run


@pytest.fixture
def rewritten() -> tuple[Any, Any]:
    """A network, and one with other names, operators and order that computes the same."""
    return network(), network(Rewritten)
