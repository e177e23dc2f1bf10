"""Proving an alignment by numbers, where two models are built from different operators.

What holds weights was paired by the sequence of their sizes, what lies between by its place. Here both models run
in float64, the candidate forced to the baseline's tensors at every pair with weights, so that one fault stays where
it is. Between those pairs the same tensors then turn up on both sides, if need be laid out otherwise: they say which
pairs were guessed right, which other sites belong together, and which of several ways to share out weights is meant.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from verifier.align import Pair
from verifier.align.sequence import longest_common_subsequence
from verifier.graph.operators import MOVES, REPLACEABLE, kind
from verifier.lockstep import Comparing, Plan, run
from verifier.metrics import compare
from verifier.proof.contents import Content
from verifier.proof.likeness import EQUAL, ROUNDED, compared, distance, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.align import Alignment, Assembly, Layout
    from verifier.bench.bench import Bench
    from verifier.bench.subject import Subject
    from verifier.graph import Graph
    from verifier.records import Comparison

# Relative error (NRMSE) of one tensor with a fault in it, as it is laid out; in any other layout it is quite another.
_NEAR = 0.5

DISPROVED = "paired by its place at first, but the two tensors differ and the operators around them do too"


@dataclass
class _Seen:
    """What one forced run has shown.

    Attributes:
        contents: The contents of other sites than the forced ones, by site, on both sides.
        forced: What the forced pairs have shown.
        equal: Pairs of other sites that give the same, laid out alike.
    """

    contents: tuple[dict[int, Content], dict[int, Content]] = field(default_factory=lambda: ({}, {}))
    forced: _Forced = field(default_factory=lambda: _Forced(set(), {}, {}))
    equal: set[Pair] = field(default_factory=set)

    @property
    def agreeing(self) -> set[Pair]:
        """The forced pairs that agree."""
        return self.forced.agreeing


class Proved(NamedTuple):
    """Two models with their alignment proved, and how far pairs are apart that rounded weights may set apart."""

    subject: Subject
    apart: Mapping[Pair, Comparison]


class _Forced(NamedTuple):
    """What forced pairs have shown: which agree, how far rounded weights may set others apart, and layouts.

    None stands for the baseline's layout; what is not known is not there.
    """

    agreeing: set[Pair]
    apart: dict[Pair, Comparison]
    layouts: dict[Pair, Layout | None]


def proved(bench: Bench) -> Proved:
    """The bench's subject with its alignment proved, and its weights shared out as the numbers demand.

    Args:
        bench: The two models with an alignment that was partly guessed, on a few samples in float64.
    """
    alignment = bench.alignment
    firm = [pair for pair in alignment.pairs if _firm(alignment, pair)]
    seen = _look(bench, firm)
    bench, seen = _shared_out(bench, firm, seen)
    shaped = [pair for pair in firm if not _misshapen(alignment, pair, firm, seen.agreeing)]
    other, firm = len(shaped) < len(firm), shaped
    alike, doubted = _between(alignment, firm, seen)
    if other or not seen.equal.issuperset(alike):
        found = _forced(bench, [*firm, *alike])
    else:  # forced at these, too, nothing would change
        found = seen.forced._replace(
            agreeing=seen.agreeing | {*alike}, layouts=seen.forced.layouts | dict.fromkeys(alike)
        )
    sure = [
        *firm,
        *(
            pair
            for pair in alike
            if pair in found.agreeing or (pair in found.apart and _weighed(alignment, pair))
        ),
    ]
    pairs = [*sure, *(pair for pair in doubted if _suspicious(alignment, pair, sure, firm, seen.agreeing))]
    layouts_of = {**alignment.layouts, **found.layouts}
    laid = {pair: layout for pair in pairs if (layout := layouts_of.get(pair)) is not None}
    settled = replace(bench.subject, alignment=alignment.settled(pairs, laid, DISPROVED))
    return Proved(settled, {pair: found.apart[pair] for pair in sure if pair in found.apart})


def _firm(alignment: Alignment, pair: Pair) -> bool:
    """Whether a pair stands on weights, which say more than a place does."""
    return bool(
        alignment.baseline.sites[pair.baseline].tensors and alignment.candidate.sites[pair.candidate].tensors
    )


def _weighed(alignment: Alignment, pair: Pair) -> bool:
    """Whether both sites compute with weights or with what is made of them, as a norm written by hand does."""
    return all(
        graph.sites[index].tensors
        or any(source >= 0 and not graph.reads_inputs[source] for source in graph.sites[index].inputs)
        for graph, index in zip((alignment.baseline, alignment.candidate), pair, strict=True)
    )


def _misshapen(alignment: Alignment, pair: Pair, firm: Sequence[Pair], agreeing: Collection[Pair]) -> bool:
    """Whether a pair cannot give one tensor, and all below it agrees though it was not made equal: a wrong guess."""
    b, c = alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate]
    if math.prod(b.shape) == math.prod(c.shape):
        return False
    below = list(_below(alignment, [pair.candidate], {each.candidate: each for each in firm}))
    return all(each in agreeing for each in below or [_OUTPUTS])


def _look(bench: Bench, firm: Sequence[Pair]) -> _Seen:
    """Run both models, forced at the `firm` pairs, and take the contents of every other site."""
    seen = _Seen()
    pairs = [pair for pair in bench.alignment.pairs if pair not in {*firm}]
    partners = {pair.baseline: pair for pair in pairs}, {pair.candidate: pair for pair in pairs}
    waiting: tuple[dict[Pair, Tensor], dict[Pair, Tensor]] = ({}, {})  # for the other side to come there

    def passing(lane: int, site: int, tensor: Tensor) -> None:
        content = Content.of(tensor)
        if content is not None:
            seen.contents[lane][site] = content
        pair = partners[lane].get(site)
        if pair is None:
            return
        there = waiting[1 - lane].pop(pair, None)
        if there is None:
            waiting[lane][pair] = tensor.clone()
            if len(waiting[lane]) > _WAITING:
                waiting[lane].pop(next(iter(waiting[lane])))
        elif (
            there.shape == tensor.shape and distance(*((there, tensor) if lane else (tensor, there))) <= EQUAL
        ):
            seen.equal.add(pair)

    seen.forced = _forced(bench, firm, passing)
    return seen


_WAITING = 16  # tensors of one side; where it is more between two forced pairs, these are run once more


def _forced(
    bench: Bench, pairs: Sequence[Pair], passing: Callable[[int, int, Tensor], None] = lambda *_: None
) -> _Forced:
    """Run both models, forced at `pairs`. A pair that is alike in no layout is forced in the likeliest."""
    alignment = bench.alignment
    ordered = sorted(pairs)
    found = _Forced(set(), {}, {})
    laid = {k: alignment.layouts[pair] for k, pair in enumerate(ordered) if pair in alignment.layouts}

    def visit(number: int, tensors: Sequence[Tensor]) -> None:
        one, other = tensors
        error, layout = nearest(one, other, [laid[number]] if number in laid else [])
        if error <= EQUAL:
            found.agreeing.add(ordered[number])
        elif error <= ROUNDED:
            found.apart[ordered[number]] = compared(
                one, other if layout is None else layout.back(other, one.shape)
            )
        if error <= (ROUNDED if layout is None or one.shape == other.shape else _NEAR):
            found.layouts[ordered[number]] = layout
            if layout is not None:
                laid[number] = layout

    passes = run(
        [
            bench.lane(side, stops={site.index for site in graph.comparable})
            for side, graph in (("baseline", alignment.baseline), ("candidate", alignment.candidate))
        ],
        Plan(
            [[pair.baseline for pair in ordered], [pair.candidate for pair in ordered]],
            [Comparing(0, 1, force=True)],
            layouts=laid,  # `visit` comes before a pair is forced, and tells how
        ),
        visit=visit,
        passing=passing,
    )
    if all(
        meeting.moments is not None and compare(meeting.moments).within(EQUAL)
        for meeting in passes.outputs[0]
    ):
        found.agreeing.add(_OUTPUTS)
    return found


# Stands for what the models return, where no pair with weights is below.
_OUTPUTS = Pair(-1, -1)


def _shared_out(bench: Bench, firm: Sequence[Pair], seen: _Seen) -> tuple[Bench, _Seen]:
    """Try the other ways to share out weights where the first one shows in the pairs below."""
    alignment, masters = bench.alignment, bench.subject.masters

    def with_assemblies(chosen: Iterable[Mapping[str, Assembly]]) -> Bench:
        return bench.at(subject=bench.subject.with_assemblies(chosen))

    choices = [
        choice
        for choice in alignment.choices
        if choice[0].items() <= masters.assemblies.items() and masters.decided.isdisjoint(choice[0])
    ]
    if not choices or masters.info.mode == "as-is":
        return bench, seen
    witnesses = [_witnesses(alignment, choice[0], firm) for choice in choices]
    open_choices = {k for k, below in enumerate(witnesses) if below and not below <= seen.agreeing}
    chosen = [choice[0] for choice in choices]
    for number in range(1, max((len(choices[k]) for k in open_choices), default=0)):
        trial = [
            choice[number] if k in open_choices and number < len(choice) else chosen[k]
            for k, choice in enumerate(choices)
        ]
        tried = _look(with_assemblies(trial), firm)
        for k in sorted(open_choices):
            if number < len(choices[k]) and witnesses[k] <= tried.agreeing:
                chosen[k] = choices[k][number]
                open_choices.discard(k)
        if not open_choices:
            break
    if all(mine is choice[0] for mine, choice in zip(chosen, choices, strict=True)):
        return bench, seen
    bench = with_assemblies(chosen)
    return bench, _look(bench, firm)


def _witnesses(alignment: Alignment, tensors: Collection[str], firm: Sequence[Pair]) -> frozenset[Pair]:
    """The firm pairs at which it shows whether the candidate's `tensors` are the right ones."""
    users = [
        site.index
        for site in alignment.candidate.comparable
        if any(use.name in tensors for use in site.tensors)
    ]
    by_site = {pair.candidate: pair for pair in firm}
    own = (by_site[site] for site in users if site in by_site)
    return frozenset([*own, *(list(_below(alignment, users, by_site)) or [_OUTPUTS])])


