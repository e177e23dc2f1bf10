"""For each culprit a script that shows it, taken from one forced pass; a sentence where there can be none."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.border.error_texts import first_line
from verifier.diagnose.edits.program import Program
from verifier.diagnose.neighbourhood import as_it_is, carried_over, laid_as
from verifier.diagnose.repros.lines import Kept, input_names, lines_of
from verifier.diagnose.repros.script import TRUTH, Functions, Script
from verifier.diagnose.repros.spelling import UnwritableError
from verifier.diagnose.reruns import Scene, look_at
from verifier.diagnose.trials import Trials, relative
from verifier.diagnose.unreached import from_numbers
from verifier.graph.ranges import ranges
from verifier.graph.tensors import dense

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.align import Alignment
    from verifier.diagnose.edits.program import Key
    from verifier.diagnose.neighbourhood import Neighbourhood
    from verifier.diagnose.reruns import OpenLanes
    from verifier.records import PairResult, Source

MOST = 24  # culprits that get a script, as many as are pictured
_LARGEST = 1 << 28  # bytes of the tensors of one script

_NO_CALL = {
    "input": "the two models are given other inputs there, which no operator of theirs makes",
    "call": "it is what a further call of the whole model returns",
}


class Repro(NamedTuple):
    """A script that shows a culprit: a name for its files, its text, and the tensors it reads, on the CPU."""

    name: str
    script: str
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """What the calls of a cell are made in.

    Attributes:
        cell: Its name.
        exact: Whether it is float64, where the baseline's tensor is the truth.
        dtype: What factories make that are not told a dtype; None for torch's own.
        around: A decorator that makes the rest of it, as text; empty for none.
    """

    cell: str
    exact: bool
    dtype: torch.dtype | None = None
    around: str = ""


@dataclass
class Written:
    """The scripts, and why some culprits have none, each by the culprit's index."""

    scripts: dict[int, Repro] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)


def repros(
    alignment: Alignment,
    rows: Sequence[PairResult],
    culprits: Sequence[PairResult],
    open_lanes: OpenLanes,
    setting: Setting,
) -> Written:
    """Scripts for culprits.

    Each is tried before it is given to anybody: what its candidate gives is what the model gave, and is beyond what
    is allowed; what its baseline gives, where it can be written, is within.

    Args:
        alignment: The pairs.
        rows: All judged rows of the cell.
        culprits: Those to write scripts for.
        open_lanes: Makes the baseline's lane and the candidate's, given the calls each is to keep.
        setting: The cell.
    """
    found = Written()
    places: dict[int, list[PairResult]] = {}
    for k, culprit in enumerate(culprits):
        at = _place(alignment, rows, culprit)
        if k >= MOST:
            found.reasons[culprit.index] = f"{MOST} scripts are as many as a run writes"
        elif at.kind in _NO_CALL:
            found.reasons[culprit.index] = _NO_CALL[at.kind]
        elif None in (at.baseline, at.candidate, at.budget) or (at.kind == "state" and not at.above):
            found.reasons[culprit.index] = "nothing that both models compute shows it"
        else:
            places.setdefault(at.index, []).append(culprit)
    scenes = [Scene.of(alignment, rows[index], rows) for index in places]
    scenes = [scene if scene.row.excited is None else from_numbers(scene) for scene in scenes]
    writer = _Writer(alignment, setting)

    def look(
        k: int,
        baseline: Neighbourhood | None,
        candidate: Neighbourhood | None,
        wanted: Tensor,
        given: Tensor,
    ) -> None:
        first, *others = places[scenes[k].row.index]
        try:
            found.scripts[first.index] = writer.written(scenes[k], first, baseline, candidate, wanted, given)
            reason = f"it is shown by the script of {_named(first)}"
        except UnwritableError as error:
            reason = found.reasons[first.index] = str(error)
        except Exception as error:  # a script is not worth a result
            reason = found.reasons[first.index] = f"its calls could not be written ({first_line(error)})"
        found.reasons.update((other.index, reason) for other in others)

    if scenes:
        look_at(alignment, scenes, open_lanes, look)
    return found


