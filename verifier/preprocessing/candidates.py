"""The candidate's preprocessing: from scratch, or one a user names, whose stages may be seen or not."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from reference_models.preprocessing import RECIPES
from verifier.border.error_texts import account
from verifier.border.programs import by_program
from verifier.border.signals import check_unanswered
from verifier.environment import seed_all
from verifier.errors import ModelError, SourceError
from verifier.models import specs
from verifier.preprocessing import stage_names
from verifier.preprocessing.photographs import as_array, in_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from PIL import Image

    from verifier.preprocessing.recipes import PhotographRecipe

REFERENCE = "reference"  # the candidate of `reference_models`, beside the networks there
FORMS = "path/to/file.py:callable or package.module:callable"


@dataclass
class Made:
    """What a preprocessing made of one photograph: pictures after each stage that was seen, in its own order.

    `whole` says that nothing was done after the last of them, so that a stage that would follow is missing.
    `unknown` are what else it has shown, by names that are no stages'.
    """

    output: list[Any]
    stages: dict[str, list[Any]] = field(default_factory=dict)
    whole: bool = False
    drawn: dict[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def seeded(seed: int, picture: int, stage: int) -> None:
    """Start all global random states anew, so that what is drawn depends on the photograph and the stage alone."""
    seed_all((seed * 1_000_003 + picture * 1_009 + stage) % 2**32)


class FromScratch:
    """`reference_models.preprocessing`. What it draws is put aside for what the baseline drew, after a comparison."""

    name = ""

    def __init__(self, recipe: PhotographRecipe) -> None:
        self.steps = RECIPES[recipe.name](recipe.size)

    def made(
        self, path: Path, _decoded: Image.Image, seed: int, picture: int, drawn: Mapping[str, Any]
    ) -> Made:
        """Everything the stages make of a photograph."""
        current: list[Any] = [path]
        made = Made([], whole=True)
        for number, step in enumerate(self.steps):
            parameters = None
            if step.draw is not None:
                seeded(seed, picture, number)
                made.drawn[step.name] = step.draw(*as_array(current[0]).shape[:2])
                parameters = drawn[step.name]
            current = [each for given in current for each in step.make(given, parameters)]
            made.stages[step.name] = current
        made.output = current
        return made


class Supplied:
    """A preprocessing a user names.

    It is a function of one picture (Pillow's) or, if its parameter is called or annotated as one, of a path. It
    returns the tensor for the model, or a dict of what it has after each stage, the tensor last; the keys are the
    stages' names, or other spellings that `verifier.preprocessing.stage_names` knows. A list, a `Compose`
    or an `nn.Sequential` of such functions is taken step by step.
    """

    def __init__(self, name: str, function: Any, recipe: PhotographRecipe) -> None:
        self.name = name
        self.recipe = recipe
        self.steps = _steps(function)
        self.function = function
        if (
            len(self.steps) == 1
            and stage_names.step(self.steps[0], [stage.name for stage in recipe.stages]) is None
        ):
            self.function, self.steps = self.steps[0], []  # one step that does it all
        self.takes_path = not self.steps and _takes_path(function)

    def made(
        self, path: Path, decoded: Image.Image, seed: int, picture: int, _drawn: Mapping[str, Any]
    ) -> Made:
        """What it makes of a photograph.

        Raises:
            ModelError: It raised, or returned no pictures.
        """
        try:
            if self.steps:
                return self._by_step(decoded, seed, picture)
            seeded(seed, picture, 0)
            result = self.function(path if self.takes_path else decoded.copy())
        except BaseException as error:
            check_unanswered(error)
            raise by_program(
                ModelError(
                    f"the candidate's preprocessing {self.name} fails on {path.name}: {account(error)}"
                )
            ) from error
        if isinstance(result, dict):
            return self._by_key(result, path)
        return Made(_pictures(result, self.name))

    def _by_key(self, result: Mapping[Any, Any], path: Path) -> Made:
        if not result:
            raise ModelError(
                f"the candidate's preprocessing {self.name} returned an empty dict for {path.name}."
            )
        pictures = {str(key): _pictures(value, f"{self.name} ({key})") for key, value in result.items()}
        told = stage_names.keys(pictures, [stage.name for stage in self.recipe.stages])
        last = next(reversed(pictures))
        stages = {told[key]: value for key, value in pictures.items() if key in told}
        return Made(
            pictures[last],
            stages,
            whole=last in told,
            unknown=tuple(key for key in pictures if key not in told),
        )

    def _by_step(self, decoded: Image.Image, seed: int, picture: int) -> Made:
        current: Any = decoded.copy()
        made = Made([], {"decode": [decoded]}, whole=True)
        names = {stage.name: number for number, stage in enumerate(self.recipe.stages)}
        latest = "decode"
        for step in self.steps:
            told = stage_names.step(step, names)
            seeded(seed, picture, names.get(told or latest, 0))
            before, current = current, step(current)
            latest = told or _by_effect(before, current, made.stages, names) or latest
            made.stages.pop(latest, None)  # a later step of the same stage continues it
            made.stages[latest] = _pictures(current, self.name)
        made.output = made.stages[latest]
        return made


def named(spec: str, recipe: PhotographRecipe) -> Candidate:
    """The preprocessing a specification leads to, or `REFERENCE`'s. A function without parameters is called for it.

    Raises:
        SourceError: It leads nowhere, or to something that cannot be called.
    """
    if spec == REFERENCE:
        return FromScratch(recipe)
    if ":" not in spec:
        raise SourceError(f"--candidate-preprocessing {spec}: expected {FORMS}.")
    found = specs.attribute(spec)
    if inspect.isroutine(found) or inspect.isclass(found) or _is_partial(found):
        try:
            required = [
                each
                for each in inspect.signature(found).parameters.values()
                if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
            ]
        except (TypeError, ValueError):
            required = [None]  # type: ignore[list-item] # some built-in callables do not tell
        if not required:
            found = specs.called(found, spec, None)
    if not callable(found) and not isinstance(found, list | tuple):
        raise SourceError(f"{spec} is a {type(found).__name__}, which is no preprocessing: name a function.")
    return Supplied(spec, found, recipe)


def _is_partial(found: object) -> bool:
    return type(found).__name__ == "partial"


def _steps(function: Any) -> list[Callable[[Any], Any]]:
    inner = getattr(function, "transforms", None)
    if isinstance(function, list | tuple):
        inner = function
    if isinstance(function, nn.Sequential):
        inner = list(function)
    if isinstance(inner, nn.ModuleList | list | tuple):
        return [step for each in inner for step in (_steps(each) or [each])]
    return []


def _takes_path(function: Any) -> bool:
    try:
        first = next(iter(inspect.signature(function).parameters.values()))
    except (TypeError, ValueError, StopIteration):
        return False
    annotation = str(getattr(first.annotation, "__name__", first.annotation)).rpartition(".")[2]
    return annotation in {"Path", "str", "PathLike"} or first.name in {
        "path",
        "file",
        "filename",
        "file_name",
        "fname",
    }


def _by_effect(before: Any, after: Any, done: Mapping[str, object], known: Mapping[str, int]) -> str | None:
    """The stage a step belongs to, by what it does to a picture."""
    one, two = (_pictures(each, "")[0] for each in (before, after))
    if as_array(one).shape[:2] != as_array(two).shape[:2]:
        return next((name for name in known if name in {"resize", "pad", "crop"} and name not in done), None)
    if as_array(one).dtype.kind != as_array(two).dtype.kind:
        return "scale" if "scale" in known else None
    if float(in_steps(two).min(initial=0)) < 0 <= float(in_steps(one).min(initial=0)):
        return "normalise" if "normalise" in known else None
    return None


def _pictures(value: Any, what: str) -> list[Any]:
    """One picture or several, from whatever holds them."""
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 4:
        value = list(value)
    found = list(value) if isinstance(value, list | tuple) else [value]
    try:
        for each in found:
            as_array(each)
    except TypeError as error:
        raise ModelError(
            f"the candidate's preprocessing {what} returned what is no picture: {error}. Return a tensor, or a dict "
            "of pictures by stage."
        ) from error
    if not found:
        raise ModelError(f"the candidate's preprocessing {what} returned no picture.")
    return found


Candidate = FromScratch | Supplied
