"""Where a row is looked at, on both sides, and going there in a forced pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from verifier.diagnose.neighbourhood import Neighbourhood
from verifier.graph.sites import UNTRACED
from verifier.lockstep import Comparing, Enough, Plan, run

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from torch import Tensor

    from verifier.align import Alignment
    from verifier.graph import Graph, KeptCall, Site
    from verifier.lockstep import Lane, Passes
    from verifier.records import PairResult

    OpenLanes: TypeAlias = Callable[[Sequence[int], Sequence[int]], tuple[Lane, Lane]]
    """Makes the baseline's lane and the candidate's, given the calls each is to keep."""


@dataclass(frozen=True)
class Half:
    """Where to look on one side: the site (None for an output), those between, and the calls they belong to.

    `beyond` are the partnered sites right above, with what stands between those and the ones above them.
    """

    graph: Graph
    site: Site | None
    between: tuple[Site, ...]
    source: int | None = None
    beyond: tuple[Site, ...] = ()

    @property
    def sites(self) -> tuple[Site, ...]:
        """Those between and the site itself, if there is one."""
        return (*self.between, *(() if self.site is None else (self.site,)))

    @property
    def calls(self) -> list[int]:
        """Positions of the calls in the graph, those beyond included."""
        return [self.graph.call_of[site.index] for site in (*self.beyond, *self.sites)]

    def neighbourhood(self, kept: Mapping[int, KeptCall], output: Tensor) -> Neighbourhood | None:
        """The calls as they were made; None where one was not seen (a scripted module, say)."""
        if any(self.graph.call_of[site.index] not in kept for site in self.sites):
            return None
        between = self._calls(self.between, kept)
        if len(between) < len(self.between):
            return None
        beyond = self._calls(self.beyond, kept)
        beyond = beyond if len(beyond) == len(self.beyond) else ()
        if self.site is None:
            return Neighbourhood(self.graph, None, None, between, (output,), (self.source,), beyond)
        call = kept[self.graph.call_of[self.site.index]]
        if len(self.site.operands) != len(call.operands):
            return None
        reads = tuple(call.operands)
        return Neighbourhood(self.graph, self.site, call, between, reads, self.site.operands, beyond)

    def _calls(
        self, sites: Sequence[Site], kept: Mapping[int, KeptCall]
    ) -> tuple[tuple[Site, KeptCall], ...]:
        """Sites with their calls, as far as those were seen with all their operands."""
        found = ((site, kept.get(self.graph.call_of[site.index])) for site in sites)
        return tuple(
            (site, call)
            for site, call in found
            if call is not None and len(site.operands) == len(call.operands)
        )


@dataclass(frozen=True)
class Scene:
    """A row with where to look on both sides; `output` is the output's position, of a row that is one."""

    row: PairResult
    baseline: Half
    candidate: Half
    misshapen: bool
    output: int = 0
    unseen: bool = False  # an output that was changed after the last site, where no site shows it

    @classmethod
    def of(
        cls, alignment: Alignment, row: PairResult, rows: Sequence[PairResult], *, wide: bool = False
    ) -> Scene:
        """The scene of a row that has both sides, of a state that of the site that writes it.

        With `wide` it knows what is beyond the pairs right above a row that reads through others.
        """
        if row.kind == "state":  # what matters is the site that writes it
            return replace(cls.of(alignment, rows[row.above[0]], rows), row=row)
        output = row.position or 0
        halves: list[Half] = []
        near = [rows[above] for above in row.above] if wide and (row.apart or row.rewired) else []
        for side, graph, name, between in (
            ("baseline", alignment.baseline, row.baseline, row.between_baseline),
            ("candidate", alignment.candidate, row.candidate, row.between_candidate),
        ):
            sites = tuple(graph.by_name[each] for each in between)
            beyond = _beyond(graph, near, side, sites)
            if row.kind == "output":
                halves.append(Half(graph, None, sites, graph.outputs[output], beyond))
            else:
                halves.append(Half(graph, graph.by_name[name or ""], sites, beyond=beyond))
        apart = row.apart or row.rewired or any(rows[above].layout for above in row.above)
        ends = row.above or alignment.baseline.outputs[output] == UNTRACED
        return cls(
            row,
            halves[0],
            halves[1],
            any(rows[above].misshapen for above in row.above),
            output,
            unseen=row.kind == "output" and bool(ends) and not apart,
        )