def _place(alignment: Alignment, rows: Sequence[PairResult], culprit: PairResult) -> PairResult:
    """Where a culprit shows: at its own pair, or at the first that reads through a site without a partner."""
    pair = [
        graph.by_name.get(name or "")
        for graph, name in (
            (alignment.baseline, culprit.baseline),
            (alignment.candidate, culprit.candidate),
        )
    ]
    b, c = pair
    if culprit.kind != "site" or (b and c and (b.index, c.index) in alignment.pairs):
        return culprit
    names = {culprit.baseline, culprit.candidate} - {None}
    readers = (
        row
        for row in rows
        if names.intersection(row.between_baseline if culprit.baseline else ())
        or names.intersection(row.between_candidate if culprit.candidate else ())
    )
    return next(readers, culprit)


def _named(row: PairResult) -> str:
    return row.candidate or row.baseline or row.op


class _Writer:
    """Writes the script of a culprit where the lanes stand."""

    def __init__(self, alignment: Alignment, setting: Setting) -> None:
        self._alignment = alignment
        self._lay = laid_as if alignment.rebuilt else as_it_is
        self._setting = setting

    @cached_property
    def _trials(self) -> Trials:
        return Trials(self._alignment, {}, ranges(self._alignment.baseline))

    def written(
        self,
        scene: Scene,
        culprit: PairResult,
        baseline: Neighbourhood | None,
        candidate: Neighbourhood | None,
        wanted: Tensor,
        given: Tensor,
    ) -> Repro:
        """The script.

        Raises:
            UnwritableError: There can be none.
        """
        row = scene.row
        if candidate is None:
            raise UnwritableError(
                "a call there is none of torch's functions (a scripted or compiled module, an extension)"
            )
        kept = Kept()
        values = {} if baseline is None else baseline.values()
        own = candidate.values()
        carried = carried_over(values, own, self._alignment.partner, self._lay)
        carried = {
            key: tensor.to(own[key].dtype) for key, tensor in carried.items()
        }  # as a forced pass gives them
        if row.excited is not None:
            found = None if baseline is None else self._trials.on(row.excited.inputs, baseline, candidate)
            if found is None:
                raise UnwritableError("the two part on other inputs alone, which could not be made again")
            values, carried, wanted, given = found
        right: Sequence[str] | str = "The baseline's calls there are none of torch's functions."
        if baseline is not None:
            right = self._baseline(row, baseline, values, kept)
        program = Program.of(candidate, carried)
        if program is None:
            raise UnwritableError("what comes out there is made by no call that was seen")
        wrong = lines_of(program, self._names(carried), kept)
        if row.kind == "state":
            wrong = _leaving(wrong, row.candidate or "", candidate, kept)
        truth = laid_as(wanted, given) if row.layout or self._alignment.rebuilt else wanted
        truth, given = Kept.held(dense(truth)), Kept.held(dense(given))
        size = sum(each.numel() * each.element_size() for each in (*kept.tensors.values(), truth))
        if size > _LARGEST:
            raise UnwritableError(f"its tensors take {size >> 20} MiB, and {_LARGEST >> 20} are allowed")
        draft = _Draft(row, culprit, wrong, right, wanted.is_complex(), self._setting)
        return draft.tried(kept.tensors, truth, None if scene.misshapen else given)

    def _baseline(
        self, row: PairResult, side: Neighbourhood, values: Mapping[Key, Tensor], kept: Kept
    ) -> Sequence[str] | str:
        """The baseline's lines, or why there are none; then nothing of theirs is kept."""
        before = dict(kept.tensors)
        try:
            program = Program.of(side, values)
            if program is None:
                return "What comes out of the baseline there is made by no call that was seen."
            lines = lines_of(program, self._names(values, baseline=True), kept)
            return _leaving(lines, row.baseline or "", side, kept) if row.kind == "state" else lines
        except UnwritableError as error:
            kept.tensors = before
            return f"The baseline's calls are not written: {error}."

    def _names(self, values: Mapping[Key, Tensor], *, baseline: bool = False) -> dict[Key, str]:
        """Tensors that come in, by the baseline's name of the site that makes them where it has one."""
        graphs = self._alignment.baseline, self._alignment.candidate
        shown = {}
        for key in values:
            twin = key if baseline else self._alignment.partner_back.get(key)
            if key >= 0:
                shown[key] = (graphs[1].sites[key] if twin is None else graphs[0].sites[twin]).name
        return input_names(list(values), shown)


