"""Sites that differ as written and give the same numbers: run alone on inputs that the given ones did not reach."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from verifier.diagnose.booth import NOT_ALONE, Booth, Tried, settings_of
from verifier.diagnose.diagnosis import Half, Scene
from verifier.graph.operators import MOVES
from verifier.graph.ranges import ANYTHING, ranges
from verifier.lockstep import Comparing, Lane, run
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from torch import Tensor

    from verifier.align import Alignment
    from verifier.graph import Graph, Site
    from verifier.graph.ranges import Range
    from verifier.records import PairResult

_ENOUGH = 1024  # numbers among which every excitation has some of each kind


def unreached(
    alignment: Alignment,
    rows: Sequence[PairResult],
    others: Mapping[str, Tensor],
    open_lanes: Callable[[Sequence[int], Sequence[int]], tuple[Lane, Lane]],
) -> dict[int, Tried]:
    """Run every site alone that is written otherwise than the baseline's and gave the same numbers.

    Args:
        alignment: The pairs.
        rows: The judged rows, forced pass included.
        others: The baseline's parameters and buffers by name, as they are in the cell.
        open_lanes: Makes the baseline's lane and the candidate's, given the calls each is to keep.

    Returns:
        What was found, by the row's index; nothing of rows that are written alike.
    """
    places = [Scene.of(alignment, row, rows) for row in rows if _agrees(row)]
    wanted = [_from_numbers(place) for place in places if _written_otherwise(place)]
    if not wanted:
        return {}
    limits = ranges(alignment.baseline)

    def tried(some: Sequence[Scene]) -> list[Tried]:
        return _tried(alignment, some, others, limits, open_lanes)

    found = _by_kind(wanted, limits, tried)
    # One side may go on in operators without a partner that undo what differs: a relu, then a minimum. And what
    # differs may be a choice that comes to the same: x > 0 and x >= 0, where the rest is 0. Both are then run to the
    # next pairs below.
    joined = [
        (place.row.index, _joined(place, below))
        for place in wanted
        if found[place.row.index].excited is not None
        for chooses in [_chooses(place)]
        if chooses or _goes_on(alignment, place)
        for below in places
        if place.row.index in below.row.above and (chooses or below.row.apart)
    ]
    further = tried([place for _, place in joined]) if joined else []
    below: dict[int, list[Tried]] = {}
    for (index, _), each in zip(joined, further, strict=True):
        below.setdefault(index, []).append(each)
    for index, ends in below.items():
        if all(end.excited is None for end in ends):
            found[index] = next((end for end in ends if end.why), ends[0])
    for place in wanted:
        told = found[place.row.index]
        if told.excited is not None and _is_region(place) and not _follows_weights(place):
            found[place.row.index] = Tried(why=_ALONE.format(inputs=told.excited.inputs))
    return found


_ALONE = "alone the two part on the baseline's tensors {inputs}, which may never come there"


def _is_region(place: Scene) -> bool:
    return bool(place.baseline.between or place.candidate.between)


def _follows_weights(place: Scene) -> bool:
    """Whether all that the place reads is made by layers with weights: then any numbers may come there.

    What other operators give may be bound in ways that nobody can read off them: a mask, a distribution, a square.
    """
    return all(
        _weighed(half.graph, source)
        for half in (place.baseline, place.candidate)
        for source in _sources(half)
    )


def _sources(half: Half) -> set[int | None]:
    inside = {site.index for site in half.between} | ({half.site.index} if half.site else set())
    sites = (*half.between, *(() if half.site is None else (half.site,)))
    outside = {source for site in sites for source in site.operands if source not in inside}
    return outside or {half.source}


def _weighed(graph: Graph, source: int | None) -> bool:
    while source is not None and source >= 0:
        site = graph.sites[source]
        if site.tensors:
            return True
        if site.op not in MOVES or not site.operands:
            return False
        source = site.operands[0]
    return False


def _by_kind(
    places: Sequence[Scene], limits: Sequence[Range], tried: Callable[[Sequence[Scene]], list[Tried]]
) -> dict[int, Tried]:
    """What each place gives, by its row. Of places of one kind the smallest speaks for all unless it parts."""
    kinds: dict[Hashable, list[Scene]] = {}
    for place in places:
        kinds.setdefault(_kind(place, limits), []).append(place)
    for group in kinds.values():
        group.sort(key=lambda place: (math.prod(place.row.shape) < _ENOUGH, math.prod(place.row.shape)))
    found: dict[int, Tried] = {}
    first = [group[0] for group in kinds.values()]
    rest: list[Scene] = []
    for (speaker, *others), each in zip(kinds.values(), tried(first), strict=True):
        found[speaker.row.index] = each
        if each.excited is None and each.alone:
            found.update((place.row.index, each) for place in others)
        else:
            rest += others
    if rest:
        found.update(zip((place.row.index for place in rest), tried(rest), strict=True))
    return found


def _kind(place: Scene, limits: Sequence[Range]) -> Hashable:
    """What is the same for places that are the same two functions of the same numbers; else the place's own row.

    They are one operator on either side that reads nothing but what other sites make.
    """
    sites = place.baseline.site, place.candidate.site
    own = ("row", place.row.index)
    if place.baseline.between or place.candidate.between or None in sites:
        return own
    written: list[Hashable] = []
    for site in sites:
        if site is None or site.tensors or None in site.operands:
            return own
        settings = tuple(sorted((name, str(value)) for name, value in settings_of(site).items()))
        written.append((site.op, settings, site.dtype, site.output, len(site.operands), len(site.shape)))
    reads = [ANYTHING if k is None or k < 0 else limits[k] for k in (sites[0].operands if sites[0] else ())]
    return (*written, *reads)


def _agrees(row: PairResult) -> bool:
    return (
        row.status in {Status.OK, Status.CARRIES, Status.AMPLIFIES}
        and row.kind not in {"input", "state"}
        and None not in (row.baseline, row.candidate)
        and row.candidate_shape is None
        and not row.rewired
    )


def _written_otherwise(place: Scene) -> bool:
    return _written(place.baseline) != _written(place.candidate)


def _written(half: Half) -> list[tuple[str, dict[str, object]]]:
    """Operators and settings of one side as far as they may matter to what comes out."""
    sites = (*half.between, *(() if half.site is None else (half.site,)))
    return [(site.op, settings_of(site)) for site in sites if site.op not in MOVES]


def _from_numbers(place: Scene) -> Scene:
    """The place with the operators above that make truth values and indices: these cannot be excited themselves."""
    return replace(place, baseline=_raised(place.baseline), candidate=_raised(place.candidate))


def _raised(half: Half) -> Half:
    sites = {site.index: site for site in half.between}
    stack = [*half.between, *(() if half.site is None else (half.site,))]
    while stack:
        for source in stack.pop().operands:
            if source is None or source < 0 or source in sites:
                continue
            site = half.graph.sites[source]
            if not _is_number(site) and site.comparable and half.graph.reads_inputs[source]:
                sites[source] = site
                stack.append(site)
    return replace(half, between=tuple(sites[index] for index in sorted(sites)))


def _is_number(site: Site) -> bool:
    """Whether a site gives numbers, not truth values or indices."""
    return site.dtype.startswith(("float", "bfloat", "complex"))


def _goes_on(alignment: Alignment, place: Scene) -> bool:
    """Whether operators without a partner read what either side gives."""
    return any(
        half.site is not None
        and any(reader not in paired for reader in half.graph.consumers[half.site.index])
        for half, paired in (
            (place.baseline, alignment.partner),
            (place.candidate, alignment.partner_back),
        )
    )


def _chooses(place: Scene) -> bool:
    """Whether what the place gives are no numbers of the model's but truth values or indices."""
    site = place.baseline.site
    return site is not None and not _is_number(site)


