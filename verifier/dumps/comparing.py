"""A candidate compared with dumped tensors: each is aligned with a site, and judged as what a free pass shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from verifier.dumps.content import mark
from verifier.dumps.matching import LIKELY, NO_SHAPE, UNDECIDED, Agreement, by_content, by_order
from verifier.dumps.watching import as_dumped, measured, resembling, seen
from verifier.graph.operators import MOVES, SELECTS
from verifier.graph.sites import UNTRACED
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from verifier.align.layouts import Layout
    from verifier.dumps.content import Conventions, Shape
    from verifier.dumps.matching import Seen
    from verifier.dumps.watching import Runner
    from verifier.graph import Site
    from verifier.records import Comparison

GUESSED = "order and name lead to {}, where the numbers disagree, while all that reads it agrees"
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Compared:
    """A dumped tensor at its place.

    Attributes:
        dumped: Its name.
        place: The candidate's site by its index, or behind all sites an output by its position.
        layout: How the candidate's comes from it.
        shape: Its shape.
        other: The candidate's shape, as the dump lays tensors out where the two differ.
        error: How far the two are apart; None where the shapes differ.
        agrees: Whether that is inside the budget.
        departs: How they are laid out if they agree only if that is as no others are.
        partly: Whether they do not agree, and yet many of their numbers do.
        alone: Whether they agree in a layout that nothing else bears out.
    """

    dumped: str
    place: int
    layout: Layout | None
    shape: Shape
    other: Shape
    error: Comparison | None
    agrees: bool
    departs: Layout | None = None
    partly: bool = False
    alone: bool = False


@dataclass
class Aligned:
    """Dumped activations with their places.

    `lost` says why others have none, `outputs` which is each output's. `doubtful` are those that were left out though
    they are very like the tensors of their places.
    """

    compared: dict[int, Compared]
    same: Mapping[str, str]
    lost: dict[str, str]
    outputs: dict[int, Compared]
    order: tuple[str, ...] | None
    shapes: Mapping[str, Shape]
    loud: frozenset[int] = frozenset()
    doubtful: tuple[str, ...] = ()


def aligned(runner: Runner, tensors: Mapping[str, Tensor], conventions: Conventions) -> Aligned:
    """Align dumped activations with the candidate's sites, and measure them there.

    Args:
        runner: The candidate.
        tensors: The dumped tensors that are neither its inputs nor its parameters, in the order of the files.
        conventions: What is known of the dump's layouts; added to.
    """
    names = list(tensors)
    twins = _twins(tensors)
    found = seen(runner, tensors)
    sites = _sites(runner)
    matched = by_content(
        [name for name in names if name not in twins], found, sites, _own(runner), conventions
    )
    matched.same |= twins
    left = {name: tensors[name] for name in matched.free(names)}
    columns = [place for place in _columns(runner) if place not in matched.pairs.values()]
    like = resembling(runner, left, columns, conventions) if left else {}
    by_order(matched, names, columns, sites, like)
    compared = {
        matched.pairs[name]: _certain(name, matched.pairs[name], found, conventions)
        for name in matched.certain
    }
    open_places = {name: place for name, place in matched.pairs.items() if name not in matched.certain}
    departing = {each.dumped: each.place for each in compared.values() if each.departs is not None}
    usual = (
        measured(runner, tensors, {**open_places, **departing}, conventions)
        if open_places or departing
        else {}
    )
    for name, place in open_places.items():
        compared[place] = _open(name, place, *usual[name], runner, found, conventions)
    outputs = _outputs(runner, tensors, compared, found, conventions)
    for name, place in _unaccepted(runner, compared, outputs).items():
        if name in usual:
            before = compared[place].departs
            compared[place] = replace(
                _open(name, place, *usual[name], runner, found, conventions), departs=before
            )
    shaped = {name for name, _ in like}
    lost = {name: UNDECIDED if name in shaped else NO_SHAPE for name in matched.free(names)}
    doubtful = _take_back(runner, compared, outputs, lost, sites)
    loud = frozenset(place for place in found.shapes if runner.loud(place))
    return Aligned(compared, matched.same, lost, outputs, matched.order, found.dumped, loud, doubtful)


def _twins(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Those that are another once more, as what a module returns is its last layer's; the first stands for both."""
    found: dict[str, str] = {}
    digests: dict[str, str] = {}
    hasher = Hasher()
    for name, tensor in tensors.items():
        digest = hasher.of_all([("", tensor)])
        if digest in digests:
            found[name] = digests[digest]
        digests.setdefault(digest, name)
    return found


