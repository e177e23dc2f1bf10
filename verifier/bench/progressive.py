"""Progressive verification: each block alone on the baseline's inputs, then each stage, then the network.

Both models run in lockstep and meet only where a block ends. There the candidate's tensor is overwritten with
the baseline's after it was compared, so the next block starts from the baseline's own inputs and its error is
its own. The same once more where stages end. It is asked in float64, where any difference is real.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING

from torch import nn

from verifier.bench.subject import SIDES
from verifier.lockstep import Comparing, Plan, run
from verifier.metrics import Moments, compare
from verifier.records import Level, Step, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from verifier.bench.bench import Bench
    from verifier.bench.subject import Subject
    from verifier.graph import Graph, Site
    from verifier.judge import Policy
    from verifier.lockstep import Meeting

# What holds others without computing anything itself.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class _Unit:
    """Consecutive sites of one block, one stage, or between two: its name, and its baseline sites by index."""

    name: str
    sites: frozenset[int]


def progressive(bench: Bench, policy: Policy) -> tuple[Step, ...]:
    """The steps that lead up to the network, in order: its blocks, then its stages.

    A block is an outermost module with children that stands in a container (`nn.Sequential`, `nn.ModuleList`), a
    stage the container it stands in; sites between two of them count as a unit of their own. The structure is
    the baseline's, or the candidate's where the baseline has none; empty where neither has.
    """
    subject = bench.subject
    blocks = _blocks(subject.baseline)
    side = "baseline"
    if not blocks:
        blocks, side = _blocks(subject.candidate), "candidate"
    if not blocks:
        return ()
    stages = {name: name.rpartition(".")[0] for name in blocks}
    steps: list[Step] = []
    for level, names in ((Level.BLOCK, {name: name for name in blocks}), (Level.STAGE, stages)):
        units = _units(subject, side, names)
        steps += _steps(level, units, bench, policy)
    return tuple(steps)


def _blocks(model: nn.Module) -> list[str]:
    """Qualified names of the outermost modules with children in a container, in order of definition."""
    found: list[str] = []

    def descend(module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            held = isinstance(module, _CONTAINERS) and not isinstance(child, _CONTAINERS)
            if held and next(child.children(), None) is not None:
                found.append(path)
            else:
                descend(child, f"{path}.")

    descend(model, "")
    return found


def _units(subject: Subject, side: str, names: Mapping[str, str]) -> list[_Unit]:
    """The baseline's comparable sites in order of execution, cut where one block (or stage) gives way to the next.

    `names` says for each block in which unit it belongs.
    """
    alignment = subject.alignment
    partner = {pair.baseline: pair.candidate for pair in alignment.pairs}
    own = alignment.baseline if side == "baseline" else alignment.candidate
    belongs: dict[int, str] = {}
    last = ""
    for site in alignment.baseline.comparable:
        index = site.index if side == "baseline" else partner.get(site.index)
        last = last if index is None else _unit_of(own.sites[index], names)
        belongs[site.index] = last
    units = []
    for name, group in groupby(alignment.baseline.comparable, key=lambda site: belongs[site.index]):
        sites = list(group)
        loose = sites[0].name if len(sites) == 1 else f"{sites[0].name} to {sites[-1].name}"
        units.append(_Unit(name or loose, frozenset(site.index for site in sites)))
    return units


def _unit_of(site: Site, names: Mapping[str, str]) -> str:
    """The unit of a site, by the name it has; empty where it is in no block."""
    parts = site.name.split(".")
    for length in range(1, len(parts)):
        unit = names.get(".".join(parts[:length]))
        if unit is not None:
            return unit
    return ""


def _exits(graph: Graph, unit: _Unit) -> set[int]:
    """The unit's sites that are read outside of it, or that the model returns."""
    returned = set(graph.outputs)
    return {
        index
        for index in unit.sites
        if index in returned or any(reader not in unit.sites for reader in graph.consumers[index])
    }


def _steps(level: Level, units: Sequence[_Unit], bench: Bench, policy: Policy) -> Iterable[Step]:
    alignment = bench.alignment
    exits = [_exits(alignment.baseline, unit) for unit in units]
    wanted = set().union(*exits)
    chosen = [(k, pair) for k, pair in enumerate(alignment.pairs) if pair.baseline in wanted]
    sites = [[pair.baseline for _, pair in chosen], [pair.candidate for _, pair in chosen]]
    layouts = alignment.laid_out
    lanes = [bench.lane(side, stops=stops) for side, stops in zip(SIDES, sites, strict=True)]
    passes = run(
        lanes,
        Plan(
            sites,
            [Comparing(0, 1, force=True)],
            layouts={place: layouts[k] for place, (k, _) in enumerate(chosen) if k in layouts},
        ),
        bench.progress,
    )
    met = {pair.baseline: meeting for (_, pair), meeting in zip(chosen, passes.meetings[0], strict=True)}
    partner = {pair.baseline: pair.candidate for pair in alignment.pairs}
    for unit, ends in zip(units, exits, strict=True):
        compared = [met[index] for index in sorted(ends) if index in met]
        inside = [
            alignment.candidate.sites[partner[index]].name for index in sorted(unit.sites) if index in partner
        ]
        yield _judged(
            level,
            unit,
            (inside[0], inside[-1]) if inside else None,
            compared,
            len(ends),
            policy.semantics,
            lost=bool(passes.lost),
        )


def _judged(
    level: Level,
    unit: _Unit,
    candidate: tuple[str, str] | None,
    compared: Sequence[Meeting],
    ends: int,
    allowed: float,
    *,
    lost: bool,
) -> Step:
    moments = [meeting.moments for meeting in compared if meeting.moments is not None]
    error = compare(reduce(Moments.merge, moments)) if moments else None
    if lost and any(each.moments is None and each.shape == each.other_shape for each in compared):
        verdict, reason = Verdict.INCONCLUSIVE, "on the baseline's inputs the candidate did not come to it"
    elif len(moments) < len(compared):
        verdict, reason = Verdict.DIVERGED, "it gives another shape on the baseline's inputs"
    elif any(not compare(each).within(allowed) for each in moments):
        verdict, reason = Verdict.DIVERGED, ""
    elif not ends or len(compared) < ends:
        verdict, reason = Verdict.INCONCLUSIVE, "not all it hands on could be compared"
    else:
        verdict, reason = Verdict.MATCH, ""
    return Step(
        level=level,
        name=unit.name,
        candidate=None if candidate is None else " to ".join(dict.fromkeys(candidate)),
        sites=len(unit.sites),
        verdict=verdict,
        error=error,
        allowed=allowed,
        reason=reason,
    )
