"""What is different where a model is a deployed form: its weights, its dtypes, and where it went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from verifier.bench.as_given import as_given
from verifier.bench.specialised import with_ways
from verifier.cells import ORACLE
from verifier.environment import tf32
from verifier.errors import CannotRunError, UsageError
from verifier.judge.verdicts import AS_GIVEN
from verifier.weights import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.align import Assembly
    from verifier.bench.as_given import AsGiven
    from verifier.bench.side import Side
    from verifier.bench.specialised import Way
    from verifier.cells import Cell, Request
    from verifier.inputs import Inputs
    from verifier.records import CellResult, PairResult

_DRAWN = ("calibrated", "init", "imagenet")


def weighed(
    weights: str, parameter_map: Mapping[str, object], sides: tuple[Side, Side]
) -> tuple[str, dict[str, Assembly | None]]:
    """Where both models' weights come from, where a form has its own, and the parameter map.

    Args:
        weights: What was asked for, as `verifier.weights.choose` has it; `transfer` leaves a form its own.
        parameter_map: What is known of it, as a map file has it.
        sides: Both models.

    Raises:
        UsageError: It was asked for weights that a form cannot be given.
        MapError: The map does not fit.
    """
    known = resolve(parameter_map, sides[0].shapes(), sides[1].shapes())
    forms = [side for side in sides if side.form is not None and side.form.owns_weights]
    if not forms or weights == "as-is":
        return weights, known
    refuse_drawn(weights, forms[0], "Leave --weights out, or name the file of the other model's weights.")
    if weights == "transfer":
        return "as-is", known
    if forms[0] is sides[0]:
        raise UsageError(
            "the baseline is a form that has weights of its own, and a weights file is for the baseline. Leave "
            "--weights out."
        )
    return weights, {**dict.fromkeys(sides[1].shapes()), **known}


def refuse_drawn(weights: str, side: Side, instead: str) -> None:
    """See that a form that has weights of its own is not to be given others; `instead` says what to do.

    Raises:
        UsageError: It is.
    """
    if side.form is not None and side.form.owns_weights and weights in _DRAWN:
        raise UsageError(
            f"the {side.role} is {side.form.kind}, which has weights of its own, and cannot be given {weights} "
            f"ones. {instead}"
        )


def unsuited(requests: Sequence[Request], sides: Sequence[Side]) -> dict[Cell, str]:
    """Of the cells that were asked for those in which a form does not compute, with the reason.

    Raises:
        CannotRunError: It computes in none of them.
    """
    found: dict[Cell, str] = {}
    for side in sides:
        form = side.form
        if form is None or not form.dtypes:
            continue
        for request in requests:
            cell = request.cell
            if cell != ORACLE and (cell.dtype not in form.dtypes or not cell.device.startswith("cpu")):
                named = " and ".join(sorted(form.dtypes))
                found[cell] = f"the {side.role} is {form.kind} in {named} on the CPU"
    if len(found) == len(requests):
        raise CannotRunError(
            f"{next(iter(found.values()))}: ask for --dtype {'|'.join(sorted(form_dtypes(sides)))}."
        )
    return found


def refuse_other_cells(cells: Sequence[Cell], side: Side) -> None:
    """See that a form computes in all of some cells.

    Raises:
        CannotRunError: It does not.
    """
    form = side.form
    dtypes = form.dtypes if form is not None else frozenset()
    for cell in cells:
        if dtypes and cell != ORACLE and (cell.dtype not in dtypes or not cell.device.startswith("cpu")):
            named = " and ".join(sorted(dtypes))
            raise CannotRunError(f"the {side.role} computes in {named} on the CPU, not in {cell.name}.")


def form_dtypes(sides: Sequence[Side]) -> set[str]:
    """The dtypes that the forms among two models compute in."""
    return {dtype for side in sides if side.form is not None for dtype in side.form.dtypes}


def in_cells(
    side: Side, state: Mapping[str, Tensor], cells: Sequence[Cell], parts: Sequence[Inputs]
) -> Iterator[AsGiven]:
    """What the code that a compiler makes of a model's program shows in each cell, with the tensors of `state`.

    Raises:
        ModelError: It fails on what the program takes.
    """
    for cell in cells:
        with tf32(allowed=cell.dtype == "tf32"):
            yield as_given(side.held(state, cell), parts)


def staged(
    results: Sequence[CellResult], sides: Sequence[Side], ways: Sequence[Way] = ()
) -> tuple[CellResult, ...]:
    """The results with where a form went wrong: in its graph if float64 tells, else in a kernel or by its runtime.

    Args:
        results: Of all cells.
        sides: Both models, or the only one.
        ways: Those that one of them takes for other numbers.
    """
    if all(side.form is None or side.form.recompiled for side in sides):
        return tuple(results)
    told = {_key(row) for cell in results if cell.role == "semantics" for row in cell.culprits}

    def placed(cell: CellResult, row: PairResult) -> PairResult:
        if row.cause is None or (row.budget is None and row.kind != "site"):
            return row
        if row.stage:
            return row
        if row.budget is not None and row.budget.rule == AS_GIVEN:
            stage = "fusion"
        else:
            stage = "translation" if cell.role == "semantics" or _key(row) in told else "kernel"
        return msgspec.structs.replace(row, stage=stage, cause=with_ways(row, row.cause, ways))

    found = []
    for cell in results:
        rows = {row.index: placed(cell, row) for row in cell.culprits}
        first = cell.first_divergence
        found.append(
            msgspec.structs.replace(
                cell,
                layers=tuple(rows.get(row.index, row) for row in cell.layers),
                culprits=tuple(rows[row.index] for row in cell.culprits),
                first_divergence=None if first is None else rows.get(first.index, first),
            )
        )
    return tuple(found)


def _key(row: PairResult) -> tuple[str | None, str | None]:
    return row.baseline, row.candidate