_FARTHEST = 24  # sites of a region that is looked at beyond the pairs above


def _beyond(
    graph: Graph, above: Sequence[PairResult], side: str, between: Sequence[Site]
) -> tuple[Site, ...]:
    """The partnered sites right above a row, and what stands between those and the ones above them."""
    names = [
        name
        for row in above
        if row.kind == "site"
        for name in (*getattr(row, f"between_{side}"), getattr(row, side) or "")
        if name
    ]
    found = {graph.by_name[name].index: graph.by_name[name] for name in names}
    found = {index: site for index, site in found.items() if site not in between}
    return tuple(found[index] for index in sorted(found)) if len(found) <= _FARTHEST else ()


def forced(
    alignment: Alignment,
    lanes: Sequence[Lane],
    visit: Callable[[int, Sequence[Tensor]], None],
    wanted: Collection[int],
    states: Sequence[Sequence[str]] = (),
    *,
    to_end: bool,
) -> Passes | None:
    """One forced pass, with a call of `visit` at each pair that is wanted before the candidate is overwritten there.

    It compares no further than these, and gives None then, unless the ends are wanted as well.
    """
    left = {*wanted}

    def look(pair: int, tensors: Sequence[Tensor]) -> None:
        if pair in left:
            visit(pair, tensors)
            left.discard(pair)
        if not (left or to_end):
            raise Enough

    plan = Plan(
        [[pair.baseline for pair in alignment.pairs], [pair.candidate for pair in alignment.pairs]],
        [Comparing(0, 1, force=True)],
        states,
        alignment.laid_out,
    )
    passes = run(lanes, plan, visit=look)
    return passes if to_end else None


def look_at(
    alignment: Alignment,
    scenes: Sequence[Scene],
    open_lanes: OpenLanes,
    look: Callable[[int, Neighbourhood | None, Neighbourhood | None, Tensor, Tensor], None],
) -> None:
    """Go to every scene in one forced pass, and let go there of the calls that nobody needs any more.

    Args:
        alignment: The pairs.
        scenes: Where to look.
        open_lanes: Makes the lanes.
        look: Called with a scene, by position, both sides as calls that can be made again (None where one was not
            seen), and the baseline's and the candidate's tensor there.
    """
    baselines, candidates = ([getattr(each, side) for each in scenes] for side in ("baseline", "candidate"))
    uses = [Counter(call for half in halves for call in half.calls) for halves in (baselines, candidates)]
    lanes = open_lanes(sorted(uses[0]), sorted(uses[1]))
    pair_of = {pair.baseline: k for k, pair in enumerate(alignment.pairs)}
    at: dict[int, list[int]] = {}
    for k, scene in enumerate(scenes):
        site = scene.baseline.site
        if site is not None and site.index in pair_of and scene.row.kind != "state":
            at.setdefault(pair_of[site.index], []).append(k)

    def here(k: int, wanted: Tensor, given: Tensor) -> None:
        halves = baselines[k], candidates[k]
        sides = [
            half.neighbourhood(lane.kept, tensor)
            for half, lane, tensor in zip(halves, lanes, (wanted, given), strict=True)
        ]
        look(k, sides[0], sides[1], wanted, given)
        for lane, left, half in zip(lanes, uses, halves, strict=True):
            left.subtract(half.calls)
            for call in half.calls:
                if left[call] <= 0:
                    lane.kept.pop(call, None)

    def visit(pair: int, tensors: Sequence[Tensor]) -> None:
        for k in at[pair]:
            here(k, tensors[0], tensors[1])

    states = [k for k, scene in enumerate(scenes) if scene.row.kind == "state"]
    names = [
        [scenes[k].row.baseline or "" for k in states],
        [scenes[k].row.candidate or "" for k in states],
    ]
    ends = bool(states) or any(scene.baseline.site is None for scene in scenes)
    passes = forced(alignment, lanes, visit, at, names, to_end=ends)
    if passes is None:
        return
    left = dict(zip(states, zip(*passes.left, strict=True), strict=True))
    for k, scene in enumerate(scenes):
        if k in left and not passes.lost:
            here(k, *left[k])
        elif scene.baseline.site is None and not passes.lost:
            here(k, *(values[scene.output] for values in passes.values))