def _joined(upper: Scene, lower: Scene) -> Scene:
    """Both places as one, which reads what the upper one reads and gives what the lower one gives."""
    halves = []
    for up, low in ((upper.baseline, lower.baseline), (upper.candidate, lower.candidate)):
        own = () if up.site is None else (up.site,)
        sites = {site.index: site for site in (*up.between, *low.between, *own)}
        halves.append(replace(low, between=tuple(sites[index] for index in sorted(sites))))
    return replace(lower, baseline=halves[0], candidate=halves[1])


def _tried(
    alignment: Alignment,
    places: Sequence[Scene],
    others: Mapping[str, Tensor],
    limits: Sequence[Range],
    open_lanes: Callable[[Sequence[int], Sequence[int]], tuple[Lane, Lane]],
) -> list[Tried]:
    """What each place gives on every excitation, in one forced pass."""
    lanes = open_lanes(
        sorted({call for place in places for call in place.baseline.calls}),
        sorted({call for place in places for call in place.candidate.calls}),
    )
    booth = Booth(alignment, others, limits)
    found = [NOT_ALONE] * len(places)
    at: dict[int, list[int]] = {}
    for k, place in enumerate(places):
        if place.baseline.site is not None:
            at.setdefault(place.baseline.site.index, []).append(k)
    left = [_uses(places, "baseline"), _uses(places, "candidate")]

    def look(k: int, tensors: Sequence[Tensor]) -> None:
        place = places[k]
        baseline = place.baseline.neighbourhood(lanes[0].kept, tensors[0])
        candidate = place.candidate.neighbourhood(lanes[1].kept, tensors[1])
        if baseline is not None and candidate is not None:
            found[k] = booth.tried(place.row, baseline, candidate)
        for lane, uses, half in zip(lanes, left, (place.baseline, place.candidate), strict=True):
            for call in half.calls:
                uses[call] -= 1
                if not uses[call]:
                    lane.kept.pop(call, None)

    def visit(pair: int, tensors: Sequence[Tensor]) -> None:
        for k in at.get(alignment.pairs[pair].baseline, ()):
            look(k, tensors)

    passes = run(
        list(lanes),
        [[pair.baseline for pair in alignment.pairs], [pair.candidate for pair in alignment.pairs]],
        [Comparing(0, 1, force=True)],
        layouts=alignment.laid_out,
        visit=visit,
    )
    for k, place in enumerate(places):
        if place.baseline.site is None:
            look(k, [values[place.output] for values in passes.values])
    return found


def _uses(places: Iterable[Scene], side: str) -> dict[int, int]:
    uses: dict[int, int] = {}
    for place in places:
        for call in getattr(place, side).calls:
            uses[call] = uses.get(call, 0) + 1
    return uses
