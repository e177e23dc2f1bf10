"""Sites that differ as written and give the same numbers: run alone on inputs that the given ones did not reach."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from verifier.diagnose.excitations import size
from verifier.diagnose.reruns import Scene, look_at
from verifier.diagnose.trials import NOT_ALONE, Trials, Tried, settings_of
from verifier.graph.operators import MOVES
from verifier.graph.ranges import ANYTHING, ranges
from verifier.graph.tensors import once, tensors_in
from verifier.records import Status
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

    from torch import Tensor

    from verifier.align import Alignment
    from verifier.diagnose.neighbourhood import Neighbourhood
    from verifier.diagnose.reruns import Half, OpenLanes
    from verifier.graph import Graph, Site
    from verifier.graph.ranges import Range
    from verifier.records import PairResult

_ENOUGH = 1024  # numbers among which every excitation has some of each kind


def unreached(
    alignment: Alignment,
    rows: Sequence[PairResult],
    others: Mapping[str, Tensor],
    open_lanes: OpenLanes,
    known: Collection[int] = (),
) -> dict[int, Tried]:
    """Run every site alone that is written otherwise than the baseline's and gave the same numbers.

    Args:
        alignment: The pairs.
        rows: The judged rows, forced pass included.
        others: The baseline's parameters and buffers by name, as they are in the cell.
        open_lanes: Makes the baseline's lane and the candidate's, given the calls each is to keep.
        known: Rows that are known to agree on all inputs, by index.

    Returns:
        What was found, by the row's index; nothing of rows that are written alike.
    """
    scenes = [Scene.of(alignment, row, rows) for row in rows if _agrees(row)]
    other = [scene for scene in scenes if _written_otherwise(scene)]
    wanted = [from_numbers(scene) for scene in other if scene.row.index not in known]
    sure = {scene.row.index: Tried() for scene in other if scene.row.index in known}
    if not wanted:
        return sure
    limits = ranges(alignment.baseline)

    def tried(some: Sequence[Scene]) -> list[Tried]:
        return _tried(alignment, some, others, limits, open_lanes)

    found = _by_kind(wanted, limits, tried)
    # One side may go on in operators without a partner that undo what differs: a relu, then a minimum. And what
    # differs may be a choice that comes to the same: x > 0 and x >= 0, where the rest is 0. Both are then run to the
    # next pairs below.
    joined = [
        (scene.row.index, _joined(scene, below))
        for scene in wanted
        if found[scene.row.index].excited is not None
        for chooses in [_chooses(scene)]
        if chooses or _goes_on(alignment, scene)
        for below in scenes
        if scene.row.index in below.row.above and (chooses or below.row.apart)
    ]
    further = tried([scene for _, scene in joined]) if joined else []
    below: dict[int, list[Tried]] = {}
    for (index, _), each in zip(joined, further, strict=True):
        below.setdefault(index, []).append(each)
    for index, ends in below.items():
        if all(end.excited is None for end in ends):
            found[index] = next((end for end in ends if end.why), ends[0])
    for scene in wanted:
        told = found[scene.row.index]
        if told.excited is not None and _is_region(scene) and not _follows_weights(scene):
            found[scene.row.index] = Tried(why=_ALONE.format(inputs=told.excited.inputs))
    return found | sure


_ALONE = "alone the two part on the baseline's tensors {inputs}, which may never come there"


def _is_region(scene: Scene) -> bool:
    return bool(scene.baseline.between or scene.candidate.between)


def _follows_weights(scene: Scene) -> bool:
    """Whether all that the scene reads is made by layers with weights: then any numbers may come there.

    What other operators give may be bound in ways that nobody can read off them: a mask, a distribution, a square.
    """
    return all(
        _weighed(half.graph, source)
        for half in (scene.baseline, scene.candidate)
        for source in _sources(half)
    )


def _sources(half: Half) -> set[int | None]:
    inside = {site.index for site in half.sites}
    outside = {source for site in half.sites for source in site.operands if source not in inside}
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
    scenes: Sequence[Scene], limits: Sequence[Range], tried: Callable[[Sequence[Scene]], list[Tried]]
) -> dict[int, Tried]:
    """What each scene gives, by its row. Of scenes of one kind the smallest speaks for all unless it parts."""
    kinds: dict[Hashable, list[Scene]] = {}
    for scene in scenes:
        kinds.setdefault(_kind(scene, limits), []).append(scene)
    for group in kinds.values():
        group.sort(key=lambda scene: (math.prod(scene.row.shape) < _ENOUGH, math.prod(scene.row.shape)))
    found: dict[int, Tried] = {}
    first = [group[0] for group in kinds.values()]
    rest: list[Scene] = []
    for (speaker, *others), each in zip(kinds.values(), tried(first), strict=True):
        found[speaker.row.index] = each
        if each.excited is None and each.alone:
            found.update((scene.row.index, each) for scene in others)
        else:
            rest += others
    if rest:
        found.update(zip((scene.row.index for scene in rest), tried(rest), strict=True))
    return found


def _kind(scene: Scene, limits: Sequence[Range]) -> Hashable:
    """What is the same for scenes that are the same two functions of the same numbers; else the scene's own row.

    They are one operator on either side that reads nothing but what other sites make.
    """
    sites = scene.baseline.site, scene.candidate.site
    own = ("row", scene.row.index)
    if scene.baseline.between or scene.candidate.between or None in sites:
        return own
    written: list[Hashable] = []
    for site in sites:
        if site is None or site.tensors or None in site.operands:
            return own
        settings = tuple(sorted((name, str(value)) for name, value in settings_of(site).items()))
        written.append((site.op, settings, site.dtype, site.output, len(site.operands), len(site.shape)))
    reads = [ANYTHING if k is None or k < 0 else limits[k] for k in (sites[0].operands if sites[0] else ())]
    return (*written, *reads)


def _spelt(half: Half, limits: Sequence[Range] = ()) -> Hashable:
    """How one side is written: its operators, with settings and shapes, which reads which, and within what limits."""

    def within(source: int) -> Range:
        return limits[source] if limits and source >= 0 else ANYTHING

    places = {site.index: k for k, site in enumerate(half.sites)}
    return tuple(
        (
            site.op,
            tuple(sorted((name, str(value)) for name, value in settings_of(site).items())),
            site.dtype,
            site.output,
            site.shape,
            tuple((use.role, use.shape) for use in site.tensors),
            tuple(None if k is None else places.get(k, within(k)) for k in site.operands),
        )
        for site in half.sites
    )


def _sizes(side: Neighbourhood) -> Hashable:
    """The order of magnitude of all that one side computes with; of what no site and no layer makes, the numbers."""
    found: list[Hashable] = []
    own = [] if side.site is None or side.call is None else [(side.site, side.call)]
    for site, call in (*side.between, *own):
        for value in call.arguments.values():
            for tensor in tensors_in(value):
                large = size(tensor)
                found.append(round(math.log10(large)) if 0 < large < math.inf else large)
        for source, tensor in zip(site.operands, call.operands, strict=False):
            if source is None:
                few = tensor.numel() <= _ENOUGH
                found.append(
                    tuple(tensor.flatten().tolist()) if few else Hasher().of_all([("", once(tensor))])
                )
    return tuple(found)


def _agrees(row: PairResult) -> bool:
    return (
        row.status in {Status.OK, Status.CARRIES, Status.AMPLIFIES}
        and row.kind not in {"input", "state", "call"}
        and None not in (row.baseline, row.candidate)
        and row.candidate_shape is None
        and not row.rewired
    )


def _written_otherwise(scene: Scene) -> bool:
    return _written(scene.baseline) != _written(scene.candidate)


def _written(half: Half) -> list[tuple[str, dict[str, object]]]:
    """Operators and settings of one side as far as they may matter to what comes out."""
    return [(site.op, settings_of(site)) for site in half.sites if site.op not in MOVES]


def from_numbers(scene: Scene) -> Scene:
    """The scene with the operators above that make truth values and indices: these cannot be excited themselves."""
    return replace(scene, baseline=_raised(scene.baseline), candidate=_raised(scene.candidate))


def _raised(half: Half) -> Half:
    sites = {site.index: site for site in half.between}
    stack = [*half.sites]
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


def _goes_on(alignment: Alignment, scene: Scene) -> bool:
    """Whether operators without a partner read what either side gives."""
    return any(
        half.site is not None
        and any(reader not in paired for reader in half.graph.consumers[half.site.index])
        for half, paired in (
            (scene.baseline, alignment.partner),
            (scene.candidate, alignment.partner_back),
        )
    )


def _chooses(scene: Scene) -> bool:
    """Whether what the scene gives are no numbers of the model's but truth values or indices."""
    site = scene.baseline.site
    return site is not None and not _is_number(site)