def _below(alignment: Alignment, sites: Sequence[int], by_site: Mapping[int, Pair]) -> Iterator[Pair]:
    """The nearest of some pairs, by their candidate's site, that read from `sites`."""
    stack, seen = list(sites), set(sites)
    while stack:
        for reader in alignment.candidate.consumers[stack.pop()]:
            if reader not in seen:
                seen.add(reader)
                if reader in by_site:
                    yield by_site[reader]
                else:
                    stack.append(reader)


def _between(alignment: Alignment, firm: Sequence[Pair], seen: _Seen) -> tuple[list[Pair], list[Pair]]:
    """Pairs of sites without weights: those of equal content, and those of before among the sites that are left."""
    taken = {pair.baseline for pair in firm}, {pair.candidate for pair in firm}
    before = [pair for pair in alignment.pairs if pair.baseline not in taken[0]]
    found: list[Pair] = []

    def take(pair: Pair) -> None:
        if pair.baseline not in taken[0] and pair.candidate not in taken[1]:
            found.append(pair)
            taken[0].add(pair.baseline)
            taken[1].add(pair.candidate)

    for pair in before:
        one, other = seen.contents[0].get(pair.baseline), seen.contents[1].get(pair.candidate)
        if one is None or other is None:
            continue
        if one.fits(other) or (one.distance(other) <= ROUNDED and _weighed(alignment, pair)):
            take(pair)
    for group_b, group_c in _alike(alignment, seen, taken):
        for i, j in longest_common_subsequence(
            [alignment.baseline.sites[b].op for b in group_b],
            [alignment.candidate.sites[c].op for c in group_c],
        ):
            take(Pair(group_b[i], group_c[j]))
        rest = [b for b in group_b if b not in taken[0]], [c for c in group_c if c not in taken[1]]
        for b, c in zip(*rest, strict=False):
            take(Pair(b, c))
    alike = list(found)
    for pair in before:  # what differs may be the fault that is looked for
        take(pair)
    return alike, found[len(alike) :]


