"""A deployed form at each of its stages, run as it is: does it still give what its program gives?

Taps change a fused program, so what is watched is the program, operator by operator, and the form as it is shipped
runs untouched beside it. If both give the same within rounding, what the taps tell holds for the form, and the
stages below it need not be run; if not, the first of them that changes it is looked for, and the first value there.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import torch

from verifier.bench.nearness import Error, near
from verifier.bench.outputs import agree, all_near, apart, begin, copied, one_of_each_size, returned_by, same
from verifier.border.error_texts import account
from verifier.border.programs import translating
from verifier.border.signals import check_unanswered
from verifier.cells import ORACLE
from verifier.errors import CannotRunError, ModelError, VerifierError
from verifier.graph.chance import same_chance
from verifier.graph.returned import Returned
from verifier.lockstep import Lane
from verifier.models.casting import casting, made_in
from verifier.records import FormStage, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from verifier.bench.side import Side
    from verifier.cells import Cell
    from verifier.forms.form import Form, Stage
    from verifier.graph import Graph
    from verifier.inputs import Inputs
    from verifier.lockstep import Meeting


class Climbed:
    """What the stages of one form have shown.

    Attributes:
        results: Each stage's.
        apart: Of the first that is not its program, each output in float64 against that of the stage; else empty.
        limits: What each of these may be apart by rounding (NRMSE).
        stage: Where it went wrong, as a row has it (`PairResult.stage`); empty where nobody can tell.
        made: In words, what a compiler has made of it; empty where there is none.
        draws: Whether its program draws random numbers, as far as that was asked.
    """

    def __init__(self) -> None:
        self.results: list[FormStage] = []
        self.apart: tuple[Meeting, ...] = ()
        self.limits: tuple[float, ...] = ()
        self.stage = ""
        self.made = ""
        self.draws = False


def climbed(side: Side, form: Form, parts: Sequence[Inputs]) -> Climbed:
    """Run each stage of a form on its own.

    Args:
        side: The model.
        form: What it is deployed as.
        parts: What it is asked about, in batches; it is run on one of each size.

    Raises:
        ModelError: A stage fails on what the program takes.
    """
    begin(side)
    found = Climbed()
    for inputs in one_of_each_size(parts) if form.stages else ():
        program = returned_by(side, copied(side, side.cell()), inputs, side.cell())
        if program is None:  # recording it tells why
            return found
        _climb(side, form, inputs, program, found)
        if found.apart:
            break
    return found


def _climb(side: Side, form: Form, inputs: Inputs, program: Sequence[Tensor], found: Climbed) -> None:
    """Hold what is shipped against the program, and the stages below it where it departs, the lowest first."""
    *below, shipped = form.stages
    given = _run(side, shipped, inputs)
    top = _held(side, form, shipped, inputs, program, given)
    before = top, given  # of several stages most give the same bits
    if top.apart or form.lowered:  # what is narrower may hide what one below it does
        for stage in below:
            given = _run(side, stage, inputs)
            if same(given, before[1]):
                each = replace(before[0], result=msgspec.structs.replace(before[0].result, name=stage.name))
            else:
                each = _held(side, form, stage, inputs, program, given)
            before = each, given
            if each.apart:
                break
            keep(found, each.result)
        if before[0].apart:
            top = before[0]
    if top.apart:
        stage = next(each for each in form.stages if each.name == top.result.name)
        top = replace(top, result=_placed(side, top.judged, stage, inputs, top.result))
    keep(found, top.result)
    found.apart, found.limits = top.apart, top.limits


@dataclass(frozen=True)
class _Held:
    """A stage's outputs held against the program's; `judged` is the model with whose rounding that was done."""

    judged: Side
    result: FormStage
    apart: tuple[Meeting, ...] = ()
    limits: tuple[float, ...] = ()


def _held(
    side: Side, form: Form, stage: Stage, inputs: Inputs, program: Sequence[Tensor], given: Sequence[Tensor]
) -> _Held:
    judged = _lowered(side, form, stage)
    like = program
    if judged is not side:
        narrow = returned_by(judged, copied(judged, judged.cell()), inputs, judged.cell())
        like = program if narrow is None else [t.to(p.dtype) for t, p in zip(narrow, program, strict=True)]
    nears = agree(judged, inputs, like, given)
    error = furthest(program, given)
    if all_near(nears):
        exact = same(program, given)
        return _Held(judged, told(judged, form, stage, Verdict.MATCH, error, exact=exact))
    result = told(judged, form, stage, Verdict.DIVERGED, error, exact=False)
    return _Held(judged, result, apart(program, given, nears), tuple(each.limit for each in nears))


def _lowered(side: Side, form: Form, stage: Stage) -> Side:
    """The model in the dtype that a stage computes in, with whose rounding it is to be compared."""
    dtype = form.lowered.get(stage.name)
    return side if dtype is None else replace(side, setting=replace(side.cell(), dtype=dtype))


def keep(found: Climbed, result: FormStage) -> None:
    """Add a stage's result. Of several sizes the worse one counts."""
    for k, each in enumerate(found.results):
        if each.name == result.name:
            worse = result.verdict is Verdict.DIVERGED or (
                each.verdict is result.verdict and result.error > each.error
            )
            found.results[k] = result if worse else each
            return
    found.results.append(result)


