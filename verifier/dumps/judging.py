"""Rows, verdict and coverage of a candidate that was compared with dumped tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from verifier.certificates.judging import with_intrinsic
from verifier.dumps.comparing import Aligned, Compared, upstream
from verifier.dumps.names import family, natural, of_output
from verifier.dumps.parameters import said
from verifier.graph.operators import MOVES
from verifier.judge import judge_rows
from verifier.records import Cause, Coverage, PairResult, Status, UnmatchedSite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.dumps.parameters import Held, Parameters
    from verifier.dumps.watching import Runner
    from verifier.judge import Judged
    from verifier.records import Comparison

_SOME = 3


class InputSeen(NamedTuple):
    """One of the given inputs and the dumped tensor that it is, or that is named as if it were."""

    position: int
    name: str
    dumped: str
    layout: str
    shape: tuple[int, ...]
    other: tuple[int, ...]
    error: Comparison | None


class Rows(NamedTuple):
    """The rows of the cell, judged; `outputs` has the row of each output that was compared, `open` what speaks
    against a match though nothing diverged, as a sentence."""

    judged: Judged
    outputs: tuple[int, ...]
    open: str
    hidden: tuple[str, ...]


def judged(
    runner: Runner, found: Aligned, inputs: Sequence[InputSeen], parameters: Parameters, tensors: int
) -> Rows:
    """Rows in the candidate's order of execution, with statuses, and what keeps them from being a match.

    Args:
        runner: The candidate.
        found: Dumped activations with their places.
        inputs: Inputs that are dumped as well.
        parameters: Dumped parameters.
        tensors: How many tensors the dump holds.
    """
    rows = [_input_row(k, each, runner) for k, each in enumerate(inputs)]
    of_input = {-1 - each.position: k for k, each in enumerate(inputs)}
    row_of: dict[int, int] = {}
    differing = {held.name: held for held in parameters.differing}
    for place in sorted(found.compared):
        row_of[place] = len(rows)
        rows.append(_row(len(rows), found.compared[place], runner, found, row_of | of_input, differing))
    outputs: list[int] = []
    count = len(runner.graph.sites)
    for k, each in sorted(found.outputs.items()):
        place = count + k
        maker = runner.graph.outputs[k]
        if place in row_of:
            outputs.append(row_of[place])
        elif maker in row_of and found.compared[maker] == replace(each, place=maker):
            outputs.append(row_of[maker])
        else:
            outputs.append(len(rows))
            row = _row(len(rows), replace(each, place=place), runner, found, row_of | of_input, {})
            name = _output(runner, k)
            rows.append(msgspec.structs.replace(row, op="output", candidate=name, position=k))
    for name, why in sorted(found.lost.items()):
        rows.append(
            PairResult(
                index=len(rows),
                baseline=name,
                candidate=None,
                op="tensor",
                shape=found.shapes[name],
                status=Status.UNMATCHED,
                reason=why,
            )
        )
    result = judge_rows(with_intrinsic(rows))
    hidden, why = _open(runner, found, inputs, tensors)
    return Rows(result, tuple(outputs), why, hidden)


def _output(runner: Runner, position: int) -> str:
    return "output" if len(runner.graph.outputs) == 1 else f"output{position}"


def _input_row(index: int, each: InputSeen, runner: Runner) -> PairResult:
    return PairResult(
        index=index,
        baseline=each.dumped,
        candidate=each.name,
        op="input",
        shape=each.shape,
        candidate_shape=None if each.error is not None else each.other,
        total=each.error,
        budget=runner.input_budget,
        layout=each.layout,
        position=each.position,
    )


def _row(
    index: int,
    each: Compared,
    runner: Runner,
    found: Aligned,
    row_of: Mapping[int, int],
    differing: Mapping[str, Held],
) -> PairResult:
    graph = runner.graph
    inside = each.place < len(graph.sites)
    site = graph.sites[each.place] if inside else None
    above, between = upstream(runner, each.place, found.compared)
    said_so: list[str] = []
    layout = ""
    if each.layout is not None and not (
        each.layout.trivial and each.shape == each.other and not _reshaped(each)
    ):
        layout = each.layout.text
    if not each.agrees:
        passed = [graph.sites[k].name for k in sorted(between) if graph.sites[k].comparable]
        if without := _before(each.dumped, found):
            said_so.append(f"of the dump, before it, without a partner: {', '.join(without)}")
        if passed:
            more = ", ..." if passed[_SOME:] else ""
            said_so.append(f"not in the dump, before it: {', '.join(passed[:_SOME])}{more}")
        if each.departs is not None:
            said_so.append(
                f"the numbers agree with axes exchanged: {each.departs.text} gives the candidate's"
            )
    cause = None
    nearby = [graph.sites[k] for k in sorted(between)] + ([] if site is None else [site])
    wrong = [differing[use.name] for one in reversed(nearby) for use in one.tensors if use.name in differing]
    if wrong and not each.agrees:
        kind = wrong[0].name.rpartition(".")[2]
        what = "transposed" if wrong[0].exchanged else "perturbed"
        cause = Cause(
            code=f"{kind.replace('_', '-')}-{what}",
            summary="; ".join(map(said, wrong[:_SOME])),
            confirmed=False,
            evidence=("the dump holds the parameter, and the candidate computes with another",),
            remedy=f"load {wrong[0].text} into {wrong[0].own}",
        )
    return PairResult(
        index=index,
        baseline=each.dumped,
        candidate=site.name if site is not None else _output(runner, each.place - len(graph.sites)),
        op=site.op if site is not None else "output",
        shape=each.shape,
        candidate_shape=None if each.error is not None else each.other,
        total=each.error,
        budget=runner.budget(each.place),
        above=tuple(sorted(row_of[k] for k in above if k in row_of and row_of[k] != index)),
        differences=tuple(said_so),
        layout=layout,
        cause=cause,
        position=None if inside else each.place - len(graph.sites),
    )


def _before(name: str, found: Aligned) -> list[str]:
    """Dumped tensors without a place that come just before one, as far as the dump's order is known."""
    if found.order is None:
        return []
    named: list[str] = []
    for other in reversed(found.order[: found.order.index(name)]):
        if other in found.lost:
            named.append(other)
        elif other not in found.same:
            break
    return named[: _SOME - 1 :][::-1]