def _own(runner: Runner) -> frozenset[int]:
    """The places that tensors may belong to: sites, and outputs that none of these has made."""
    graph = runner.graph
    sites = {site.index for site in graph.comparable}
    return frozenset(
        sites | {len(graph.sites) + k for k, site in enumerate(graph.outputs) if site not in sites}
    )


def _sites(runner: Runner) -> dict[int, Site]:
    """The site of each place; an output has the site that made it, or one of no operator."""
    graph = runner.graph
    found = {site.index: site for site in graph.sites}
    for k, index in enumerate(graph.outputs):
        name = "output" if len(graph.outputs) == 1 else f"output{k}"
        known = graph.sites[index] if index >= 0 else None
        place = len(graph.sites) + k
        if known is not None:
            found[place] = replace(known, index=place, name=name)
        else:
            blank = graph.sites[0] if graph.sites else None
            if blank is not None:
                found[place] = replace(blank, index=place, name=name, op="output", inputs=(), tensors=())
    return found


def _columns(runner: Runner) -> list[int]:
    """Where tensors may belong whose numbers agree with none: what computes, and outputs that no such site makes."""
    graph = runner.graph
    ends = set(graph.outputs)
    sites = [
        site.index
        for site in graph.comparable
        if (site.op not in MOVES | SELECTS or site.index in ends) and not runner.loud(site.index)
    ]
    rest = [len(graph.sites) + k for k, site in enumerate(graph.outputs) if site not in sites]
    return [*sites, *(place for place in rest if not runner.loud(place))]


def _certain(name: str, place: int, found: Seen, conventions: Conventions) -> Compared:
    shape, other = found.dumped[name], found.shapes[place]
    usual = conventions.between(shape, other)
    options = found.agreeing[name][place]
    best = next(
        (o for o in options if usual is not None and _alike(o.layout, usual, shape, other)), options[0]
    )
    departs = usual is not None and not _alike(best.layout, usual, shape, other)
    return Compared(
        name,
        place,
        best.layout,
        shape,
        shape,
        best.error,
        agrees=True,
        departs=best.layout if departs else None,
    )


def _alike(one: Layout, two: Layout, shape: Shape, other: Shape) -> bool:
    return one.moved(shape, other) == two.moved(shape, other)


def _open(
    name: str,
    place: int,
    best: Agreement | None,
    other: Shape,
    runner: Runner,
    found: Seen,
    conventions: Conventions,
) -> Compared:
    shape = found.dumped[name]
    if best is None:
        return Compared(name, place, None, shape, as_dumped(shape, other, conventions), None, agrees=False)
    agrees = best.error.within(runner.budget(place).total)
    return Compared(name, place, best.layout, shape, shape, best.error, agrees=agrees, partly=best.partly)


def _outputs(
    runner: Runner,
    tensors: Mapping[str, Tensor],
    compared: Mapping[int, Compared],
    found: Seen,
    conventions: Conventions,
) -> dict[int, Compared]:
    """What each output is compared with: the tensor of the site that made it, or one with the same numbers."""
    graph = runner.graph
    result: dict[int, Compared] = {}
    to_measure: dict[str, int] = {}
    for k, index in enumerate(graph.outputs):
        place = len(graph.sites) + k
        if runner.loud(place):
            continue
        maker = compared.get(_computing(runner, index, compared))
        options = [name for name, at in found.agreeing.items() if place in at and found.marks[name].varies]
        own = [name for name in options if maker is not None and name == maker.dumped]
        if place in compared:
            result[k] = _as_returned(compared[place], found.shapes[place], conventions)
        elif own or options:
            one = _certain((own or options)[0], place, found, conventions)
            result[k] = _as_returned(one, found.shapes[place], conventions)
        elif maker is not None:
            to_measure[maker.dumped] = place
    apart = {k: each for k, each in result.items() if each.departs is not None and each.error is not None}
    to_measure |= {each.dumped: len(graph.sites) + k for k, each in apart.items()}
    if to_measure:
        for name, (best, other) in measured(runner, tensors, to_measure, conventions).items():
            k = to_measure[name] - len(graph.sites)
            one = _open(name, to_measure[name], best, other, runner, found, conventions)
            result[k] = replace(one, departs=apart[k].departs, agrees=False) if k in apart else one
    return result


def _as_returned(one: Compared, other: Shape, conventions: Conventions) -> Compared:
    """What is compared with an output, which may be laid out as it was dumped or as other tensors are."""
    if one.layout is None or not one.agrees:
        return one
    told = conventions.borne_out(one.dumped, one.shape, other, one.layout)
    if told is None:
        return replace(one, alone=True)
    if told:
        return one
    apart = replace(one, departs=one.layout, agrees=False)
    return apart if one.shape == other else replace(apart, layout=None, other=other, error=None)