def _leaving(lines: Sequence[str], name: str, side: Neighbourhood, kept: Kept) -> list[str]:
    """The lines of a call, with the return of what it leaves in the buffer of a name: the script's own tensor.

    Raises:
        UnwritableError: The buffer is no argument of the call.
    """
    buffer = None if side.call is None else side.call.arguments.get(name.rpartition(".")[2])
    if not isinstance(buffer, torch.Tensor):
        raise UnwritableError("it is left in a buffer that no call there is given by its name")
    return [*lines[:-1], lines[-1].removeprefix("return "), f"return {kept.text(name, buffer)}"]


@dataclass(frozen=True)
class _Draft:
    """A script that has not been tried."""

    row: PairResult
    culprit: PairResult
    candidate: Sequence[str]
    baseline: Sequence[str] | str
    complex: bool
    setting: Setting

    def tried(self, tensors: Mapping[str, Tensor], truth: Tensor, given: Tensor | None) -> Repro:
        """The script, after its functions gave what they should.

        Raises:
            UnwritableError: They do not.
        """
        budget = self.row.budget
        assert budget is not None  # noqa: S101 - others have no script
        dtype = self.setting.dtype
        excited = self.row.excited
        limit, rule = budget.intrinsic, budget.rule
        if excited is not None:
            limit, rule = relative(excited), "excited"
        functions = Functions.of(self._text(tensors, truth, limit, rule, self.baseline))
        made = functions.gives("candidate", tensors, dtype)
        if made is None:
            raise UnwritableError("its calls raise where they are made by themselves on the CPU")
        if given is not None and functions.error(made, given) > limit:
            raise UnwritableError("made by themselves its calls do not give what they gave in the model")
        baseline = self.baseline
        right = None if isinstance(baseline, str) else functions.gives("baseline", tensors, dtype)
        if not self.setting.exact and right is not None and budget.oracle_intrinsic is not None:
            exact, near = functions.exact(tensors), budget.oracle_intrinsic
            if exact is not None and functions.error(right, exact) <= near < functions.error(made, exact):
                truth, limit = exact, near
        if functions.error(made, truth) <= limit:
            raise UnwritableError(
                "made by themselves, on the CPU, its calls are within what is allowed there"
            )
        if not isinstance(baseline, str) and functions.error(right, truth) > limit:
            baseline = (
                "The baseline's calls are not written: made by themselves they do not give what they gave."
            )
        text = self._text(tensors, truth, limit, rule, baseline)
        return Repro(self._file(), text, {**_read_by(text, tensors), TRUTH: truth})

    def _text(
        self,
        tensors: Mapping[str, Tensor],
        truth: Tensor,
        limit: float,
        rule: str,
        baseline: Sequence[str] | str,
    ) -> str:
        cause = self.culprit.cause
        told = "nothing that was tried explains it" if cause is None else cause.summary
        remedy = f" Remedy: {cause.remedy}." if cause is not None and cause.remedy else ""
        exact = truth.dtype == torch.float64
        kind = "the float64 truth" if exact else f"the baseline's {str(truth.dtype)[6:]} tensor"
        inputs = "" if self.row.excited is None else f", {self.row.excited.inputs}"
        script = Script(
            f"{_named(self.culprit)}: {told}.",
            (
                f"{self._where()}{remedy}",
                f"Exits 1 while `candidate`, given the baseline's tensors in {self.setting.cell}{inputs}, does not "
                f"return {kind}, and 0 once it does.",
            ),
            self.candidate,
            baseline,
            limit,
            f"relative, by the rule {rule}",
            self.setting.dtype,
            self.setting.around,
            self.complex,
        )
        both = {**tensors, TRUTH: truth}
        try:
            return script.text(both)
        except UnwritableError:
            if isinstance(baseline, str):
                raise
            alone = "The baseline's calls are too many for a short script."
            return replace(script, baseline=alone).text(both)

    def _where(self) -> str:
        """The lines of both programs."""
        sides = (("candidate", self.culprit.candidate_source), ("baseline", self.culprit.baseline_source))
        told = [f"{side}'s {_line(source)}" for side, source in sides if source is not None]
        return f"It is the {', the '.join(told)}." if told else ""

    def _file(self) -> str:
        return re.sub(r"[^\w.-]+", "_", _named(self.culprit)).strip("._") or "output"


def _line(source: Source) -> str:
    return f"{source.file}:{source.line} in {source.function}"


def _read_by(text: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that a script's text names."""
    return {
        name: tensor for name, tensor in tensors.items() if f'["{name}"]' in text or f"[{name!r}]" in text
    }