def _reshaped(each: Compared) -> bool:
    return each.layout is not None and each.layout.finer


def _open(
    runner: Runner, found: Aligned, inputs: Sequence[InputSeen], tensors: int
) -> tuple[tuple[str, ...], str]:
    """Of what nothing can be said, and why that keeps the two from being a match."""
    graph = runner.graph
    if not found.compared and not found.outputs:
        return ("the candidate",), (
            f"none of the {tensors} dumped tensors could be aligned with the candidate: no activation of it has its "
            "numbers, and no shape, order or name tells one"
            + ("" if inputs else "; nor is any of them its input")
        )
    missing = [k for k in range(len(graph.outputs)) if k not in found.outputs]
    if missing:
        name = _output(runner, missing[0])
        place = len(graph.sites) + missing[0]
        why = (
            "float32 rounds away more than half of its digits; dump float64"
            if place in found.loud
            else "no dumped tensor could be aligned with it"
        )
        return tuple(_output(runner, k) for k in missing), f"the candidate's {name} was not compared: {why}"
    flat = [
        k
        for k, each in found.outputs.items()
        if each.error is not None and each.agrees and _constant(each.error)
    ]
    if flat:
        return tuple(
            _output(runner, k) for k in flat
        ), f"the candidate's {_output(runner, flat[0])} is constant: it tells nothing"
    if alone := [k for k, each in found.outputs.items() if each.alone and each.layout is not None]:
        layout = found.outputs[alone[0]].layout
        return tuple(_output(runner, k) for k in alone), (
            f"the candidate's {_output(runner, alone[0])} agrees if it is laid out otherwise "
            f"({layout.text if layout else ''}), which nothing else in the dump bears out; dump its input as well"
        )
    names = [found.outputs[k].dumped for k in sorted(found.outputs)]
    if len(set(map(family, names))) == 1 and names != sorted(names, key=natural):
        return tuple(
            names
        ), f"the candidate returns {', '.join(names)} in another order than the dump counts them"
    if found.doubtful:
        name = found.doubtful[0]
        return found.doubtful, f"{name} of the dump agrees nowhere: {found.lost[name]}"
    if behind := _behind(found):
        return tuple(behind), (
            f"{behind[0]} of the dump has no partner and may come behind what the candidate returns"
        )
    return (), ""


def _constant(error: Comparison) -> bool:
    return error.elements > error.nonfinite_baseline and error.pearson != error.pearson


def _behind(found: Aligned) -> list[str]:
    """Dumped tensors without a place that may come after all that the candidate returns."""
    order = found.order
    ends = {each.dumped for each in found.outputs.values()}
    ends |= {name for name, other in found.same.items() if other in ends}
    if order is None:
        return sorted(found.lost)
    last = max(order.index(name) for name in ends if name in order)
    return [name for name in found.lost if order.index(name) > last or of_output(name)]


def coverage(runner: Runner, found: Aligned, rows: Rows) -> Coverage:
    """How much of the dump and of the candidate was compared.

    A site that is not dumped counts as compared if what reads it leads to one that is.
    """
    graph = runner.graph
    reached: set[int] = set()
    stack = [place for place in found.compared if place < len(graph.sites)]
    stack += [graph.outputs[k] for k in found.outputs if graph.outputs[k] >= 0]
    while stack:
        here = stack.pop()
        if here >= 0 and here not in reached:
            reached.add(here)
            stack.extend(graph.sites[here].inputs)
    computing = [site for site in graph.comparable if site.op not in MOVES or site.index in found.compared]
    known = len(found.compared)
    own = {place for place in found.compared if place < len(graph.sites)}
    lost = [
        UnmatchedSite(side="baseline", name=n, op="tensor", reason=why)
        for n, why in sorted(found.lost.items())
    ]
    lost += [
        UnmatchedSite(
            side="candidate",
            name=site.name,
            op=site.op,
            reason="the dump holds nothing of it",
            compared_at="what reads it" if site.index in reached else None,
        )
        for site in graph.comparable
        if site.index not in own
    ]
    return Coverage(
        compared=len(own),
        baseline_sites=known + len(found.lost),
        candidate_sites=len(graph.comparable),
        baseline_share=known / (known + len(found.lost)) if known else float(bool(found.outputs)),
        candidate_share=sum(site.index in reached for site in computing) / len(computing)
        if computing
        else 1.0,
        outputs=(len(graph.outputs), len(graph.outputs)),
        unmatched=tuple(lost),
        hidden=rows.hidden,  # whatever diverged: by another policy that may not decide
    )