def _alike(
    alignment: Alignment, seen: _Seen, taken: tuple[Collection[int], Collection[int]]
) -> Iterator[tuple[list[int], list[int]]]:
    """Groups of open sites of one content, those that compute and those that only move apart."""
    graphs = alignment.baseline, alignment.candidate
    for moving in (False, True):
        listed: list[tuple[float, int, int, Content]] = []
        for side, graph in enumerate(graphs):
            listed.extend(
                (content.squares, side, site, content)
                for site, content in seen.contents[side].items()
                if site not in taken[side] and (graph.sites[site].op in MOVES) is moving
            )
        listed.sort(key=lambda each: each[0])
        groups: list[tuple[Content, tuple[list[int], list[int]]]] = []
        for _, side, site, content in listed:
            home = next((group for first, group in reversed(groups[-8:]) if first.fits(content)), None)
            if home is None:
                home = ([], [])
                groups.append((content, home))
            home[side].append(site)
        for _, (b, c) in groups:
            if b and c:
                if moving:
                    yield from _of_one_shape(alignment, sorted(b), sorted(c))
                else:
                    yield sorted(b), sorted(c)


def _of_one_shape(
    alignment: Alignment, b: Sequence[int], c: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    by_shape: dict[tuple[int, ...], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for site in b:
        by_shape[alignment.baseline.sites[site].shape][0].append(site)
    for site in c:
        by_shape[alignment.candidate.sites[site].shape][1].append(site)
    yield from by_shape.values()


def _suspicious(
    alignment: Alignment,
    pair: Pair,
    sure: Sequence[Pair],
    firm: Sequence[Pair],
    agreeing: Collection[Pair],
) -> bool:
    """Whether a pair that differs may be at fault: its two sites look alike, and what is below it differs as well.

    Where all below agrees, what lies above computes the same function, and the pair was only guessed wrong. So it
    was if its two sites have nothing in common that they read.
    """
    b, c = alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate]
    alike = b.op == c.op or (kind(b.op) == kind(c.op) and kind(b.op) in REPLACEABLE)
    if not alike or b.shape != c.shape:
        return False
    if alignment.baseline.reads_inputs[b.index] != alignment.candidate.reads_inputs[c.index]:
        return False
    above = [
        _above(graph, index, {each[own]: number for number, each in enumerate(sure)})
        for own, (graph, index) in enumerate(
            ((alignment.baseline, pair.baseline), (alignment.candidate, pair.candidate))
        )
    ]
    if any(above) and above[0].isdisjoint(above[1]):
        return False
    below = list(_below(alignment, [pair.candidate], {each.candidate: each for each in firm}))
    return any(each not in agreeing for each in below or [_OUTPUTS])


def _above(graph: Graph, site: int, known: Mapping[int, int]) -> set[int]:
    """What stands for the nearest sites in `known` that a site reads from, and for the inputs: -1 - k."""
    found: set[int] = set()
    stack, seen = [site], {site}
    while stack:
        for source in graph.sites[stack.pop()].inputs:
            if source < 0:
                found.add(source)
            elif not graph.reads_inputs[source]:
                continue  # that both use a parameter says little
            elif source in known:
                found.add(known[source])
            elif source not in seen:
                seen.add(source)
                stack.append(source)
    return found
