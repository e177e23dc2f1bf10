"""Stage 0: both preprocessings side by side, photograph by photograph and stage by stage.

A stage is judged on identical input: torchvision's is given what the candidate's was given. So one wrong stage is
named alone, and those after it that are right are not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from verifier.environment import preserved
from verifier.preprocessing import explaining, resampling
from verifier.preprocessing.candidates import seeded
from verifier.preprocessing.pictures import as_array, as_image, in_steps
from verifier.preprocessing.rules import FACTOR, NEGLIGIBLE, RULES, difference, is_rounding
from verifier.result import Preprocessing, StageDifference, StageResult

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from verifier.preprocessing.candidates import Candidate, Made
    from verifier.preprocessing.recipes import Recipe, Stage
    from verifier.preprocessing.rules import Difference
    from verifier.result import Cause

WRONG = ("differs", "missing")


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


def prepared(path: Path, recipe: Recipe, seed: int = 0, picture: int = 0) -> Photograph:
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
        current = _applied(stage, current, made.drawn)
        made.stages[stage.name] = current
    return made


def _applied(stage: Stage, given: Sequence[Any], drawn: dict[str, Any]) -> list[Any]:
    return [each for one in given for each in stage.torchvision(one, drawn.get(stage.name))]


@dataclass
class _Stage:
    """What is known of one stage so far."""

    stage: Stage
    pictures: int = 0
    exact: int = 0
    statuses: set[str] = field(default_factory=set)
    total: StageDifference | None = None
    intrinsic: StageDifference | None = None
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    drawn_alike: bool | None = None
    reason: str = ""
    cause: Cause | None = None
    square: bool = False

    def drawn(self, *, alike: bool) -> None:
        """Whether both drew the same parameters for one more photograph."""
        self.drawn_alike = alike and self.drawn_alike is not False

    def record(self) -> StageResult:
        """What was found on all photographs."""
        order = ("differs", "missing", "rounding", "carries", "exact", "given", "unseen")
        rule = RULES[self.stage.rule]
        return StageResult(
            name=self.stage.name,
            words=self.stage.words,
            status=next((each for each in order if each in self.statuses), "unseen"),
            rule=f"{rule.name}: {rule.why}",
            unit=rule.unit,
            pictures=self.pictures,
            exact=self.exact,
            total=self.total,
            intrinsic=self.intrinsic,
            shapes=self.shapes,
            drawn_alike=self.drawn_alike,
            reason=self.reason,
            cause=self.cause,
        )


class Comparison:
    """Collects what two preprocessings make of one photograph after another."""

    def __init__(self, recipe: Recipe, candidate: Candidate, seed: int = 0) -> None:
        self.recipe = recipe
        self.candidate = candidate
        self.seed = seed
        self.stages = {stage.name: _Stage(stage) for stage in recipe.stages}
        self.files: list[str] = []
        self.output: StageDifference | None = None
        self.output_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self.cause: Cause | None = None
        self.square = False
        self.beyond = False
        self.inexact = False
        self.unknown: dict[str, None] = {}
        self.orders: set[tuple[str, ...]] = set()

    def add(self, path: Path) -> tuple[list[Tensor], list[Any]]:
        """Compare one photograph; gives the baseline's tensors and the candidate's.

        Raises:
            ModelError: The candidate's preprocessing fails.
            Exception: Whatever a decoder raises on the file.
        """
        number = len(self.files)
        with preserved():
            ours = prepared(path, self.recipe, self.seed, number)
            made = self.candidate.made(path, ours.stages["decode"][0], self.seed, number, ours.drawn)
            self.files.append(path.name)
            self.unknown |= dict.fromkeys(name for name in made.stages if name not in self.stages)
            self.orders.add(tuple(name for name in made.stages if name in self.stages))
            for entry in self.stages.values():
                entry.pictures += 1
            previous, earlier = "", [path]
            for name, pictures in made.stages.items():
                if name in self.stages:
                    self._stage(self.stages[name], ours, made, earlier, self._between(previous, name, made))
                previous, earlier = name, pictures
            self._unseen(ours, made)
            self._output(ours, made)
        return ours.output, made.output

    def _between(self, previous: str, name: str, made: Made) -> list[Stage]:
        """The baseline's stages between two of the candidate's, which no step of it was seen to be."""
        names = list(self.stages)
        if previous not in names or names.index(previous) > names.index(name):
            return []
        passed = names[names.index(previous) + 1 : names.index(name)]
        return [self.stages[each].stage for each in passed if each not in made.stages]

    def _stage(
        self, entry: _Stage, ours: Photograph, made: Made, given: list[Any], between: Sequence[Stage]
    ) -> None:
        stage, name = entry.stage, entry.stage.name
        rule = RULES[stage.rule]
        if name in made.drawn:
            entry.drawn(alike=made.drawn[name] == ours.drawn[name])
        theirs = made.stages[name]
        total = difference(theirs, ours.stages[name], rule)
        entry.exact += total.exact
        entry.total = _worse(entry.total, total.record(ours.path.name))
        if total.exact:
            was_given = name == "decode" and theirs[0] is ours.stages[name][0]
            entry.statuses.add("given" if was_given else "exact")
            if not was_given:
                entry.intrinsic = _worse(entry.intrinsic, total.record(ours.path.name))
            self._skipped(between, f"done together with {name}", "exact")
            for each in between:
                self.stages[each.name].exact += 1
            return
        if name == "decode":
            self._differs(entry, ours, given, theirs, ours.stages[name])
            return
        attempts = [[*between, stage], [stage]] if between else [[stage]]
        for stages in attempts:
            try:
                expected = given
                for each in stages:
                    expected = _applied(each, _for(each, expected), ours.drawn)
            except Exception:  # what the candidate has here torchvision's stage does not take
                expected = []
                continue
            alone = difference(theirs, expected, rule)
            if is_rounding(alone, theirs, expected, given[0], rule):
                entry.intrinsic = _worse(entry.intrinsic, alone.record(ours.path.name))
                entry.statuses.add("carries" if alone.exact or rule.name == "exact" else "rounding")
                missing = between and stages == [stage]
                why = "the candidate has no such stage" if missing else f"done together with {name}"
                self._skipped(between, why, "missing" if missing else "exact")
                return
        if expected and self._drawn_otherwise(stage, given, theirs):
            entry.drawn(alike=False)
            entry.statuses.add("carries")
            return
        if expected:
            self._differs(entry, ours, given, theirs, expected)
        else:
            entry.statuses.add("differs")
            entry.reason = "torchvision's stage does not take what the candidate has before it"

    def _skipped(self, between: Sequence[Stage], why: str, status: str) -> None:
        for each in between:
            self.stages[each.name].statuses.add(status)
            self.stages[each.name].reason = why

    def _drawn_otherwise(self, stage: Stage, given: Sequence[Any], theirs: Sequence[Any]) -> bool:
        """Whether a random stage's result is torchvision's with other parameters, told by the result itself."""
        if stage.draw is None or len(given) != len(theirs):
            return False
        for source, made in zip(given, theirs, strict=True):
            one, other = as_array(source), as_array(made)
            if stage.name == "resize":
                expected = stage.torchvision(as_image(source), other.shape[:2])
                rule = RULES[stage.rule]
                if not is_rounding(difference([made], expected, rule), [made], expected, source, rule):
                    return False
            elif stage.name == "flip":
                if not (np.array_equal(one, other) or np.array_equal(one[:, ::-1], other)):
                    return False
            elif (
                stage.name != "crop" or explaining.window(one, other) is None or len(set(other.shape[:2])) > 1
            ):
                return False
        return True

    def _differs(
        self, entry: _Stage, ours: Photograph, given: list[Any], theirs: list[Any], expected: list[Any]
    ) -> None:
        alone = difference(theirs, expected, RULES[entry.stage.rule])
        entry.intrinsic = _worse(entry.intrinsic, alone.record(ours.path.name))
        if entry.stage.name == "decode" and alone.shapes is None and alone.largest <= RULES["decode"].limit:
            entry.statuses.add("rounding")
            return
        entry.statuses.add("differs")
        entry.shapes = entry.shapes or alone.shapes
        # a square photograph does not tell which side was resized
        square = entry.stage.name == "resize" and len(set(as_array(given[0]).shape[:2])) == 1
        if entry.cause is None or (entry.square and not square):
            entry.cause = self._why(entry.stage, ours.path, given, theirs, expected, alone)
            entry.square = square

    def _unseen(self, ours: Photograph, made: Made) -> None:
        """Stages after the last that was seen, or of a candidate that shows none: are they missing?"""
        names = list(self.stages)
        seen = [name for name in names if name in made.stages]
        for name in names:
            entry = self.stages[name]
            if name in made.stages or (seen and names.index(name) < names.index(seen[-1])):
                continue
            if not (made.whole and seen):
                entry.statuses.add("unseen")
                continue
            given, stage = made.stages[seen[-1]], entry.stage
            try:
                applied = _applied(stage, _for(stage, given), ours.drawn)
                needed = not difference(applied, given, RULES[stage.rule]).exact
            except Exception:  # it does not apply to what the candidate has
                needed = True
            entry.statuses.add("missing" if needed else "exact")
            entry.reason = "the candidate has no such stage" + ("" if needed else ", and needs none")

    def _why(
        self,
        stage: Stage,
        path: Path,
        given: list[Any],
        theirs: list[Any],
        expected: list[Any],
        alone: Difference,
    ) -> Cause | None:
        pairs = list(zip(given * len(theirs) if len(given) == 1 else given, theirs, expected, strict=False))
        for source, one, other in pairs:
            if difference([one], [other], RULES[stage.rule]).exact:
                continue
            found: Cause | None = None
            if stage.name == "decode":
                found = explaining.why_decoded(path, one, other)
            elif stage.name == "resize":
                found = explaining.why_resized(source, one, other)
            elif stage.name in {"crop", "flip"}:
                found = explaining.why_cropped(source, one, other)
            if found is None and alone.shapes is None:
                found = explaining.why_values(one, other)
            return found
        return None

    def _output(self, ours: Photograph, made: Made) -> None:
        last = self.recipe.stages[-1]
        rule = RULES[last.rule]
        shapes = _tensor_shapes(made.output), _tensor_shapes(ours.output)
        found = difference(made.output, ours.output, rule)
        if shapes[0] != shapes[1]:
            self.output_shapes = self.output_shapes or (shapes[0][0], shapes[1][0])
        self.inexact |= not found.exact or shapes[0] != shapes[1]
        self.output = _worse(self.output, found.record(ours.path.name))
        seen = any(name in made.stages for name in self.stages)
        if seen or (found.exact and shapes[0] == shapes[1]):
            return
        alike = shapes[0] == shapes[1] and getattr(made.output[0], "dtype", None) == ours.output[0].dtype
        if alike and (found.largest <= rule.limit or self._rounding(ours, made)):
            return
        self.beyond = True
        square = len(set(as_array(ours.stages["decode"][0]).shape[:2])) == 1
        if self.recipe.name == "classification" and (self.cause is None or (self.square and not square)):
            self.square = square
            self.cause = explaining.why_whole(
                ours.path,
                ours.stages["decode"][0],
                made.output[0],
                ours.output[0],
                self.recipe.size,
                resampling.whole_steps(self.recipe.size),
            )

    def _rounding(self, ours: Photograph, made: Made) -> bool:
        """Whether a final tensor is no further from exact arithmetic than the resizing allows."""
        if self.recipe.name != "classification":
            return False
        decoded, size = in_steps(ours.stages["decode"][0]), self.recipe.size
        shape = resampling.shorter_to(resampling.whole_steps(size), *decoded.shape[:2])
        exact = resampling.resize_exactly(decoded, *shape)
        top, left = (round((length - size) / 2) for length in shape)
        window = torch.from_numpy(exact[top : top + size, left : left + size].transpose(2, 0, 1) / 255)
        expected = self.recipe.stages[-1].torchvision(window, None)[0].double()
        step = 1 / 255 / 0.226
        own, theirs = (
            float((torch.as_tensor(each[0]).double() - expected).square().mean().sqrt())
            for each in (ours.output, made.output)
        )
        return theirs <= FACTOR * own + NEGLIGIBLE * step

    def record(self, *, applied: bool = False) -> Preprocessing:
        """What was found on all photographs."""
        stages = tuple(entry.record() for entry in self.stages.values())
        wrong = [each for each in stages if each.status in WRONG]
        differs = bool(wrong) or self.beyond
        status = "differs" if differs else "rounding" if self.inexact else "exact"
        return Preprocessing(
            recipe=self.recipe.name,
            candidate=self.candidate.name,
            status=status,
            stages=stages,
            first_difference=wrong[0].name if wrong else "",
            files=tuple(self.files),
            output=self.output,
            output_shapes=self.output_shapes,
            cause=self.cause or next((each.cause for each in wrong), None),
            applied=applied,
            notes=self._notes(stages),
        )

    def _notes(self, stages: Sequence[StageResult]) -> tuple[str, ...]:
        notes = []
        if self.unknown:
            notes.append(f"the candidate names stages the recipe has not: {', '.join(self.unknown)}")
        odd = [
            order for order in self.orders if list(order) != [name for name in self.stages if name in order]
        ]
        if odd:
            notes.append(f"the candidate's order of stages is {', '.join(odd[0])}")
        notes += [
            f"{each.name}: the same seed draws other parameters; it was compared with the same ones"
            for each in stages
            if each.drawn_alike is False
        ]
        return tuple(notes)


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


def _worse(one: StageDifference | None, other: StageDifference | None) -> StageDifference | None:
    """The largest of both, figure by figure."""
    if one is None or other is None:
        return one or other
    worst = max(one, other, key=lambda each: each.largest)
    return StageDifference(
        largest=worst.largest,
        mean=max(one.mean, other.mean),
        share=max(one.share, other.share),
        picture=worst.picture,
    )


def _tensor_shapes(pictures: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(each.shape) if hasattr(each, "shape") else as_array(each).shape for each in pictures]
