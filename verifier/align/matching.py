"""Pairing the sites of two graphs.

From certain to plausible: sites whose whole context is equal, then equal upstream, then equal downstream (first
with hyperparameters, then without), so that one fault leaves everything above it and below it paired; what
remains between two faults is paired in a canonical order of the dataflow. Names are never looked at.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from verifier.align.alignment import Alignment, Pair, Unmatched
from verifier.align.parameters import map_parameters
from verifier.align.places import fixed, layout_between, may_be_one, place, replaceable
from verifier.align.sequence import longest_common_subsequence
from verifier.align.signatures import (
    Contexts,
    Interner,
    canonical_order,
    loose,
    operator_class,
    shaped,
    strict,
    valued,
)
from verifier.align.skeleton import match_skeletons
from verifier.graph.operators import MOVES, kind

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from verifier.align.assembly import Assembly
    from verifier.graph import Graph, Site


def align(
    baseline: Graph,
    candidate: Graph,
    values: tuple[Mapping[str, Hashable], Mapping[str, Hashable]] | None = None,
    given: Mapping[str, Assembly | None] | None = None,
) -> Alignment:
    """Pair the sites of two graphs that compute the same thing, and map the tensors they use.

    Works on structure alone: operators, shapes, hyperparameters and dataflow. Dead and identity sites take no
    part. Time is near linear in the number of sites, but for the stretch between the first and the last
    difference, where it is quadratic with a very small constant.

    Args:
        baseline: Graph of the baseline.
        candidate: Graph of the candidate.
        values: For each model, what tells its tensors apart by value, by name. Where two models hold the same
            tensors, those say which of several equal places a site stands in.
        given: What is known of the candidate's tensors: how they are made from the baseline's, None for not at all.
    """
    if not given:
        return _aligned(baseline, candidate, values)
    alignment = _aligned(baseline, candidate, _with_names(values, given))
    return alignment.with_given(given)


def _with_names(
    values: tuple[Mapping[str, Hashable], Mapping[str, Hashable]] | None, given: Mapping[str, Assembly | None]
) -> tuple[Mapping[str, Hashable], Mapping[str, Hashable]]:
    """The values, with the same for two tensors of which is known that one is made of the other."""
    of_baseline, of_candidate = (dict(each) for each in values or ({}, {}))
    for name, assembly in given.items():
        if assembly is not None and assembly.whole is not None:
            of_candidate[name] = of_baseline[assembly.whole] = ("given", assembly.whole)
    return of_baseline, of_candidate


def _aligned(
    baseline: Graph,
    candidate: Graph,
    values: tuple[Mapping[str, Hashable], Mapping[str, Hashable]] | None,
) -> Alignment:
    matcher = _Matcher(baseline, candidate, values or ({}, {}))
    matcher.by_contexts(values)
    plain = matcher.copy()
    plain.by_place()
    mapped = map_parameters(baseline, candidate, plain.pairs)
    otherwise = plain.differ_in_operators() or plain.differ_in_layout()
    if not otherwise and _used(candidate) <= mapped.keys():
        return plain.alignment(mapped)
    skeleton = match_skeletons(baseline, candidate, matcher.partner, values or ({}, {}))
    for b, c in skeleton.pairs:
        matcher.pair(b, c)
    matcher.by_contexts(None, pinned=True)
    matcher.by_place()
    further = map_parameters(baseline, candidate, matcher.pairs, skeleton.assemblies)
    gained = _size(further, candidate) - _size(mapped, candidate)
    if gained < 0 or (gained == 0 and not otherwise):
        return plain.alignment(mapped)
    uses = Counter(use.name for site in candidate.comparable for use in site.tensors)
    own = {name: each for name, each in further.items() if uses[name] == 1}  # exporters share equal tensors
    matcher.part(lambda b, c: not may_be_one(b, c, own))
    return Alignment(
        baseline,
        candidate,
        matcher.pairs,
        matcher.unmatched(),
        further,
        {
            pair: layout
            for pair in matcher.pairs
            if (layout := layout_between(baseline.sites[pair.baseline], candidate.sites[pair.candidate]))
        },
        skeleton.choices,
        rebuilt=True,
    )


# A share of sites left alone on both sides beyond which the two models are taken to be built from other operators.
_OTHERWISE = 0.05
_FEW = 2  # as many as one replaced shortcut leaves alone


def _used(graph: Graph) -> set[str]:
    """The tensors that its sites use."""
    return {use.name for site in graph.comparable for use in site.tensors}


def _size(mapped: Mapping[str, Assembly], candidate: Graph) -> int:
    return sum(math.prod(candidate.tensors[name]) for name in mapped)


class _Matcher:
    def __init__(
        self,
        baseline: Graph,
        candidate: Graph,
        values: tuple[Mapping[str, Hashable], Mapping[str, Hashable]],
    ) -> None:
        self.values = values
        self.baseline = baseline
        self.candidate = candidate
        self.graphs = baseline, candidate
        self.partner: dict[int, int] = {}
        self.taken: set[int] = set()

    def alignment(self, parameters: Mapping[str, Assembly]) -> Alignment:
        """What was found, of two graphs of the same operators: only weights and tables may be laid out otherwise."""
        laid = {
            pair: layout
            for pair in self.pairs
            if not (self.baseline.reads_inputs[pair.baseline] or self.candidate.reads_inputs[pair.candidate])
            if (layout := layout_between(*self.sites(pair)))
        }
        return Alignment(self.baseline, self.candidate, self.pairs, self.unmatched(), parameters, laid)

    def sites(self, pair: Pair) -> tuple[Site, Site]:
        """The two sites of a pair."""
        return self.baseline.sites[pair.baseline], self.candidate.sites[pair.candidate]

    def copy(self) -> _Matcher:
        """Another matcher with the same pairs."""
        other = _Matcher(self.baseline, self.candidate, self.values)
        other.partner, other.taken = dict(self.partner), set(self.taken)
        return other

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """What was paired so far, in the baseline's order of execution."""
        return tuple(sorted(Pair(b, c) for b, c in self.partner.items()))

    def pair(self, b: int, c: int) -> None:
        """Pair two sites, if neither has a partner yet."""
        if b not in self.partner and c not in self.taken:
            self.partner[b] = c
            self.taken.add(c)

    def part(self, wrong: Callable[[Site, Site], bool]) -> None:
        """Take back the pairs that are wrong."""
        for b, c in list(self.partner.items()):
            if wrong(self.baseline.sites[b], self.candidate.sites[c]):
                del self.partner[b]
                self.taken.discard(c)

    def by_contexts(
        self, values: tuple[Mapping[str, Hashable], Mapping[str, Hashable]] | None, *, pinned: bool = False
    ) -> None:
        """Pair what is certain: sites in equal contexts, which begin anew at paired sites if `pinned`."""
        describers: list[tuple[Callable[[Site], Hashable], Callable[[Site], Hashable]]] = [
            (strict, strict),
            (loose, loose),
        ]
        if values is not None:
            of_baseline, of_candidate = values
            describers.insert(
                0, (lambda site: valued(site, of_baseline), lambda site: valued(site, of_candidate))
            )
        for describers_of in describers:
            number = Interner()
            pins: tuple[dict[int, int], dict[int, int]] = ({}, {})
            if pinned:
                pins = {b: b for b in self.partner}, {c: b for b, c in self.partner.items()}
            b, c = (
                Contexts(graph, [describe(site) for site in graph.sites], number, pinned_at)
                for graph, describe, pinned_at in zip(self.graphs, describers_of, pins, strict=True)
            )
            self.by_key(
                list(zip(b.forward, b.backward, strict=True)), list(zip(c.forward, c.backward, strict=True))
            )
            self.by_key(b.forward, c.forward)
            # Two norms that lead to one addition are told apart by what leads to them, which the next rule asks for.
            self.by_key(b.backward, c.backward, alone=len(describers) > 2 and describers_of is describers[0])

    def by_place(self) -> None:
        """Pair what is plausible among the sites that are left."""
        self.replaced(early=True)
        # Parameters and joins say more about a place than an activation does, so they choose first.
        for describe in (shaped, loose):
            self.in_order(describe, lambda site: bool(site.tensors) or len(set(site.inputs)) > 1)
            self.in_order(describe, lambda _: True)
        self.replaced()
        self.in_order(operator_class, lambda _: True)
        self.replaced_within()

    def differ_in_operators(self) -> bool:
        """Whether so much is left alone on both sides that the two must be built from other operators."""
        return all(
            len(sites) > max(_FEW, _OTHERWISE * len(graph.comparable))
            for sites, graph in zip(self.open_sites(), self.graphs, strict=True)
        )

    def differ_in_layout(self) -> bool:
        """Whether one side lays tensors out anew where the other does not, and others come out of equal operators."""
        moves = [
            any(graph.sites[index].op in MOVES for index in sites)
            for graph, sites in zip(self.graphs, self.open_sites(), strict=True)
        ]
        return any(moves) and any(
            layout_between(self.baseline.sites[b], self.candidate.sites[c]) for b, c in self.partner.items()
        )

    def open_sites(self) -> tuple[list[int], list[int]]:
        """The comparable sites of both graphs without a partner."""
        return (
            [site.index for site in self.baseline.comparable if site.index not in self.partner],
            [site.index for site in self.candidate.comparable if site.index not in self.taken],
        )

    def by_key(self, keys_b: Sequence[Hashable], keys_c: Sequence[Hashable], *, alone: bool = False) -> None:
        """Pair open sites with equal keys, in order of execution where several share one; not those if `alone`.

        A key that more sites have on one side than on the other says which sites are alike, not which belong
        together; those are left to the next rule.
        """
        groups: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        open_b, open_c = self.open_sites()
        for b in open_b:
            groups[keys_b[b]][0].append(b)
        for c in open_c:
            groups[keys_c[c]][1].append(c)
        for of_baseline, of_candidate in groups.values():
            if len(of_baseline) == len(of_candidate) and not (alone and len(of_baseline) > 1):
                for b, c in zip(of_baseline, of_candidate, strict=True):
                    self.pair(b, c)

    def in_order(self, describe: Callable[[Site], Hashable], chosen: Callable[[Site], bool]) -> None:
        """Pair chosen sites that are left in the canonical order, between neighbours that are paired already."""
        order_b, order_c = canonical_order(self.baseline), canonical_order(self.candidate)
        back = {c: b for b, c in self.partner.items()}
        anchors = longest_common_subsequence(
            [b if b in self.partner else None for b in order_b],
            [back.get(c, ()) for c in order_c],
        )
        previous = (-1, -1)
        for i, j in [*anchors, (len(order_b), len(order_c))]:
            gap_b = [
                b
                for b in order_b[previous[0] + 1 : i]
                if b not in self.partner and chosen(self.baseline.sites[b])
            ]
            gap_c = [
                c
                for c in order_c[previous[1] + 1 : j]
                if c not in self.taken and chosen(self.candidate.sites[c])
            ]
            previous = (i, j)
            if gap_b and gap_c:
                self._gap(gap_b, gap_c, describe)

    def _gap(self, gap_b: Sequence[int], gap_c: Sequence[int], describe: Callable[[Site], Hashable]) -> None:
        self._by_value(gap_b, gap_c, describe)
        self._by_settings(gap_b, gap_c, describe)
        gap_b = [b for b in gap_b if b not in self.partner]
        gap_c = [c for c in gap_c if c not in self.taken]
        found = longest_common_subsequence(
            [(describe(self.baseline.sites[b]), fixed(self.baseline, b)) for b in gap_b],
            [(describe(self.candidate.sites[c]), fixed(self.candidate, c)) for c in gap_c],
        )
        for i, j in found:
            self.pair(gap_b[i], gap_c[j])

    def _by_value(
        self, gap_b: Sequence[int], gap_c: Sequence[int], describe: Callable[[Site], Hashable]
    ) -> None:
        """Pair sites on equal tensors, where there are more sites of their kind on one side than on the other.

        Where there are as many, their order says which is which; tensors may have changed places.
        """
        kinds = [
            Counter(describe(graph.sites[each]) for each in gap)
            for graph, gap in ((self.baseline, gap_b), (self.candidate, gap_c))
        ]
        places: list[dict[Hashable, list[int]]] = [defaultdict(list), defaultdict(list)]
        for graph, gap, values, found in zip(
            (self.baseline, self.candidate), (gap_b, gap_c), self.values, places, strict=True
        ):
            for each in gap:
                site = graph.sites[each]
                kind = describe(site)
                held = tuple(values.get(use.name) for use in site.tensors)
                if kinds[0][kind] != kinds[1][kind] and any(held):
                    found[kind, held].append(each)
        for key, sites in places[0].items():
            if len(sites) == len(places[1].get(key, ())) == 1:
                self.pair(sites[0], places[1][key][0])

    def _by_settings(
        self, gap_b: Sequence[int], gap_c: Sequence[int], describe: Callable[[Site], Hashable]
    ) -> None:
        """Pair the only sites of their settings, where there are more sites of their kind on one side."""
        sides = [
            [
                (site, describe(site), strict(site))
                for site in map(graph.sites.__getitem__, gap)
                if self._open(k, site)
            ]
            for k, (graph, gap) in enumerate(((self.baseline, gap_b), (self.candidate, gap_c)))
        ]
        kinds = [Counter(kind for _, kind, _ in each) for each in sides]
        alike = [Counter(settings for _, _, settings in each) for each in sides]
        there = {settings: site.index for site, _, settings in sides[1]}
        for site, each, settings in sides[0]:
            uneven = kinds[0][each] != kinds[1][each]
            if uneven and site.attributes and alike[0][settings] == alike[1][settings] == 1:
                self.pair(site.index, there[settings])

    def _open(self, side: int, site: Site) -> bool:
        return site.index not in (self.taken if side else self.partner)

    def replaced(self, *, early: bool = False) -> None:
        """Pair what stands alone between paired neighbours on both sides: one operator in place of another.

        Where much is still open (`early`), a place is known by what is read there, and by the shape that comes out.
        """
        open_b, open_c = self.open_sites()
        # As many open sites of an operator here as there: its partner is one of those, not another operator.
        balance = Counter(self.baseline.sites[b].op for b in open_b)
        balance.subtract(self.candidate.sites[c].op for c in open_c)
        nowhere = -1 - len(self.baseline.sites) - len(self.candidate.sites)
        places: dict[Hashable, list[int]] = defaultdict(list)
        for c in open_c:
            inputs, readers = place(self.candidate, c)
            if early:
                inputs = tuple(each if each < 0 or each in self.taken else nowhere for each in inputs)
                readers = tuple(sorted(each if each in self.taken else -1 for each in readers))
            places[self._key(self.candidate, c, inputs, readers, early=early)].append(c)
        for b in open_b:
            inputs, readers = place(self.baseline, b)
            inputs = tuple(self.partner.get(each, nowhere) if each >= 0 else each for each in inputs)
            readers = tuple(sorted(self.partner.get(each, -1) for each in readers))
            known = any(each >= 0 for each in (*inputs, *readers))
            if early and (nowhere in inputs or not known or balance[self.baseline.sites[b].op] == 0):
                continue
            here = places[self._key(self.baseline, b, inputs, readers, early=early)]
            if len(here) == 1:
                self.pair(b, here.pop())

    def replaced_within(self) -> None:
        """Pair the only activations, poolings, norms between the same pairs, beside what a neighbour folds in."""
        pins = {b: b for b in self.partner}, {c: b for b, c in self.partner.items()}
        of_b, of_c = map(replaceable, self.graphs, self.open_sites(), pins)
        for key in of_b.keys() & of_c.keys():
            self.pair(of_b[key], of_c[key])

    @staticmethod
    def _key(
        graph: Graph, index: int, inputs: tuple[int, ...], readers: tuple[int, ...], *, early: bool
    ) -> Hashable:
        site = graph.sites[index]
        key = kind(site.op), fixed(graph, index), inputs, readers
        return (*key, site.shape, site.output, bool(site.tensors)) if early else key

    def unmatched(self) -> tuple[Unmatched, ...]:
        open_b, open_c = self.open_sites()
        return tuple(
            Unmatched(side, index, f"the {other} has no {graph.sites[index].op} at this place")
            for side, other, graph, indices in (
                ("baseline", "candidate", self.baseline, open_b),
                ("candidate", "baseline", self.candidate, open_c),
            )
            for index in indices
        )
