"""The tensor for the model, judged where no stage that was seen vouches for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from verifier.preprocessing import explaining, resampling
from verifier.preprocessing.passages import applied, could_be_read, read_off, remaining
from verifier.preprocessing.photographs import as_array, in_steps
from verifier.preprocessing.rules import FACTOR, NEGLIGIBLE, RULES, difference
from verifier.records import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.preprocessing.baseline import Photograph
    from verifier.preprocessing.candidates import Made
    from verifier.preprocessing.recipes import PhotographRecipe, Stage

AGREES, READ, UNDECIDED, DIFFERS = "agrees", "read", "undecided", "differs"


def vouched(recipe: PhotographRecipe, made: Made) -> bool:
    """Whether a stage that was seen made the final tensor, as the last in the recipe's order.

    Of stages that would follow it is known that they are missing.
    """
    seen = [stage.name for stage in recipe.stages if stage.name in made.stages]
    return bool(seen) and list(made.stages) == seen and made.output is made.stages[seen[-1]]


def ordered(recipe: PhotographRecipe, made: Made) -> bool:
    """Whether the stages that were seen are in the recipe's order."""
    return list(made.stages) == [stage.name for stage in recipe.stages if stage.name in made.stages]


def judged(
    recipe: PhotographRecipe, baseline: Photograph, made: Made, read: Mapping[str, Any], unread: set[str]
) -> tuple[str, list[Any], dict[str, Any]]:
    """Whether torchvision's stages make the same final tensor of what the candidate last has shown.

    `read` is what the candidate was seen to draw; what it drew for the stages `unread` is not known. Returned
    are what was found, the tensor expected, and what else it drew.
    """
    in_order = ordered(recipe, made)
    latest, stages = remaining(recipe, made)
    given = made.stages.get(latest, baseline.stages["decode"])
    if not in_order:
        given, stages = made.stages.get("decode", baseline.stages["decode"]), list(recipe.stages[1:])
    try:
        expected = applied(stages, given, baseline.drawn | dict(read)) if stages else given
    except Exception:  # they do not take what the candidate has
        expected = baseline.output
    if _agrees(recipe, stages, given, made.output, expected):
        return AGREES, expected, {}
    drawing = [stage.name for stage in stages if stage.draw is not None]
    unknown = [name for name in drawing if name in unread or not (name in read or name in made.stages)]
    if not drawing or (in_order and not unknown):
        return DIFFERS, expected, {}
    drawn = read_off(stages, given, made.output)
    if drawn is not None:
        return READ, expected, drawn
    if could_be_read(stages) or not _alike(made.output, expected) or not _finite(made.output):
        return DIFFERS, expected, {}
    return UNDECIDED, expected, {}


def _agrees(
    recipe: PhotographRecipe,
    stages: Sequence[Stage],
    given: Sequence[Any],
    made: list[Any],
    expected: list[Any],
) -> bool:
    rule = RULES[recipe.stages[-1].rule]
    same_shapes = [_form(each)[0] for each in made] == [_form(each)[0] for each in expected]
    if same_shapes and difference(made, expected, rule).exact:
        return True
    if not _alike(made, expected):
        return False
    if difference(made, expected, rule).largest <= rule.limit:
        return True
    if recipe.name != "classification" or all(stage.name != "resize" for stage in stages):
        return False
    return _is_rounding(recipe, given[0], made, expected)


def _alike(made: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether shapes and dtypes are the same."""
    return [_form(each) for each in made] == [_form(each) for each in expected]


def _form(picture: Any) -> tuple[tuple[int, ...], str]:
    shape = tuple(picture.shape) if hasattr(picture, "shape") else as_array(picture).shape
    return shape, str(getattr(picture, "dtype", "uint8")).removeprefix("torch.")


def _finite(made: Sequence[Any]) -> bool:
    return all(bool(np.isfinite(as_array(each)).all()) for each in made)


def _is_rounding(recipe: PhotographRecipe, given: Any, made: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether a final tensor is no further from exact arithmetic than the resizing allows."""
    decoded, size = in_steps(given), recipe.size
    shape = resampling.shorter_to(resampling.whole_steps(size), *decoded.shape[:2])
    if min(shape) < size:
        return False
    exact = resampling.resize_exactly(decoded, *shape)
    top, left = (round((length - size) / 2) for length in shape)
    window = torch.from_numpy(exact[top : top + size, left : left + size].transpose(2, 0, 1) / 255)
    wanted = recipe.stages[-1].torchvision(window, None)[0].double()
    step = 1 / 255 / 0.226
    b, c = (
        float((torch.as_tensor(each[0]).double() - wanted).square().mean().sqrt())
        for each in (expected, made)
    )
    return c <= FACTOR * b + NEGLIGIBLE * step


def explained(
    recipe: PhotographRecipe, baseline: Photograph, made: Made, expected: Sequence[Any], *, whole: bool
) -> Cause | None:
    """Why a final tensor differs: `whole` says that geometry may be wrong too, as no stage that was seen is."""
    lost = sum(int(np.count_nonzero(~np.isfinite(as_array(each)))) for each in made.output)
    if lost:
        total = sum(as_array(each).size for each in made.output)
        return Cause(
            code="input-nonfinite",
            summary=f"of the final tensor's {total} numbers {lost} are not finite",
            confirmed=True,
            evidence=("torchvision's are all finite",),
        )
    _, stages = remaining(recipe, made)
    if whole and recipe.name == "classification" and {"resize", "crop"} & {stage.name for stage in stages}:
        decoded = made.stages.get("decode", baseline.stages["decode"])[0]
        shorter = resampling.whole_steps(recipe.size)
        return explaining.why_whole(
            baseline.path, decoded, made.output[0], baseline.output[0], recipe.size, shorter
        )
    for c, b in zip(made.output, expected, strict=False):
        if as_array(c).shape == as_array(b).shape and largest(c, b) > 0:
            return explaining.why_values(c, b)
    return None


def largest(one: Any, other: Any) -> float:
    """The largest difference of two pictures of one shape; infinite where either has NaN."""
    gap = np.abs(as_array(one).astype(np.float64) - as_array(other).astype(np.float64))
    return math.inf if bool(np.isnan(gap).any()) else float(gap.max(initial=0))
