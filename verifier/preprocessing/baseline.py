"""A photograph as torchvision's transforms prepare it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verifier.preprocessing.candidates import seeded
from verifier.preprocessing.photographs import as_array

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.preprocessing.recipes import PhotographRecipe


@dataclass
class Photograph:
    """What the baseline makes of one: pictures after each stage, and what was drawn for it."""

    path: Path
    stages: dict[str, list[Any]]
    drawn: dict[str, Any]

    @property
    def output(self) -> list[Any]:
        """The pictures after the last stage."""
        return next(reversed(self.stages.values()))


def prepared(path: Path, recipe: PhotographRecipe, seed: int = 0, picture: int = 0) -> Photograph:
    """A photograph taken through torchvision's stages.

    Raises:
        Exception: Whatever a decoder raises on the file.
    """
    current: list[Any] = [path]
    made = Photograph(path, {}, {})
    for number, stage in enumerate(recipe.stages):
        if stage.draw is not None:
            seeded(seed, picture, number)
            made.drawn[stage.name] = stage.draw(*as_array(current[0]).shape[:2])
        current = [each for one in current for each in stage.torchvision(one, made.drawn.get(stage.name))]
        made.stages[stage.name] = current
    return made
