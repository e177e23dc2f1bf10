"""The model as it was given, run once: is the program that is compared the program that was given?

What is compared are copies of a model's modules, in eager mode. Compiled code does not run in them, and what a model
does elsewhere than in its modules may not, either. So the very object that was given is called on the very inputs,
and what it returns is held against what a copy returns.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from msgspec.structs import replace as replace_struct
from torch import Tensor
from torch.overrides import TorchFunctionMode

from verifier.bench.intact import Kept
from verifier.bench.ladder import climbed, furthest, told
from verifier.bench.nearness import NOTHING
from verifier.bench.outputs import (
    agree,
    all_near,
    apart,
    begin,
    copied,
    one_of_each_size,
    returned_by,
    same,
)
from verifier.bench.recompiled import clauses, recompiled
from verifier.border import heartbeat
from verifier.border.programs import translating
from verifier.errors import ModelError, OutOfMemoryError
from verifier.graph.chance import same_chance
from verifier.graph.operators import operator_name
from verifier.graph.returned import Returned
from verifier.inputs.samples import batch_size, ends, picked, rows
from verifier.judge import judge_rows
from verifier.judge.verdicts import AS_GIVEN
from verifier.models.compiled import compiled_functions, compiled_parts, patched
from verifier.models.copying import state_of
from verifier.records import Budget, Cause, CellResult, FormStage, PairResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from verifier.bench.side import Side
    from verifier.forms.form import Form
    from verifier.inputs import Inputs
    from verifier.lockstep import Meeting


@dataclass(frozen=True)
class AsGiven:
    """What one model as it was given has shown.

    Attributes:
        role: `baseline` or `candidate`.
        apart: Each output of a copy in float64 against that of the model, where they are not the same; else empty.
        limits: What each of these may be apart by rounding (NRMSE).
        compiled: Whether any of it is compiled.
        notes: What should be known of it in any case.
        stages: How each stage of a deployed form compares with its program.
        stage: Which kind of stage departs, as a row has it; empty where nobody can tell.
        cell: The cell that it was run in; empty for that of the model itself.
    """

    role: str
    apart: tuple[Meeting, ...] = ()
    limits: tuple[float, ...] = ()
    compiled: bool = False
    notes: tuple[str, ...] = ()
    stages: tuple[FormStage, ...] = ()
    stage: str = ""
    cell: str = ""


def as_given(side: Side, parts: Sequence[Inputs]) -> AsGiven:
    """Run one model as it was given, and a copy of it.

    A model that is nothing but its modules is its copy, which runs in its place wherever it is watched.

    Args:
        side: The model.
        parts: What it is asked about, in batches; it is run on one of each size.

    Raises:
        InputError: The baseline does not take the inputs.
        ModelError: The candidate fails on what the baseline takes.
    """
    form, compiled = side.form, bool(compiled_parts(side.given))
    if form is not None and form.recompiled is None:
        shown = climbed(side, form, parts)
        return AsGiven(side.role, shown.apart, shown.limits, stages=tuple(shown.results))
    if form is not None and not compiled:
        return _recompiled(side, form, parts)
    compiled = compiled or compiled_functions(side.given)
    if not (compiled or patched(side.given)):
        return AsGiven(side.role)
    begin(side)
    found = []
    for inputs in one_of_each_size(parts):
        found.append(_run(side, inputs, compiled=compiled))
        if found[-1].apart:
            return found[-1] if form is None else _compiled_again(side, form, inputs, found[-1])
    return found[0]


def _recompiled(side: Side, form: Form, parts: Sequence[Inputs]) -> AsGiven:
    """The code that a compiler makes of the program with the tensors and in the cell that the side has."""
    shown = recompiled(side, form, parts)
    notes = []
    if shown.results:
        name, where = shown.results[-1].name, side.cell().name
        notes.append(f"the {side.role} was compiled by {name} in {where}, to {shown.made}")
    return AsGiven(
        side.role,
        shown.apart,
        shown.limits,
        compiled=True,
        notes=tuple(notes),
        stages=tuple(shown.results),
        stage=shown.stage,
        cell="" if side.setting is None else side.setting.name,
    )


def _compiled_again(side: Side, form: Form, inputs: Inputs, run: AsGiven) -> AsGiven:
    """What a model that was given compiled has shown, with the stages of its program that was compiled once more."""
    again = recompiled(side, form, [inputs])
    alike = not again.apart and all(each.error is not None for each in run.apart)  # shapes and dtypes are
    if again.draws and again.results and alike:
        said = "draws random numbers of its own, so what it gives was not compared; a copy of it that was compiled"
        note = (
            f"the {side.role} as it was given {said} anew to draw torch's numbers gives what its Python gives"
        )
        return AsGiven(side.role, compiled=True, notes=(note,), stages=tuple(again.results))
    if not again.apart:  # it does so once, or in the state that it is in
        return run
    return replace(run, stages=tuple(again.results), stage=again.stage)


def by_sample(side: Side, parts: Sequence[Inputs]) -> bool:
    """Whether a copy's outputs on a few samples are the rows of its outputs on all of them.

    What looks back from sample to sample, as over a first dimension that is time, shows at the last. False where it
    does not run on few. Arguments and errors are those of `as_given`.
    """
    begin(side)
    found = [_rows_alone(side, inputs) for inputs in one_of_each_size(parts)]  # each of them may fail
    return all(found)


def made_for(side: Side, inputs: Inputs) -> str:
    """What a copy does with one sample more that gives other rows or does not run; empty where it gives the same.

    Arguments are those of `as_given`.
    """
    numbers = range(batch_size(inputs))
    begin(side)
    try:
        alike = _rows_alone(side, picked(inputs, [*numbers, 0]), numbers)
    except ModelError:
        return "it fails with others"
    return "" if alike else "others give other numbers"


def _rows_alone(side: Side, inputs: Inputs, numbers: Sequence[int] = ()) -> bool:
    """Whether some samples, the last and the first if none are named, give the rows that they give among all."""
    numbers = numbers or ends(batch_size(inputs))
    few = picked(inputs, numbers)
    try:
        program = returned_by(side, copied(side, side.cell()), inputs, side.cell(), failing=True)
    except OutOfMemoryError:
        if batch_size(inputs) == len(numbers):
            raise
        return _rows_alone(side, few)
    small = returned_by(side, copied(side, side.cell()), few, side.cell())
    if program is None or small is None:
        return False
    return all_near(agree(side, few, small, rows(program, batch_size(inputs), numbers)))


def _run(side: Side, inputs: Inputs, *, compiled: bool) -> AsGiven:
    copy = copied(side, side.cell())  # before the model runs, which may change what it holds
    try:
        whole = _given(side, inputs)
        program = returned_by(side, copy, inputs, side.cell())
    except OutOfMemoryError:
        few = picked(inputs, ends(batch_size(inputs)))
        if batch_size(few) == batch_size(inputs):
            raise
        return _run(side, few, compiled=compiled)
    if program is None:  # recording it tells why
        return AsGiven(side.role, compiled=compiled)
    found = agree(side, inputs, program, whole)
    stages = _shipped(side, whole, program, Verdict.MATCH if all_near(found) else Verdict.DIVERGED)
    if all_near(found):
        notes = _noted(side, whole, program) if compiled else ()
        return AsGiven(side.role, compiled=compiled, notes=notes, stages=stages)
    limits = tuple(each.limit for each in found)
    return AsGiven(side.role, apart(program, whole, found), limits, compiled, stages=stages)


def _shipped(
    side: Side, given: Sequence[Tensor], program: Sequence[Tensor], verdict: Verdict
) -> tuple[FormStage, ...]:
    """The record of compiled code as it was given; none where it does not tell how it was compiled."""
    if side.form is None or side.form.recompiled is None:
        return ()
    rung = side.form.recompiled(side.model, draws=False)[-1]
    exact = same(given, program)
    return (told(side, side.form, rung, verdict, furthest(program, given), exact=exact),)


def _noted(side: Side, given: Sequence[Tensor], program: Sequence[Tensor]) -> tuple[str, ...]:
    """That compiled code ran, and how near it came to its Python."""
    how = "the same bits as" if same(given, program) else "within rounding of"
    said = f"the {side.role} is compiled: its code, run once on the inputs, gave {how} the Python inside it"
    return (f"{said}, which is what was compared site by site",)


def _given(side: Side, inputs: Inputs) -> list[Tensor]:
    """What the model itself returns; all that it writes is put back."""
    args, kwargs = side.arguments(inputs)
    with (
        _as_before(side.given),
        translating(partial(side.failure, inputs=inputs)),
        torch.no_grad(),
        same_chance(),
        _Naming() if heartbeat.watched() else contextlib.nullcontext(),
    ):
        return [tensor.clone() for tensor in Returned.of(side.given(*args, **kwargs)).values()]


class _Naming(TorchFunctionMode):
    """Says which operator a model is about to call that nothing may be hung on."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make the call as it is."""
        heartbeat.site(operator_name(func))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """Put back what a run changes: tensors, attributes of modules, and what tables and lists among these hold."""
    held = {
        f"{name}.{key}": value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
    }
    kept = Kept(state_of(model) | {name: value for name, value in held.items() if isinstance(value, Tensor)})
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    tables = [
        (value, type(value)(value))
        for _, found in attributes
        for value in found.values()
        if type(value) in (dict, OrderedDict, list, set)
    ]
    try:
        yield
    finally:
        for module, before in attributes:
            now = vars(module)
            if now.keys() != before.keys() or any(now[name] is not value for name, value in before.items()):
                now.clear()
                now.update(before)
        for table, held in tables:
            if isinstance(table, list):
                table[:] = held
            else:
                table.clear()
                table.update(held)
        kept.put_back()


