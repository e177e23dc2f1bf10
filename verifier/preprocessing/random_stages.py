"""Stages that draw: are their parameters distributed as torchvision's?

One seed for both tells nothing where the draws come in another order. So both are run on a test picture with many
seeds, what the candidate drew is read off what it made, and the two samples are tested.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from verifier.errors import ModelError
from verifier.preprocessing import same_distribution
from verifier.preprocessing.baseline import prepared
from verifier.preprocessing.candidates import FromScratch, seeded
from verifier.preprocessing.final_tensor import DIFFERS, judged, ordered, vouched
from verifier.preprocessing.passages import Passage, applied, passages, read_off, remaining
from verifier.preprocessing.photographs import as_array, in_steps
from verifier.preprocessing.rules import RULES, difference
from verifier.records import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.preprocessing.candidates import Candidate, Made
    from verifier.preprocessing.entries import Entry
    from verifier.preprocessing.recipes import PhotographRecipe, Stage

# After how many draws to look whether more are needed. 64 that are equal are the same draws: flips would be so once
# in 2^64. With fewer than 600 one of nine places that is never drawn would not be beyond all doubt.
LOOKS = (64, 200, 600)
BASELINE = 16  # of the baseline's draws for each of the candidate's
FIRST = 1_000_000  # number of the first test picture, which no photograph has
BY_EFFECT = frozenset({"jitter"})  # what it drew cannot be read off, but how strong its effect is


@dataclass(frozen=True)
class DrawResult:
    """What many draws say of one stage.

    `alike`: both drew the same from the same seeds. `same`: nothing says that they are distributed otherwise.
    `missing` names stages before it that the candidate has not, `together` those that are done with it.
    """

    alike: bool = False
    same: bool = False
    cause: Cause | None = None
    missing: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    words: str = ""


@dataclass
class _Draws:
    """What both drew for one stage, parameter by parameter."""

    candidate: dict[str, list[float]] = field(default_factory=dict)
    baseline: dict[str, list[float]] = field(default_factory=dict)
    read: int = 0
    alike: int = 0
    unread: int = 0
    together: tuple[str, ...] = ()

    def add(
        self, candidate: Mapping[str, float], baseline: Sequence[Mapping[str, float]], *, alike: bool
    ) -> None:
        self.read += 1
        self.alike += alike
        for name, value in candidate.items():
            self.candidate.setdefault(name, []).append(value)
            self.baseline.setdefault(name, []).extend(each[name] for each in baseline)

    @property
    def same_draws(self) -> bool:
        return self.unread == 0 and self.alike == self.read > 0


def last_is_shown(recipe: PhotographRecipe, made: Made) -> None:
    """Where only the recipe's last stage was not seen, the final tensor is what it made."""
    latest, stages = remaining(recipe, made)
    if made.stages and not made.whole and len(stages) == 1 and next(reversed(made.stages)) == latest:
        made.stages[stages[0].name] = made.output


def tested(
    recipe: PhotographRecipe, candidate: Candidate, seed: int, stages: Mapping[str, Entry]
) -> tuple[dict[str, DrawResult], int]:
    """What many draws of a user's preprocessing say of each stage of the recipe that draws.

    Also gives of how many test pictures it makes a final tensor that the recipe never makes, by an order of its own.
    """
    random = [stage.name for stage in recipe.stages if stage.draw is not None]
    if isinstance(candidate, FromScratch) or not random:
        return {}, 0
    otherwise = {name for name in random if stages[name].drawn_alike is False}
    found: dict[tuple[str, bool], _Draws] = {}
    other = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "test.png"
            _test_picture(recipe.size).save(path)
            for number in range(LOOKS[-1]):
                other += _one(recipe, candidate, seed, FIRST + number, path, found)
                if number + 1 in LOOKS and _settled(found, otherwise):
                    break
    except ModelError as error:
        said = f"what it draws could not be tested: {error}"
        return {name: DrawResult(words=said, alike=name not in otherwise) for name in random}, 0
    tests = _tests(found)
    return {
        name: _finding(name, sample, found.get((name, True)), tests)
        for (name, alone), sample in found.items()
        if not alone
    }, other


def _tests(found: Mapping[tuple[str, bool], _Draws]) -> int:
    return len(LOOKS) * sum(same_distribution.count(len(each.candidate)) for each in found.values())