def told(side: Side, form: Form, stage: Stage, verdict: Verdict, error: float, *, exact: bool) -> FormStage:
    """The record of a stage."""
    return FormStage(
        role=side.role,
        form=form.kind,
        name=stage.name,
        verdict=verdict,
        error=error,
        exact=exact,
        cell="" if side.setting is None else side.setting.name,
    )


def furthest(program: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """How far what a stage gives is from its program's (the largest NRMSE); infinite where shapes differ."""
    if [each.shape for each in program] != [each.shape for each in given]:
        return float("inf")
    return max(map(_distance, program, given), default=0.0)


def _distance(program: Tensor, given: Tensor) -> float:
    return Error.of(program, given).distance


def _run(side: Side, stage: Stage, inputs: Inputs) -> list[Tensor]:
    args, kwargs = side.arguments(inputs)
    with translating(partial(failing, side, stage)), torch.no_grad(), same_chance():
        return [tensor.clone() for tensor in Returned.of(stage.run(args, kwargs)).values()]


def failing(side: Side, stage: Stage, error: BaseException) -> VerifierError:
    """What to say of a stage that raised on what its program takes."""
    return ModelError(f"the {side.role} {side.spec} fails as it is run ({stage.name}): {account(error)}")


def _placed(side: Side, judged: Side, stage: Stage, inputs: Inputs, result: FormStage) -> FormStage:
    """The same with the first of the program's sites that the stage changes, as is told of the model as `judged`."""
    seen = 0
    try:
        graph = side.record(inputs)
        args, kwargs = side.arguments(inputs)
        inside = stage.values(args, kwargs, graph)
        for site, operator, exact, program, value in beside(judged, inputs, graph, inside):
            seen += 1
            program = program.to(value.dtype)  # noqa: PLW2901 - a stage may show wider what it computes narrower
            if exact.shape == program.shape == value.shape:
                found = near(judged.cell().unit_roundoff, exact, program, value, Error.of(exact, program))
                if found.near:
                    continue
            return msgspec.structs.replace(result, site=graph.sites[site].name, operator=operator)
        why = (
            f"none of the {seen} values that it shows inside differs"
            if seen
            else "it shows nothing of its inside"
        )
    except BaseException as error:
        check_unanswered(error)
        if not isinstance(error, CannotRunError | RuntimeError | ValueError):
            raise
        why = f"looking into it fails: {account(error)}"
    return msgspec.structs.replace(result, unplaced=f"not found: {why}")


def beside(
    side: Side, inputs: Inputs, graph: Graph, inside: Iterator[tuple[int, str, Tensor]]
) -> Iterator[tuple[int, str, Tensor, Tensor, Tensor]]:
    """What a stage has inside, a few at a time, each with what the program has there in float64 and as it runs."""
    chunk: list[tuple[int, str, Tensor]] = []

    def held() -> Iterator[tuple[int, str, Tensor, Tensor, Tensor]]:
        chunk.sort(key=lambda each: each[0])
        sites = {site for site, _, _ in chunk}
        exact, program = (_values(side, inputs, graph, cell, sites) for cell in (ORACLE, side.cell()))
        for site, operator, value in chunk:
            if site in exact and site in program:
                yield site, operator, exact[site], program[site], value
        chunk.clear()

    for each in inside:
        chunk.append(each)
        if len(chunk) == _CHUNK:
            yield from held()
    yield from held()


_CHUNK = 64


def _values(side: Side, inputs: Inputs, graph: Graph, cell: Cell, sites: set[int]) -> dict[int, Tensor]:
    args, kwargs = side.arguments(inputs, cell)
    lane = Lane(
        side.role,
        copied(side, cell),
        graph,
        args,
        kwargs,
        stops=sites,
        around=lambda: casting(cell),
        dtype=made_in(cell),
    )
    found: dict[int, Tensor] = {}
    with contextlib.closing(lane):
        while (site := lane.advance()) is not None and len(found) < len(sites):
            if lane.tensor is not None:
                found[site] = lane.tensor.detach().clone()
    return found