def with_runs(results: Sequence[CellResult], runs: Sequence[AsGiven]) -> tuple[CellResult, ...]:
    """The results of all cells, with a row for each output that is not the program's: in its cell, or the first."""
    ran = [k for k, each in enumerate(results) if each.verdict is not Verdict.SKIPPED]
    changed = list(results)
    for k in ran:
        here = [
            run
            for run in runs
            if run.apart and k == next((j for j in ran if results[j].name == run.cell), ran[0])
        ]
        if here:
            changed[k] = _with_rows(results[k], here)
    return tuple(changed)


def _with_rows(cell: CellResult, runs: Sequence[AsGiven]) -> CellResult:
    alike = cell.verdict is Verdict.MATCH
    rows = list(cell.layers)
    for run in runs:
        for number, meeting in enumerate(run.apart):
            make = _row_of_stage if run.stages and not run.compiled else _row
            rows.append(make(len(rows), run, number, meeting, alike=alike))
    judged = judge_rows(rows)
    return replace_struct(
        cell,
        layers=judged.rows,
        verdict=judged.verdict,
        reason=judged.reason,
        first_divergence=judged.first_divergence,
        culprits=judged.culprits,
    )


def _row_of_stage(index: int, run: AsGiven, number: int, meeting: Meeting, *, alike: bool) -> PairResult:
    """A row for an output of a deployed form that its runtime changes; with the first site that it changes."""
    stage = run.stages[-1]
    before = [each.name for each in run.stages[:-1]]
    name = stage.site or ("output" if len(run.apart) == 1 else f"output{number}")
    made = f", first at {stage.site}, made by {stage.operator} there" if stage.site else ""
    agree = f"; {', '.join(before)} {'agrees' if len(before) == 1 else 'agree'} with them" if before else ""
    row = _row(index, run, number, meeting, alike=alike)
    return replace_struct(
        row,
        baseline=f"{name}, {run.role} at {stage.name}",
        candidate=f"{name}, {run.role} at {stage.name}",
        cause=Cause(
            code="optimised-form",
            summary=f"{stage.form} run at {stage.name} gives other numbers than its operators one by one{made}",
            confirmed=True,
            evidence=(f"both were run on the same inputs, with the same weights{agree}",),
            remedy=f"run it as {before[-1]}" if before else "look at what its runtime makes of it",
        ),
    )


