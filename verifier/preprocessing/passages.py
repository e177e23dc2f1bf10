"""Stages of a recipe applied, and what a candidate must have drawn, read off what it made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from verifier.preprocessing.explaining import window
from verifier.preprocessing.photographs import as_array, as_image, in_steps
from verifier.preprocessing.rules import RULES, difference, is_rounding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.preprocessing.candidates import Made
    from verifier.preprocessing.recipes import PhotographRecipe, Stage

READABLE = frozenset({"crop", "flip"})  # what can be read off a result together, and through scaling
WHOLE = 0.02  # steps: as far from a whole step may a picture be that was scaled and normalised in float32


class Passage(NamedTuple):
    """What a candidate was seen to make of what: by the last of `stages`, and by those before it, not seen alone."""

    given: list[Any]
    stages: list[Stage]
    made: list[Any]
    name: str


def passages(recipe: PhotographRecipe, made: Made, decoded: list[Any]) -> Iterator[Passage]:
    """From each stage that was seen to the next, in the candidate's order. It is given the decoded photograph.

    What it shows by other names is passed over, so that whatever was done there is judged with the stage after it.
    """
    order = {stage.name: number for number, stage in enumerate(recipe.stages)}
    given = made.stages.get("decode", decoded)
    for name, pictures in made.stages.items():
        if name == "decode":
            continue
        first = order[name]
        while first > 1 and recipe.stages[first - 1].name not in made.stages:
            first -= 1
        yield Passage(given, list(recipe.stages[first : order[name] + 1]), pictures, name)
        given = pictures


def remaining(recipe: PhotographRecipe, made: Made) -> tuple[str, list[Stage]]:
    """The latest stage of the recipe that was seen, and those after it."""
    names = [stage.name for stage in recipe.stages]
    latest = max((names.index(name) for name in made.stages), default=0)
    return names[latest], list(recipe.stages[latest + 1 :])


def applied(stages: Sequence[Stage], given: Sequence[Any], drawn: Mapping[str, Any]) -> list[Any]:
    """torchvision's stages, given what a candidate has.

    Raises:
        Exception: They do not take it.
    """
    current = list(given)
    for stage in stages:
        current = [
            each for one in _for(stage, current) for each in stage.torchvision(one, drawn.get(stage.name))
        ]
    return current


def _for(stage: Stage, given: Sequence[Any]) -> list[Any]:
    """What torchvision's stage takes, made of what the candidate has."""
    if stage.name != "normalise":
        return [as_image(each) for each in given]
    return [
        each
        if isinstance(each, torch.Tensor) and each.is_floating_point()
        else torch.from_numpy(np.ascontiguousarray(as_array(each).transpose(2, 0, 1))).to(torch.float32)
        for each in given
    ]


def read_off(stages: Sequence[Stage], given: Sequence[Any], made: Sequence[Any]) -> dict[str, Any] | None:
    """What the stages that draw must have drawn to make this: what torchvision's make the same with, or None."""
    drawing = [number for number, stage in enumerate(stages) if stage.draw is not None]
    if not drawing or len(given) != 1 or len(made) != 1:
        return None
    names = {stages[number].name for number in drawing}
    try:
        if names == {"resize"} and drawing == [len(stages) - 1]:
            tried = [{"resize": as_array(made[0]).shape[:2]}]
        elif names <= READABLE:
            tried = _windows(names, stages, drawing, given, made[0])
        else:
            return None
        rule = RULES[stages[-1].rule]
        for drawn in tried:
            source = applied(stages[:-1], given, drawn)
            expected = applied(stages[-1:], source, drawn)
            if is_rounding(difference(made, expected, rule), made, expected, source[0], rule):
                return drawn
    except Exception:  # torchvision's stages do not take what the candidate has
        return None
    return None


def could_be_read(stages: Sequence[Stage]) -> bool:
    """Whether what these stages draw shows in what they make together."""
    names = {stage.name for stage in stages if stage.draw is not None}
    return names <= READABLE or (names == {"resize"} and stages[-1].name == "resize")


def _windows(
    names: set[str], stages: Sequence[Stage], drawing: Sequence[int], given: Sequence[Any], made: Any
) -> list[dict[str, Any]]:
    """Where the picture was cut out, and whether it was mirrored then."""
    source = as_array(applied(stages[: drawing[0]], given, {})[0])
    found = as_array(made)
    after = stages[drawing[-1] + 1 :]
    if after or source.dtype != found.dtype:
        source = np.round(in_steps(source)).astype(np.int64)
        whole = _unscaled(after, found) if after else in_steps(found)
        found = np.round(whole)
        if not float(np.abs(whole - found).max(initial=0)) <= WHOLE:
            return []
        found = found.astype(np.int64)
    tried: list[dict[str, Any]] = []
    for flipped in (False, True) if "flip" in names else (False,):
        drawn: dict[str, Any] = {"flip": flipped} if "flip" in names else {}
        if "crop" in names:
            at = window(source, found[:, ::-1] if flipped else found)
            if at is None:
                continue
            drawn["crop"] = at
        tried.append(drawn)
    return tried


def _unscaled(stages: Sequence[Stage], made: Any) -> np.ndarray[Any, Any]:
    """What stages that change each channel by a factor and an offset made this of, in steps of 255."""
    black, white = (
        as_array(applied(stages, [np.full((4, 4, 3), value, np.uint8)], {})[0]).astype(np.float64)[0, 0]
        for value in (0, 255)
    )
    return np.asarray((made.astype(np.float64) - black) / (white - black) * 255)