def _settled(found: Mapping[tuple[str, bool], _Draws], otherwise: set[str]) -> bool:
    """Whether more draws would tell nothing new."""
    tests = _tests(found)
    return all(
        not sample.read
        or sample.unread > 0
        or (sample.same_draws and name not in otherwise)
        or same_distribution.refuted(
            sample.candidate, sample.baseline, tests, independent=name not in BY_EFFECT
        )
        for (name, alone), sample in found.items()
        if not alone
    )


def _test_picture(size: int) -> Image.Image:
    """Noise, in which no two windows are alike, around a colour: as high as a crop, so that padding shows."""
    noise = np.random.default_rng(0).integers(-40, 41, (size, size * 5 // 4, 3))
    return Image.fromarray((np.array([130, 90, 60]) + noise).astype(np.uint8))


def _one(
    recipe: PhotographRecipe,
    candidate: Candidate,
    seed: int,
    picture: int,
    path: Path,
    found: dict[tuple[str, bool], _Draws],
) -> bool:
    """One test picture; whether the candidate, in an order of its own, makes of it what the recipe never makes."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    made = candidate.made(path, image, seed, picture, {})
    last_is_shown(recipe, made)
    seen = list(passages(recipe, made, [image]))
    latest, stages = remaining(recipe, made)
    if stages and not vouched(recipe, made):
        seen.append(Passage(made.stages.get(latest, [image]), stages, made.output, ""))
    known: dict[str, Any] = {}
    for passage in seen:
        drawing = [stage for stage in passage.stages if stage.draw is not None]
        if not drawing:
            continue
        together = tuple(stage.name for stage in passage.stages[:-1] if stage.draw is None)
        for stage in drawing:
            found.setdefault((stage.name, False), _Draws(together=together if passage.name else ()))
        known |= _sampled(recipe, passage.stages, passage, seed, picture, found, alone=False)
        if len(passage.stages) > 1 and drawing == passage.stages[-1:]:
            found.setdefault((drawing[0].name, True), _Draws())
            _sampled(recipe, drawing, passage, seed, picture, found, alone=True)
    if ordered(recipe, made):
        return False
    unread = {stage.name for stage in recipe.stages if stage.draw is not None} - set(known)
    return judged(recipe, prepared(path, recipe, seed, picture), made, known, unread)[0] == DIFFERS


def _sampled(
    recipe: PhotographRecipe,
    stages: Sequence[Stage],
    passage: Passage,
    seed: int,
    picture: int,
    found: Mapping[tuple[str, bool], _Draws],
    *,
    alone: bool,
) -> dict[str, Any]:
    """One more draw of each stage, the candidate's and some of the baseline's on the same picture; gives that."""
    names = [stage.name for stage in recipe.stages]
    drawing = [number for number, stage in enumerate(stages) if stage.draw is not None]
    last = stages[-1]
    if [stages[number] for number in drawing] == [last] and last.name in BY_EFFECT:
        sample = found[last.name, alone]
        try:
            source = applied(stages[:-1], passage.given, {})
            (drawn,) = _drawn(last, source[0], seed, picture, names.index(last.name), 1)
            expected = applied([last], source, {last.name: drawn})
            gap = difference(passage.made, expected, RULES[last.rule])
            candidate, baseline = _effects(source[0], passage.made[0]), _effects(source[0], expected[0])
        except Exception:  # torchvision's does not take what the candidate has
            sample.unread += 1
            return {}
        alike = gap.shapes is None and gap.largest <= RULES[last.rule].limit
        sample.add(candidate, [baseline], alike=alike)
        return {last.name: drawn} if alike else {}
    read = read_off(stages, passage.given, passage.made)
    for number in drawing:
        stage = stages[number]
        sample = found[stage.name, alone]
        if read is None:
            sample.unread += 1
            continue
        source = applied(stages[:number], passage.given, read)
        draws = _drawn(stage, source[0], seed, picture, names.index(stage.name), BASELINE)
        size = as_array(source[0]).shape[:2]
        cut = as_array(passage.made[0]).shape[:2]
        sample.add(
            _values(stage, read[stage.name], size, cut),
            [_values(stage, each, size, cut) for each in draws],
            alike=draws[0] == read[stage.name],
        )
    return read or {}


def _drawn(stage: Stage, source: Any, seed: int, picture: int, number: int, times: int) -> list[Any]:
    seeded(seed, picture, number)
    height, width = as_array(source).shape[:2]
    return [stage.draw(height, width) for _ in range(times)] if stage.draw else []


def _values(stage: Stage, drawn: Any, size: tuple[int, ...], cut: tuple[int, ...]) -> dict[str, float]:
    """What was drawn in numbers: places from 0 to 1, lengths in pixels, 1 for a flip."""
    height, width = size
    if stage.name == "crop":
        room = max(1, height - cut[0]), max(1, width - cut[1])
        return {"first row": drawn[0] / room[0], "first column": drawn[1] / room[1]}
    if stage.name == "resize":
        return {
            "shorter side": float(min(drawn)),
            # rounding changes it by less
            "height over width": round(drawn[0] / drawn[1] * width / height, 1),
        }
    return {"flip": float(drawn)}


def _effects(source: Any, made: Any) -> dict[str, float]:
    """How much brighter, richer in contrast and more saturated a picture became, and by how many turns its hue."""
    (mean, spread, chroma), (mean_2, spread_2, chroma_2) = _colours(source), _colours(made)
    brightness = mean_2 / max(mean, 1e-9)
    contrast = spread_2 / max(spread, 1e-9)
    turned = chroma_2 * np.conj(chroma)
    return {
        "brightness": brightness,
        "contrast": contrast / max(brightness, 1e-9),
        "saturation": abs(chroma_2) / max(abs(chroma), 1e-9) / max(contrast, 1e-9),
        "hue": float(np.angle(turned)) / (2 * np.pi),
    }


def _colours(picture: Any) -> tuple[float, float, complex]:
    """Mean and standard deviation of the luminance, and the mean of what is no grey, as a number in the plane."""
    red, green, blue = np.moveaxis(in_steps(picture), 2, 0)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = red + green * np.exp(2j * np.pi / 3) + blue * np.exp(4j * np.pi / 3)
    return float(grey.mean()), float(grey.std()), complex(chroma.mean())


def _finding(name: str, sample: _Draws, alone: _Draws | None, tests: int) -> DrawResult:
    if not sample.read and not (alone and alone.read):
        return DrawResult(words="what it draws cannot be read off what it makes of a test picture")
    if sample.same_draws:
        return DrawResult(alike=True, same=True)
    independent = name not in BY_EFFECT
    why = same_distribution.refuted(sample.candidate, sample.baseline, tests, independent=independent)
    if why is None and not sample.unread:
        if name in BY_EFFECT:
            return DrawResult(
                words=f"in {sample.read} draws its effects are distributed as torchvision's; what it drew is unknown"
            )
        return DrawResult(
            same=True,
            together=sample.together,
            words=f"in {sample.read} draws they are distributed as torchvision's",
        )
    if (
        alone
        and not alone.unread
        and same_distribution.refuted(alone.candidate, alone.baseline, tests, independent=independent) is None
    ):
        return DrawResult(
            same=True,
            missing=sample.together,
            words=f"in {alone.read} draws as without {', '.join(sample.together)}",
        )
    if why is None:
        words = f"{sample.unread} of {sample.unread + sample.read} test pictures are of no {name} torchvision's makes"
        evidence: tuple[str, ...] = ()
    else:
        words = _told(why.parameter, sample)
        evidence = (
            f"p = {why.p:.1e} by {why.test}; of one distribution {same_distribution.RATE:g} over {tests} tests",
        )
    cause = Cause(code="draws-otherwise", summary=words, confirmed=True, evidence=evidence)
    return DrawResult(cause=cause, words=words)


def _told(parameter: str, sample: _Draws) -> str:
    """A parameter of both samples in words."""
    draws = sample.read
    if " with " in parameter:
        one, two = parameter.split(" with ")
        return f"its {one} and {two} depend on each other in {draws} draws, torchvision's do not"
    candidate, baseline = np.asarray(sample.candidate[parameter]), np.asarray(sample.baseline[parameter])
    if parameter == "flip":
        return f"it flips {candidate.mean():.1%} of {draws} pictures, torchvision's {baseline.mean():.1%}"
    if parameter.startswith("first"):
        place = (
            f"{candidate.min():.0%} to {candidate.max():.0%} of the way, {candidate.mean():.1%} on average"
        )
        same = f"{baseline.min():.0%} to {baseline.max():.0%}, {baseline.mean():.1%}"
    else:
        place = f"{candidate.min():.3g} to {candidate.max():.3g}, {candidate.mean():.3g} on average"
        same = f"{baseline.min():.3g} to {baseline.max():.3g}, {baseline.mean():.3g}"
    return f"its {parameter} is {place}, in {draws} draws; torchvision's {same}"