def _row(index: int, run: AsGiven, number: int, meeting: Meeting, *, alike: bool) -> PairResult:
    name = "output" if len(run.apart) == 1 else f"output{number}"
    what = "the compiled code" if run.compiled else "the model as it was given"
    inside = "the Python inside it" if run.compiled else "a copy of its modules"
    python = "is the baseline's" if run.role == "candidate" else "is the candidate's"
    python = python if alike else "differs from the other model's as well"
    limit = run.limits[number] if number < len(run.limits) else 0.0
    kind, limit = limit == NOTHING, max(limit, 0.0)
    other = (
        kind or meeting.shape != meeting.other_shape
    )  # what is of another kind counts as what has another shape
    numbers = "a tensor of another dtype" if kind else "other numbers"
    return PairResult(
        index=index,
        baseline=f"{name}, {run.role} as given",
        candidate=f"{name}, {run.role} as given",
        op="call",
        shape=meeting.shape,
        candidate_shape=meeting.other_shape if other else None,
        total=None if kind else meeting.error,
        budget=Budget(rule=AS_GIVEN, total=limit, intrinsic=limit),
        position=number,
        stage=run.stage,  # type: ignore[arg-type]
        cause=Cause(
            code="compiled-code" if run.compiled else "other-as-given",
            summary=f"{what} of the {run.role} gives {numbers} than {inside}, which {python}{_first(run)}"
            if run.compiled
            else f"{what}, the {run.role}, gives {numbers} than {inside}, which {python}",
            confirmed=True,
            evidence=(
                f"both were run on the same inputs, with the same weights: {name} differs",
                *clauses(run.stages if run.compiled else ()),
            ),
            remedy="look at the compiler's backend and options, or run it without"
            if run.compiled
            else "look for what it does outside its modules: hooks on others, globals, patched functions",
        ),
    )


def _first(run: AsGiven) -> str:
    """The first value that the compiled code changes, where it was found."""
    found = next((each for each in run.stages if each.site), None)
    return f"; first at {found.site} ({found.operator})" if found is not None else ""
