"""Sites written otherwise than when they were recorded: the recorded operator is made again, and both run alone.

A recording holds operators and their settings. What computes from other sites alone, without weights, can be called
again by its name; on what the candidate's site was given it must give what was recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.diagnose.neighbourhood import Neighbourhood
from verifier.diagnose.trials import NOT_ALONE, Trials, settings_of
from verifier.graph import KeptCall
from verifier.graph.operators import MOVES, operator_name, signature_of
from verifier.graph.ranges import ranges
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from verifier.align import Alignment
    from verifier.bench.bench import Bench
    from verifier.diagnose import Tried
    from verifier.graph import Site
    from verifier.records import PairResult


def unreached(bench: Bench, alignment: Alignment, rows: Sequence[PairResult]) -> dict[int, Tried]:
    """What sites that are written otherwise and gave what was recorded give on other inputs, by row.

    Args:
        bench: The candidate on both sides, on a few samples in float64.
        alignment: The pairs.
        rows: What was judged of them.
    """
    places = {alignment.baseline.sites[pair.baseline].name: pair for pair in alignment.pairs}
    agree = [row for row in rows if row.status is Status.OK]
    found = {row.index: NOT_ALONE for row in agree if row.apart and _computes(alignment, row)}
    wanted = {
        pair.candidate: (row, alignment.baseline.sites[pair.baseline])
        for row in agree
        if row.kind == "site" and row.baseline in places and row.candidate
        for pair in [places[row.baseline]]
        if _otherwise(alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate])
    }
    if not wanted:
        return found
    trials = Trials(alignment, {}, ranges(alignment.baseline))
    found |= {row.index: NOT_ALONE for row, _ in wanted.values()}
    graph = alignment.candidate
    lane = bench.lane("candidate", stops=wanted, keep=sorted({graph.call_of[site] for site in wanted}))
    try:
        while (index := lane.advance()) is not None:
            row, recorded = wanted[index]
            site, call = graph.sites[index], lane.kept.get(graph.call_of[index])
            if call is None or len(site.operands) != len(call.operands) or row.apart or row.rewired:
                continue
            there = Neighbourhood(graph, site, call, (), tuple(call.operands), site.operands)
            for again in _calls(recorded, _operands(alignment, recorded, site, call)):
                here = Neighbourhood(
                    alignment.baseline, recorded, again, (), tuple(again.operands), recorded.operands
                )
                tried = trials.tried(row, here, there)
                if tried is not NOT_ALONE:
                    found[row.index] = tried
                    break
    finally:
        lane.close()
    return found


def _computes(alignment: Alignment, row: PairResult) -> bool:
    """Whether anything that stands above a row on one side alone does more than move numbers."""
    graphs = (alignment.baseline, row.between_baseline), (alignment.candidate, row.between_candidate)
    return any(graph.by_name[name].op not in MOVES for graph, names in graphs for name in names)


def _otherwise(baseline: Site, candidate: Site) -> bool:
    if baseline.op in MOVES and candidate.op in MOVES:
        return False
    return (baseline.op, settings_of(baseline)) != (candidate.op, settings_of(candidate))


def _operands(alignment: Alignment, recorded: Site, site: Site, call: KeptCall) -> list[Tensor] | None:
    """What the recorded site read, as the candidate's reads it; None where that is something else."""
    given = dict(zip(site.operands, call.operands, strict=True))
    found = []
    for source in recorded.operands:
        twin = source if source is None or source < 0 else alignment.partner.get(source)
        if twin is None or twin not in given:
            return None
        found.append(given[twin])
    return found


def _calls(recorded: Site, operands: Sequence[Tensor] | None) -> Iterator[KeptCall]:
    """The calls that a recorded site may have been, on these tensors."""
    if recorded.tensors or operands is None:
        return
    for function in _functions(recorded.op):
        arguments = _arguments(function, recorded.attributes, operands)
        if arguments is not None:
            positional = () if signature_of(function) else tuple(arguments)
            yield KeptCall(function, arguments, frozenset(), positional)


def _functions(op: str) -> list[Callable[..., Any]]:
    """The functions of torch that go by a canonical name."""
    found = [getattr(space, op, None) for space in (torch.nn.functional, torch, torch.special)]
    return [each for each in dict.fromkeys(found) if callable(each) and operator_name(each) == op]


def _arguments(
    function: Callable[..., Any], attributes: Mapping[str, object], operands: Sequence[Tensor]
) -> dict[str, Any] | None:
    """A call's arguments by name, tensors in the order of the signature; None where they do not fit it."""
    signature = signature_of(function)
    if signature is None:
        return None
    left, found = list(operands), dict[str, Any]()
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in attributes:
            found[name] = attributes[name]
        elif left:
            found[name] = left.pop(0)
        elif parameter.default is parameter.empty:
            return None
    return None if left or not found.keys() >= attributes.keys() else found