def _joined(upper: Scene, lower: Scene) -> Scene:
    """Both scenes as one, which reads what the upper one reads and gives what the lower one gives."""
    halves = []
    for up, low in ((upper.baseline, lower.baseline), (upper.candidate, lower.candidate)):
        sites = {site.index: site for site in (*up.sites, *low.between)}
        halves.append(replace(low, between=tuple(sites[index] for index in sorted(sites))))
    return replace(lower, baseline=halves[0], candidate=halves[1])


def _tried(
    alignment: Alignment,
    scenes: Sequence[Scene],
    others: Mapping[str, Tensor],
    limits: Sequence[Range],
    open_lanes: OpenLanes,
) -> list[Tried]:
    """What each scene gives on every excitation, in one forced pass.

    A network repeats itself: of regions that are written alike, and compute with numbers of one size, the others are
    tried on a few excitations once one has come through all.
    """
    trials = Trials(alignment, others, limits)
    found = [NOT_ALONE] * len(scenes)
    through: set[Hashable] = set()

    def look(k: int, baseline: Neighbourhood | None, candidate: Neighbourhood | None, *_: Tensor) -> None:
        if baseline is not None and candidate is not None:
            spelt = _spelt(scenes[k].baseline, limits), _spelt(scenes[k].candidate)
            kind = *spelt, _sizes(baseline), _sizes(candidate)
            found[k] = trials.tried(scenes[k].row, baseline, candidate, briefly=kind in through)
            if found[k].alone and found[k].excited is None:
                through.add(kind)

    look_at(alignment, scenes, open_lanes, look)
    return found
