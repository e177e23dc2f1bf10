"""The model as it was given, run once: is the program that is compared the program that was given?

What is compared are copies of a model's modules, in eager mode. Compiled code does not run in them, and what a model
does elsewhere than in its modules may not, either. So the very object that was given is called on the very inputs,
and what it returns is held against what a copy returns.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from msgspec.structs import replace as replace_struct
from torch import Tensor

from verifier.bench.intact import Kept
from verifier.border import heartbeat
from verifier.border.programs import translating
from verifier.cells import ORACLE, Cell
from verifier.errors import ModelError, OutOfMemoryError
from verifier.graph.chance import same_chance
from verifier.graph.returned import Returned
from verifier.graph.tensors import same_numbers
from verifier.inputs.samples import batch_size, picked
from verifier.judge import judge_rows
from verifier.lockstep import Meeting, meet
from verifier.metrics import compare
from verifier.models.casting import cast, running
from verifier.models.compiled import compiled_parts, interpreted
from verifier.models.copying import copy_with, state_of
from verifier.records import Budget, Cause, CellResult, PairResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from verifier.bench.side import Side
    from verifier.inputs import Inputs

# Other kernels and other orders of adding may cost as much again as the program's own distance from float64, on both
# sides of it: the same factor that a low-precision candidate is allowed, and one rounding where nothing else rounds.
_FACTOR = 4.0


@dataclass(frozen=True)
class AsGiven:
    """What one model as it was given has shown.

    Attributes:
        role: `baseline` or `candidate`.
        apart: Each output of a copy against that of the model, where they are not the same; else empty.
        limit: What these may be apart by rounding (NRMSE).
        by_sample: Whether its outputs on a few samples are the rows of its outputs on all of them.
        compiled: Whether any of it is compiled.
        notes: What should be known of it in any case.
    """

    role: str
    apart: tuple[Meeting, ...] = ()
    limit: float = 0.0
    by_sample: bool = True
    compiled: bool = False
    notes: tuple[str, ...] = ()


def as_given(side: Side, inputs: Inputs) -> AsGiven:
    """Run one model as it was given, and a copy of it on the last sample and the first.

    What looks back from sample to sample, as over a first dimension that is time, shows at the last.

    Args:
        side: The model.
        inputs: What it is asked about.

    Raises:
        InputError: The baseline does not take the inputs.
        ModelError: The candidate fails on what the baseline takes.
    """
    heartbeat.stage("running the models as they were given")
    heartbeat.model(side.role)
    compiled = bool(compiled_parts(side.given))
    ends = [batch_size(inputs) - 1, 0] if batch_size(inputs) > 1 else [0]
    few = picked(inputs, ends)
    try:
        whole = _given(side, inputs)
    except OutOfMemoryError:
        if batch_size(inputs) == len(ends):
            raise
        return as_given(side, few)
    small = _program(side, few, side.cell())
    if small is not None:
        rows = [_rows(t, batch_size(inputs), ends) for t in whole]
        if _same(rows, small) or _near(side, few, small, rows)[0]:
            return AsGiven(side.role, compiled=compiled, notes=_noted(side, compiled, rows, small))
    large = _program(side, inputs, side.cell())
    if large is None:  # recording it tells why
        return AsGiven(side.role, by_sample=False, compiled=compiled)
    same, limit = (True, 0.0) if _same(whole, large) else _near(side, inputs, large, whole)
    found = () if same else _apart(large, whole)
    return AsGiven(side.role, found, limit, False, compiled, _noted(side, compiled, whole, large))


def _noted(side: Side, compiled: bool, given: Sequence[Tensor], program: Sequence[Tensor]) -> tuple[str, ...]:
    """That compiled code ran, and how near it came to its Python."""
    if not compiled:
        return ()
    how = "the same bits as" if _same(given, program) else "within rounding of"
    apart = [compare(m.moments) for m in meet(program, given) if m.moments is not None]
    if not _same(given, program) and any(each.nrmse > 0.01 for each in apart):
        return ()
    return (
        f"the {side.role} is compiled: its code, run once on the inputs, gave {how} the Python inside it, which is "
        "what was compared site by site",
    )


def _given(side: Side, inputs: Inputs) -> list[Tensor]:
    """What the model itself returns; all that it writes is put back."""
    args, kwargs = side.arguments(inputs)
    with (
        _as_before(side.given),
        translating(partial(side.failure, inputs=inputs)),
        torch.no_grad(),
        same_chance(),
    ):
        return [tensor.clone() for tensor in Returned.of(side.given(*args, **kwargs)).values()]


def _program(side: Side, inputs: Inputs, cell: Cell) -> list[Tensor] | None:
    """What a copy returns, with the model's own tensors; None where it does not run."""
    state = {name: cast(tensor, cell) for name, tensor in state_of(side.model).items()}
    copied = copy_with(side.model, state, lambda tensor: cast(tensor, cell), role=side.role)
    args, kwargs = side.arguments(inputs, cell)
    try:
        with (
            translating(lambda _: ModelError("")),
            torch.no_grad(),
            running(cell),
            same_chance(),
            interpreted(),
        ):
            return Returned.of(copied(*args, **kwargs)).values()
    except ModelError:
        return None


