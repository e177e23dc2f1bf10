"""Stage 0: both preprocessings side by side, photograph by photograph and stage by stage.

A stage is judged on identical input: torchvision's is given what the candidate's was given. So one wrong stage is
named alone, and those after it that are right are not. The tensor for the model is judged always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verifier.border.programs import contained
from verifier.environment import preserved
from verifier.preprocessing import explaining, final_tensor, notes, random_stages
from verifier.preprocessing.baseline import prepared
from verifier.preprocessing.entries import UNDECIDED, WRONG, Entry, worse
from verifier.preprocessing.passages import applied, passages, read_off, remaining
from verifier.preprocessing.photographs import as_array
from verifier.preprocessing.rules import RULES, difference, is_rounding
from verifier.records import Preprocessing, StageDifference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from verifier.preprocessing.baseline import Photograph
    from verifier.preprocessing.candidates import Candidate, Made
    from verifier.preprocessing.passages import Passage
    from verifier.preprocessing.recipes import PhotographRecipe, Stage
    from verifier.preprocessing.rules import Difference
    from verifier.records import Cause


class PhotographComparison:
    """Collects what two preprocessings make of one photograph after another."""

    def __init__(self, recipe: PhotographRecipe, candidate: Candidate, seed: int = 0) -> None:
        self.recipe = recipe
        self.candidate = candidate
        self.seed = seed
        self.stages = {stage.name: Entry(stage) for stage in recipe.stages}
        self.files: list[str] = []
        self.output: StageDifference | None = None
        self.output_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self.cause: Cause | None = None
        self.square = False
        self.beyond = False
        self.undecided = False
        self.inexact = False
        self.said = notes.Said()
        self.tested = False

    def add(self, path: Path) -> tuple[list[Tensor], list[Any]]:
        """Compare one photograph; gives the baseline's tensors and the candidate's.

        Raises:
            ModelError: The candidate's preprocessing fails.
            Exception: Whatever a decoder raises on the file.
        """
        number = len(self.files)
        with preserved(), contained():
            baseline = prepared(path, self.recipe, self.seed, number)
            made = self.candidate.made(path, baseline.stages["decode"][0], self.seed, number, baseline.drawn)
            self.files.append(path.name)
            self.said.add(made)
            for entry in self.stages.values():
                entry.pictures += 1
            random_stages.last_is_shown(self.recipe, made)
            read: dict[str, Any] = {}
            if "decode" in made.stages:
                self._decoded(self.stages["decode"], baseline, made)
            for passage in passages(self.recipe, made, baseline.stages["decode"]):
                self._stage(self.stages[passage.name], baseline, made, passage, read)
            self._unseen(baseline, made, read)
            self._output(baseline, made, read)
        return baseline.output, made.output

    def _decoded(self, entry: Entry, baseline: Photograph, made: Made) -> None:
        candidate, expected = made.stages["decode"], baseline.stages["decode"]
        total = difference(candidate, expected, RULES["decode"])
        entry.exact += total.exact
        entry.total = worse(entry.total, total.record(baseline.path.name))
        if candidate[0] is expected[0]:
            entry.statuses.add("given")
            return
        entry.intrinsic = worse(entry.intrinsic, total.record(baseline.path.name))
        if total.exact:
            entry.statuses.add("exact")
        elif total.shapes is None and total.largest <= RULES["decode"].limit:
            entry.statuses.add("rounding")
        else:
            self._differs(entry, baseline, [baseline.path], candidate, expected)

    def _stage(
        self, entry: Entry, baseline: Photograph, made: Made, passage: Passage, read: dict[str, Any]
    ) -> None:
        stage, name, candidate, given = entry.stage, passage.name, passage.made, passage.given
        rule, between = RULES[stage.rule], passage.stages[:-1]
        if name in made.drawn:
            entry.drawn(alike=made.drawn[name] == baseline.drawn[name])
        total = difference(candidate, baseline.stages[name], rule)
        entry.exact += total.exact
        entry.total = worse(entry.total, total.record(baseline.path.name))
        if total.exact:
            entry.statuses.add("exact")
            entry.intrinsic = worse(entry.intrinsic, total.record(baseline.path.name))
            self._skipped(between, f"done together with {name}", "exact")
            for hidden in between:
                self.stages[hidden.name].exact += 1
            return
        takes: list[tuple[list[Any], list[Any]]] = []
        for stages in [passage.stages, [stage]] if between else [[stage]]:
            try:
                source = applied(stages[:-1], given, baseline.drawn)
                expected = applied([stage], source, baseline.drawn)
            except Exception:  # noqa: S112 - what the candidate has here torchvision's stage does not take
                continue
            takes.append((source, expected))
            alone = difference(candidate, expected, rule)
            if is_rounding(alone, candidate, expected, source[0], rule):
                entry.intrinsic = worse(entry.intrinsic, alone.record(baseline.path.name))
                entry.statuses.add("carries" if alone.exact or rule.name == "exact" else "rounding")
                missing = between and stages == [stage]
                why = "the candidate has no such stage" if missing else f"done together with {name}"
                self._skipped(between, why, "missing" if missing else "exact")
                return
        for stages in [passage.stages, [stage]] if between else [[stage]]:
            drawn = read_off(stages, given, candidate)
            if drawn is not None:
                read |= drawn
                for random in drawn:
                    self.stages[random].drawn(alike=False)
                entry.statuses.add("carries")
                return
        if not takes:
            entry.statuses.add("differs")
            entry.reason = "torchvision's stage does not take what the candidate has before it"
        elif (
            stage.name in random_stages.BY_EFFECT and difference(candidate, takes[0][1], rule).shapes is None
        ):
            entry.drawn(alike=False)
            entry.statuses.add(UNDECIDED)  # unless what it draws is found to be distributed otherwise
        else:
            self._differs(entry, baseline, takes[-1][0], candidate, takes[-1][1])

    def _skipped(self, between: Sequence[Stage], why: str, status: str) -> None:
        for each in between:
            self.stages[each.name].statuses.add(status)
            self.stages[each.name].reason = why

    def _differs(
        self, entry: Entry, baseline: Photograph, given: list[Any], candidate: list[Any], expected: list[Any]
    ) -> None:
        alone = difference(candidate, expected, RULES[entry.stage.rule])
        entry.intrinsic = worse(entry.intrinsic, alone.record(baseline.path.name))
        entry.statuses.add("differs")
        entry.shapes = entry.shapes or alone.shapes
        # a square photograph does not tell which side was resized
        square = entry.stage.name == "resize" and len(set(as_array(given[0]).shape[:2])) == 1
        if entry.cause is None or (entry.square and not square):
            entry.cause = self._why(entry.stage, baseline.path, given, candidate, expected, alone)
            entry.square = square

    def _unseen(self, baseline: Photograph, made: Made, read: dict[str, Any]) -> None:
        """Stages after the last that was seen, or of a candidate that shows none: are they missing?"""
        latest, stages = remaining(self.recipe, made)
        if not made.stages:
            stages = list(self.recipe.stages)
        for stage in stages:
            entry = self.stages[stage.name]
            if not (made.whole and made.stages):
                entry.statuses.add("unseen")
                continue
            given = made.stages[latest]
            try:
                needed = not difference(
                    applied([stage], given, baseline.drawn | read), given, RULES[stage.rule]
                ).exact
            except Exception:  # it does not apply to what the candidate has
                needed = True
            entry.statuses.add("missing" if needed else "exact")
            entry.reason = "the candidate has no such stage" + ("" if needed else ", and needs none")
        if "decode" not in made.stages:
            self.stages["decode"].statuses.add("unseen")

    def _why(
        self,
        stage: Stage,
        path: Path,
        given: list[Any],
        candidate: list[Any],
        expected: list[Any],
        alone: Difference,
    ) -> Cause | None:
        pairs = list(
            zip(given * len(candidate) if len(given) == 1 else given, candidate, expected, strict=False)
        )
        for source, c, b in pairs:
            if difference([c], [b], RULES[stage.rule]).exact:
                continue
            found: Cause | None = None
            if stage.name == "decode":
                found = explaining.why_decoded(path, c, b)
            elif stage.name == "resize":
                found = explaining.why_resized(source, c, b)
            elif stage.name in {"crop", "flip"}:
                found = explaining.why_cropped(source, c, b)
            if found is None and alone.shapes is None:
                found = explaining.why_values(c, b)
            return found
        return None

    def _output(self, baseline: Photograph, made: Made, read: dict[str, Any]) -> None:
        found = difference(made.output, baseline.output, RULES[self.recipe.stages[-1].rule])
        shapes = _shapes(made.output), _shapes(baseline.output)
        if shapes[0] != shapes[1]:
            self.output_shapes = self.output_shapes or (shapes[0][0], shapes[1][0])
        self.inexact |= not found.exact or shapes[0] != shapes[1]
        self.output = worse(self.output, found.record(baseline.path.name))
        if final_tensor.vouched(self.recipe, made) or (found.exact and shapes[0] == shapes[1]):
            return
        unread = {name for name, entry in self.stages.items() if entry.status == UNDECIDED}
        outcome, expected, drawn = final_tensor.judged(self.recipe, baseline, made, read, unread)
        for name in drawn:
            self.stages[name].drawn(alike=False)
        self.undecided |= outcome == final_tensor.UNDECIDED
        if outcome != final_tensor.DIFFERS:
            return
        self.beyond = True
        self.said.not_vouched(self.recipe, made)
        square = len(set(as_array(baseline.stages["decode"][0]).shape[:2])) == 1
        if self.cause is None or (self.square and not square):
            right = all(entry.status not in WRONG for entry in self.stages.values())
            self.square = square
            self.cause = final_tensor.explained(self.recipe, baseline, made, expected, whole=right)

    @property
    def differs(self) -> bool:
        """Whether a photograph was prepared otherwise beyond rounding."""
        return self.beyond or any(entry.status in WRONG for entry in self.stages.values())

    def record(self, *, applied: bool = False) -> Preprocessing:
        """What was found on all photographs."""
        if not self.tested and self.files:
            self.tested = True
            with preserved():
                self._test_draws()
        stages = tuple(entry.record() for entry in self.stages.values())
        wrong = [each for each in stages if each.status in WRONG]
        if wrong or self.beyond:
            status = "differs"
        elif self.undecided or any(each.status == UNDECIDED for each in stages):
            status = UNDECIDED
        else:
            status = "rounding" if self.inexact else "exact"
        return Preprocessing(
            recipe=self.recipe.name,
            candidate=self.candidate.name,
            status=status,
            stages=stages,
            first_difference=wrong[0].name if wrong else "",
            files=tuple(self.files),
            output=self.output,
            output_shapes=self.output_shapes,
            cause=next((each.cause for each in wrong if each.cause), None) or self.cause,
            applied=applied,
            notes=self.said.notes(self.stages, self.undecided),
        )

    def _test_draws(self) -> None:
        """Stages that draw: is it distributed as torchvision's, over many draws?"""
        found, self.said.otherwise = random_stages.tested(self.recipe, self.candidate, self.seed, self.stages)
        self.beyond |= self.said.otherwise > 0
        for name, finding in found.items():
            entry = self.stages[name]
            if entry.status in WRONG or (finding.alike and entry.drawn_alike is not False):
                continue
            entry.drawn(alike=False)
            self.said.drawn[name] = finding.words
            if finding.missing:
                skipped = [self.stages[each].stage for each in finding.missing]
                self._skipped(skipped, "the candidate has no such stage", "missing")
                continue
            if finding.cause is not None:
                entry.statuses.add("differs")
                entry.cause = entry.cause or finding.cause
                entry.reason = entry.reason or finding.cause.summary
            elif not finding.same:
                entry.statuses.add(UNDECIDED)
            elif finding.together and entry.status not in WRONG:
                together = [self.stages[each].stage for each in finding.together]
                self._skipped(together, f"done together with {name}", "exact")


def _shapes(pictures: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(each.shape) if hasattr(each, "shape") else as_array(each).shape for each in pictures]