def _computing(runner: Runner, index: int, compared: Mapping[int, Compared]) -> int:
    """The site with a partner whose numbers those of a site are, moved or handed on; else the site itself."""
    graph, here = runner.graph, index
    while here >= 0 and here not in compared:
        site = graph.sites[here]
        if not (site.identity or site.op in MOVES) or len(site.inputs) != 1:
            return index
        here = site.inputs[0]
    return here


def upstream(runner: Runner, index: int, compared: Iterable[int]) -> tuple[set[int], set[int]]:
    """The nearest places with a partner above one, inputs as -1 - k; and the sites that are passed on the way."""
    graph, known = runner.graph, set(compared)
    count = len(graph.sites)
    stack = [graph.outputs[index - count]] if index >= count else list(graph.sites[index].inputs)
    above: set[int] = set()
    between: set[int] = set()
    while stack:
        here = stack.pop()
        if here == UNTRACED:
            continue
        if here < 0 or here in known:
            above.add(here)
        elif here not in between:
            between.add(here)
            stack.extend(graph.sites[here].inputs)
    return above, between


def _readers(
    runner: Runner, compared: Mapping[int, Compared], outputs: Mapping[int, Compared]
) -> dict[int, list[Compared]]:
    """For each place with a partner, what is compared next behind it."""
    found: dict[int, list[Compared]] = {place: [] for place in compared}
    ends = {len(runner.graph.sites) + k: each for k, each in outputs.items()}
    for place, each in {**compared, **ends}.items():
        for source in upstream(runner, place, compared)[0]:
            if source in found and source != place:
                found[source].append(each)
    return found


def _unaccepted(
    runner: Runner, compared: Mapping[int, Compared], outputs: Mapping[int, Compared]
) -> dict[str, int]:
    """Those laid out otherwise than all others behind which that does not come right: their axes were exchanged."""
    readers = _readers(runner, compared, outputs)
    accepted: dict[int, bool] = {}
    for place in sorted(compared, reverse=True):
        behind = readers[place]
        accepted[place] = compared[place].departs is None or (
            bool(behind)
            and all(
                each.agrees and (each.departs is None or accepted.get(each.place, False)) for each in behind
            )
        )
    return {compared[place].dumped: place for place, good in accepted.items() if not good}


def _take_back(
    runner: Runner,
    compared: dict[int, Compared],
    outputs: Mapping[int, Compared],
    lost: dict[str, str],
    sites: Mapping[int, Site],
) -> tuple[str, ...]:
    """Leave out pairs that differ while all that is compared next behind them agrees: they were paired wrong.

    Not where part of the numbers agree: then what differs is cut off behind them on these inputs alone. Those that
    are very like all the same are returned: a factor, say, that a norm takes out again.
    """
    doubtful: list[str] = []
    while True:
        readers = _readers(runner, compared, outputs)
        wrong = [
            place
            for place, each in compared.items()
            if not (each.agrees or each.partly)
            and readers[place]
            and all(behind.agrees and runner.rounded[behind.place] for behind in readers[place])
        ]
        if not wrong:
            return tuple(doubtful)
        for place in wrong:
            error = compared[place].error
            if error is not None and error.pearson > LIKELY:
                doubtful.append(compared[place].dumped)
            lost[compared.pop(place).dumped] = GUESSED.format(sites[place].name)


def dtype_of(tensors: Sequence[Tensor]) -> str:
    """The dtype that most of the tensors were computed in: the narrowest that holds all their numbers."""
    counts: dict[str, int] = {}
    for tensor in tensors:
        if tensor.is_floating_point() and mark(tensor).varies and not torch.equal(tensor, tensor.round()):
            name = _narrowest(tensor)
            counts[name] = counts.get(name, 0) + 1
    wide = ("float64", "float32", "bfloat16", "float16")
    return max(wide, key=lambda name: counts.get(name, 0)) if counts else "float32"


def _narrowest(tensor: Tensor) -> str:
    """NumPy has no bfloat16, and arrays are widened on the way: what counts is the numbers."""
    for dtype in (*_HALF, torch.float32):
        narrow = tensor.to(dtype).to(tensor.dtype)
        if torch.equal(torch.nan_to_num(narrow), torch.nan_to_num(tensor)):
            return str(dtype).removeprefix("torch.")
    return str(tensor.dtype).removeprefix("torch.")