def _rows(tensor: Tensor, samples: int, numbers: Sequence[int]) -> Tensor:
    return tensor[list(numbers)] if tensor.dim() and tensor.shape[0] == samples else tensor


def _same(one: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
    return len(one) == len(two) and all(map(same_numbers, one, two))


def _near(
    side: Side, inputs: Inputs, program: Sequence[Tensor], given: Sequence[Tensor]
) -> tuple[bool, float]:
    """Whether the model is as near to its program in float64 as a copy is, and what it may be apart by."""
    if [t.shape for t in program] != [t.shape for t in given]:
        return False, 0.0
    exact = _program(side, inputs, ORACLE)
    if exact is None or [t.shape for t in exact] != [t.shape for t in program]:
        exact = list(program)
    unit = side.cell().unit_roundoff
    near, largest = True, 0.0
    for wide, one, two in zip(exact, program, given, strict=True):
        if not wide.is_floating_point():
            near &= same_numbers(one, two)
            continue
        limit = _FACTOR * (_distance(wide, one) + unit)
        largest = max(largest, limit)
        near &= _distance(wide, two) <= limit
    return near, largest


def _distance(one: Tensor, two: Tensor) -> float:
    (meeting,) = meet([one.cpu().double()], [two.cpu().double()])
    if meeting.moments is None:
        return float("inf")
    error = compare(meeting.moments)
    if error.nonfinite_mismatched:
        return float("inf")
    return 0.0 if error.elements == 0 or error.max_abs == 0 else error.nrmse


def _apart(program: Sequence[Tensor], given: Sequence[Tensor]) -> tuple[Meeting, ...]:
    count = min(len(program), len(given))
    return meet(program[:count], given[:count])


@contextlib.contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """Put back what a run changes: tensors, attributes of modules, and what tables and lists among these hold."""
    kept = Kept(state_of(model))
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
    """The results of all cells, with a row in the first that ran for each output that is not the program's."""
    first = next((k for k, each in enumerate(results) if each.verdict is not Verdict.SKIPPED), None)
    if first is None or not any(run.apart for run in runs):
        return tuple(results)
    cell = results[first]
    alike = cell.verdict is Verdict.MATCH
    rows = list(cell.layers)
    for run in runs:
        for number, meeting in enumerate(run.apart):
            rows.append(_row(len(rows), run, number, meeting, alike=alike))
    judged = judge_rows(rows)
    changed = replace_struct(
        cell,
        layers=judged.rows,
        verdict=judged.verdict,
        reason=judged.reason,
        first_divergence=judged.first_divergence,
        culprits=judged.culprits,
    )
    return (*results[:first], changed, *results[first + 1 :])


def _row(index: int, run: AsGiven, number: int, meeting: Meeting, *, alike: bool) -> PairResult:
    name = "output" if len(run.apart) == 1 else f"output{number}"
    what = "the compiled code" if run.compiled else "the model as it was given"
    inside = "the Python inside it" if run.compiled else "a copy of its modules"
    python = "is the baseline's" if run.role == "candidate" else "is the candidate's"
    python = python if alike else "differs from the other model's as well"
    other = meeting.shape != meeting.other_shape
    return PairResult(
        index=index,
        baseline=f"{name}, {run.role} as given",
        candidate=f"{name}, {run.role} as given",
        op="call",
        shape=meeting.shape,
        candidate_shape=meeting.other_shape if other else None,
        total=meeting.error,
        budget=Budget(rule="as given", total=run.limit, intrinsic=run.limit),
        position=number,
        cause=Cause(
            code="compiled-code" if run.compiled else "other-as-given",
            summary=f"{what} of the {run.role} gives other numbers than {inside}, which {python}"
            if run.compiled
            else f"{what}, the {run.role}, gives other numbers than {inside}, which {python}",
            confirmed=True,
            evidence=(f"both were run on the same inputs, with the same weights: {name} differs",),
            remedy="look at the compiler's backend and options, or run it without"
            if run.compiled
            else "look for what it does outside its modules: hooks on others, globals, patched functions",
        ),
    )
